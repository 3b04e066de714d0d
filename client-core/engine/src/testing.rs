//! What tests of several crates begin with: a small tokenizer, and a whole model as the bytes of a GGUF file.
#![allow(clippy::unwrap_used, reason = "what fails here is a test")]

use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, TokenizerImpl};

pub use crate::gguf::builder::model_file;

/// What [`trained`] is trained on.
pub const TEXT: [&str; 4] = [
    "The capital of Kenya is Nairobi. The currency of Kenya is the Kenyan shilling.",
    "What is the capital of Kenya? It's Nairobi, isn't it? 1234 56",
    "Zürich liegt an der Limmat; 東京は日本の首都です。 🦀🦀",
    "helium  has   two protons\n\nand the symbol He.",
];

/// Tokens in order of id, merges in order, of a byte-level BPE trained on [`TEXT`], with the tokenizer itself.
pub fn trained(size: usize) -> (Vec<String>, Vec<String>, tokenizers::Tokenizer) {
    type Impl = TokenizerImpl<BPE, NormalizerWrapper, ByteLevel, PostProcessorWrapper, DecoderWrapper>;
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(size)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut tokenizer = Impl::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.train(&mut trainer, TEXT.iter()).unwrap();
    let model = serde_json::to_value(tokenizer.get_model()).unwrap();
    let mut tokens: Vec<(u64, String)> =
        model["vocab"].as_object().unwrap().iter().map(|(token, id)| (id.as_u64().unwrap(), token.clone())).collect();
    tokens.sort();
    let merges = model["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()));
    let merges: Vec<String> = merges.collect();
    let mut whole = tokenizers::Tokenizer::new(ModelWrapper::BPE(tokenizer.get_model().clone()));
    whole.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    whole.with_decoder(Some(ByteLevel::new(false, true, true)));
    (tokens.into_iter().map(|(_, token)| token).collect(), merges, whole)
}
