//! A BERT that embeds texts: `--encoder DIR` with `config.json`, `tokenizer.json` and `model.safetensors`, as the sentence
//! encoders of Hugging Face come (all-MiniLM-L6-v2 is the one that is checked).
//!
//! Deliberately absent: pooling other than the mean (the `1_Pooling` folder of sentence-transformers), and architectures
//! other than BERT; both are refused rather than guessed.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use engine::Tokenizer;
use tokio::sync::oneshot;

use super::pool::Pool;
use super::{Embedder, HostError, Passage, TokenEmbeddings};

/// Texts that may wait while one is embedded.
const QUEUE: usize = 64;

/// Why an encoder could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    /// A file is missing or cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `config.json` is not that of a BERT.
    #[error("{path}: not the config of a BERT model: {why}")]
    Config {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// `tokenizer.json` cannot be used.
    #[error("{path}: {why}")]
    Tokenizer {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The weights do not fit the config.
    #[error("{path}: {source}")]
    Weights {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: candle_core::Error,
    },
}

/// A BERT on one thread of its own.
#[derive(Debug)]
pub struct BertEncoder {
    id: String,
    pool: Pool<Job>,
}

#[derive(Debug)]
struct Job {
    passage: Passage,
    answer: oneshot::Sender<Result<TokenEmbeddings, HostError>>,
}

impl super::pool::Job for Job {
    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }
}

impl BertEncoder {
    /// Loads the model of a folder. Its name is the folder's.
    ///
    /// # Errors
    /// [`EncoderError`], naming the file.
    pub fn open(folder: &Path) -> Result<Self, EncoderError> {
        let bert = Bert::open(folder)?;
        let id = folder.file_name().map_or_else(|| "encoder".into(), |name| name.to_string_lossy().into_owned());
        let worker = move |job: Job| {
            if !job.answer.is_closed() {
                let embedded = bert.embed(job.passage, &|| job.answer.is_closed());
                // Whoever asked may have left meanwhile.
                let _ = job.answer.send(embedded);
            }
        };
        let pool = Pool::start("encoder", vec![worker], QUEUE)
            .map_err(|source| EncoderError::Read { path: folder.to_owned(), source })?;
        Ok(Self { id, pool })
    }
}

#[async_trait]
impl Embedder for BertEncoder {
    fn id(&self) -> String {
        self.id.clone()
    }

    async fn embed(&self, passage: Passage) -> Result<TokenEmbeddings, HostError> {
        let (answer, result) = oneshot::channel();
        self.pool.submit(Job { passage, answer })?;
        result.await.unwrap_or_else(|_| Err(HostError::Engine("the encoder's thread has failed".into())))
    }
}

struct Bert {
    model: BertModel,
    tokenizer: Tokenizer,
    max_tokens: usize,
}

impl Bert {
    fn open(folder: &Path) -> Result<Self, EncoderError> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path)
                .map(|bytes| (path.clone(), bytes))
                .map_err(|source| EncoderError::Read { path, source })
        };
        let (path, bytes) = read("config.json")?;
        let config: Config = serde_json::from_slice(&bytes)
            .map_err(|error| EncoderError::Config { path: path.clone(), why: error.to_string() })?;
        if let Some(kind) = config.model_type.as_deref().filter(|kind| *kind != "bert") {
            return Err(EncoderError::Config { path, why: format!("model_type is {kind:?}") });
        }
        // candle divides by it.
        if config.num_attention_heads == 0 || !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            return Err(EncoderError::Config {
                path,
                why: "hidden_size is not a multiple of num_attention_heads".into(),
            });
        }
        let (path, bytes) = read("tokenizer.json")?;
        let fail = |path: &Path, why: String| EncoderError::Tokenizer { path: path.to_owned(), why };
        // The engine's reader: the library itself panics at some files, and does as others say that pad or cut every text.
        let tokenizer = Tokenizer::from_json(&bytes, None).map_err(|error| fail(&path, error.to_string()))?;
        if tokenizer.vocab_size() > config.vocab_size {
            return Err(fail(&path, format!("more tokens than the model's vocabulary of {}", config.vocab_size)));
        }
        let (path, bytes) = read("model.safetensors")?;
        let weights = |source| EncoderError::Weights { path: path.clone(), source };
        let vars = VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu).map_err(weights)?;
        let model = BertModel::load(vars, &config).map_err(weights)?;
        Ok(Self { model, tokenizer, max_tokens: config.max_position_embeddings })
    }

    /// A text of n tokens, `[CLS]` and `[SEP]` included, to n vectors: the last layer's hidden states.
    fn embed(&self, passage: Passage, left: &(dyn Fn() -> bool + Sync)) -> Result<TokenEmbeddings, HostError> {
        let (ids, [cls, sep]) = match passage {
            Passage::Text(text) => (self.tokenizer.encode_text_until(&text, left)?, self.tokenizer.around()),
            Passage::Tokens(ids) => (ids, [None; 2]),
        };
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.tokenizer.vocab_size()) {
            return Err(HostError::Invalid(format!(
                "there is no token {id}; the encoder has {}",
                self.tokenizer.vocab_size()
            )));
        }
        let content = usize::from(cls.is_some())..usize::from(cls.is_some()) + ids.len();
        let ids: Vec<u32> = cls.into_iter().chain(ids).chain(sep).collect();
        if ids.is_empty() {
            return Err(HostError::Invalid("the text is empty".into()));
        }
        if ids.len() > self.max_tokens {
            return Err(HostError::PromptTooLong { tokens: ids.len(), context: self.max_tokens });
        }
        let vectors = self.forward(&ids).map_err(|error| HostError::Engine(error.to_string()))?;
        let embeddings = TokenEmbeddings {
            tokens: ids.iter().map(|id| self.tokenizer.token_text(*id)).collect(),
            vectors,
            special: (0..ids.len()).map(|at| !content.contains(&at)).collect(),
        };
        embeddings.checked()
    }

    fn forward(&self, ids: &[u32]) -> candle_core::Result<Vec<Vec<f32>>> {
        let ids = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?; // [1, n]
        let types = ids.zeros_like()?; // [1, n]: one segment
        self.model.forward(&ids, &types, None)?.squeeze(0)?.to_vec2() // [n, d]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const CONFIG: &str = r#"{"model_type":"bert","vocab_size":9,"hidden_size":8,"num_hidden_layers":2,
        "num_attention_heads":2,"intermediate_size":16,"hidden_act":"gelu","hidden_dropout_prob":0.1,
        "max_position_embeddings":6,"type_vocab_size":2,"initializer_range":0.02,"layer_norm_eps":1e-12,
        "pad_token_id":0}"#;

    const TOKENIZER: &str = r###"{"version":"1.0","truncation":null,"padding":{"strategy":{"Fixed":6},"direction":"Right",
        "pad_to_multiple_of":null,"pad_id":0,"pad_type_id":0,"pad_token":"[PAD]"},"added_tokens":[
        {"id":2,"content":"[CLS]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
        {"id":3,"content":"[SEP]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
        "normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},
        "pre_tokenizer":{"type":"BertPreTokenizer"},
        "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"[CLS]","type_id":0}},
        {"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"[SEP]","type_id":0}}],"pair":[{"Sequence":{"id":"A","type_id":0}},
        {"Sequence":{"id":"B","type_id":1}}],"special_tokens":{"[CLS]":{"id":"[CLS]","ids":[2],"tokens":["[CLS]"]},
        "[SEP]":{"id":"[SEP]","ids":[3],"tokens":["[SEP]"]}}},"decoder":null,
        "model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,
        "vocab":{"[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,"river":4,"bank":5,"money":6,"##s":7,"the":8}}}"###;

    /// Writes a BERT with pseudo-random weights: enough to check everything but what real weights mean.
    fn tiny(folder: &Path) {
        std::fs::write(folder.join("config.json"), CONFIG).unwrap();
        std::fs::write(folder.join("tokenizer.json"), TOKENIZER).unwrap();
        let mut tensors = HashMap::new();
        let mut seed = 1u64;
        let mut add = |name: String, shape: &[usize], centre: f32| {
            let values: Vec<f32> = (0..shape.iter().product())
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    centre + ((seed >> 40) as f32 / (1u64 << 24) as f32 - 0.5)
                })
                .collect();
            tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
        };
        for (name, rows) in [("word", 9), ("position", 6), ("token_type", 2)] {
            add(format!("embeddings.{name}_embeddings.weight"), &[rows, 8], 0.0);
        }
        add("embeddings.LayerNorm.weight".into(), &[8], 1.0);
        add("embeddings.LayerNorm.bias".into(), &[8], 0.0);
        for layer in 0..2 {
            let prefix = format!("encoder.layer.{layer}");
            for (name, out, into) in [
                ("attention.self.query", 8, 8),
                ("attention.self.key", 8, 8),
                ("attention.self.value", 8, 8),
                ("attention.output.dense", 8, 8),
                ("intermediate.dense", 16, 8),
                ("output.dense", 8, 16),
            ] {
                add(format!("{prefix}.{name}.weight"), &[out, into], 0.0);
                add(format!("{prefix}.{name}.bias"), &[out], 0.0);
            }
            for name in ["attention.output", "output"] {
                add(format!("{prefix}.{name}.LayerNorm.weight"), &[8], 1.0);
                add(format!("{prefix}.{name}.LayerNorm.bias"), &[8], 0.0);
            }
        }
        candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
    }

    #[tokio::test]
    async fn embeds_in_context() {
        let folder = tempfile::tempdir().unwrap();
        tiny(folder.path());
        let encoder = BertEncoder::open(folder.path()).unwrap();
        let river = encoder.embed("the River banks".into()).await.unwrap();
        assert_eq!(river.tokens, ["[CLS]", "the", "river", "bank", "##s", "[SEP]"]);
        assert_eq!(river.special, [true, false, false, false, false, true]);
        assert_eq!(river.content().len(), 4);
        assert!(river.vectors.iter().all(|vector| vector.len() == 8 && vector.iter().all(|v| v.is_finite())));
        let norm: f32 = river.pooled().iter().map(|v| v * v).sum();
        assert!((norm - 1.0).abs() < 1e-5);
        // The same word elsewhere: the same token, another vector. The same text: the same vectors.
        let money = encoder.embed("the money banks".into()).await.unwrap();
        assert_eq!(money.tokens[3], "bank");
        assert_ne!(money.vectors[3], river.vectors[3]);
        assert_eq!(encoder.embed("the river banks".into()).await.unwrap(), river);
        // Seven tokens against six positions.
        let error = encoder.embed("the river banks the".into()).await.unwrap_err();
        assert_eq!(error, HostError::PromptTooLong { tokens: 7, context: 6 });
        // Token ids are taken as they are.
        let ids = encoder.embed(Passage::Tokens(vec![2, 8, 4, 5, 7, 3])).await.unwrap();
        assert_eq!(ids.vectors, river.vectors);
        assert_eq!(ids.special, [false; 6]);
        let error = encoder.embed(Passage::Tokens(vec![4, 9])).await.unwrap_err();
        assert!(matches!(&error, HostError::Invalid(why) if why.contains("token 9")), "{error}");
        // A text that reads like a control token is text.
        let said = encoder.embed("[SEP]".into()).await.unwrap();
        assert!(!said.tokens[1..said.tokens.len() - 1].contains(&"[SEP]".to_owned()), "{:?}", said.tokens);
    }

    #[test]
    fn a_long_text_is_given_up_when_its_client_has_left() {
        let folder = tempfile::tempdir().unwrap();
        tiny(folder.path());
        let bert = Bert::open(folder.path()).unwrap();
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let left = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= 10;
        let error = bert.embed("the river banks ".repeat(100_000).into(), &left).unwrap_err();
        assert!(matches!(error, HostError::Engine(_)) && asked.into_inner() == 11, "{error}");
    }

    /// The library panics at it.
    #[test]
    fn a_damaged_table_in_the_tokenizer_is_refused() {
        let usual = r#"{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true}"#;
        let text = TOKENIZER.replace(usual, r#"{"type":"Precompiled","precompiled_charsmap":"/wAAAAE="}"#);
        assert_ne!(text, TOKENIZER);
        let folder = tempfile::tempdir().unwrap();
        tiny(folder.path());
        std::fs::write(folder.path().join("tokenizer.json"), text).unwrap();
        let error = BertEncoder::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json") && error.contains("precompiled_charsmap"), "{error}");
    }

    #[test]
    fn numbers_that_are_none_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        tiny(folder.path());
        let path = folder.path().join("model.safetensors");
        let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        let damaged = Tensor::new(&[f32::NAN; 8], &Device::Cpu).unwrap();
        tensors.insert("encoder.layer.1.output.LayerNorm.weight".into(), damaged);
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let error = Bert::open(folder.path()).unwrap().embed("the river".into(), &|| false).unwrap_err();
        assert!(matches!(&error, HostError::Engine(why) if why.contains("not finite")), "{error}");
    }

    #[test]
    fn says_which_file_is_wrong() {
        let cases: [(&str, Option<&str>); 6] = [
            ("config.json", None),
            ("config.json", Some("{}")),
            ("config.json", Some(&CONFIG.replace("\"bert\"", "\"roberta\""))),
            ("config.json", Some(&CONFIG.replace("heads\":2", "heads\":0"))),
            ("tokenizer.json", Some("[]")),
            ("model.safetensors", Some("not a tensor file")),
        ]
        .map(|(name, text)| (name, text.map(|text| &*Box::leak(text.to_owned().into_boxed_str()))));
        for (name, text) in cases {
            let folder = tempfile::tempdir().unwrap();
            tiny(folder.path());
            match text {
                Some(text) => std::fs::write(folder.path().join(name), text).unwrap(),
                None => std::fs::remove_file(folder.path().join(name)).unwrap(),
            }
            let error = BertEncoder::open(folder.path()).unwrap_err().to_string();
            assert!(error.contains(name), "{name}: {error}");
        }
    }

    /// With the real weights, against the matrix that the documentation of sentence-transformers prints for this model:
    /// `TANDEM_ENCODER_DIR=<folder of all-MiniLM-L6-v2> cargo test -p tandem-server encoder`.
    #[tokio::test]
    async fn all_minilm_l6_v2_gives_the_published_similarities() {
        let Some(folder) = std::env::var_os("TANDEM_ENCODER_DIR") else {
            eprintln!("skipped: TANDEM_ENCODER_DIR is not set");
            return;
        };
        let encoder = BertEncoder::open(Path::new(&folder)).unwrap();
        let columns = ["The dog plays in the garden", "The new movie is so great", "A woman watches TV"];
        let mut largest = 0.0f32;
        for (row, expect) in [
            ("The new movie is awesome", [0.0543, 0.8939, -0.0502]),
            ("The cat sits outside", [0.2838, -0.0029, 0.1310]),
            ("A man is playing guitar", [0.2277, -0.0136, -0.0327]),
        ] {
            let left = encoder.embed(row.into()).await.unwrap().pooled();
            assert_eq!(left.len(), 384);
            for (column, expect) in columns.iter().zip(expect) {
                let right = encoder.embed((*column).into()).await.unwrap().pooled();
                let cosine: f32 = left.iter().zip(&right).map(|(a, b)| a * b).sum();
                eprintln!("{row} | {column}: {cosine:.4}, published {expect:.4}");
                largest = largest.max((cosine - expect).abs());
            }
        }
        // They are printed with four digits.
        assert!(largest <= 1e-4, "off by {largest}");
    }
}
