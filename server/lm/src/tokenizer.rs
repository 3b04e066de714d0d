//! The byte-level BPE tokenizer: GPT-2's splitting rule, 2,048 tokens, three special tokens, nothing added by itself.

use tokenizers::decoders::byte_level::ByteLevel as Decoder;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer,
    TokenizerBuilder,
};

/// Ends an answer and an article; also stands in as the beginning-of-sequence id in files that want one.
pub const END: &str = "<|end|>";
/// Opens a question.
pub const USER: &str = "<|user|>";
/// Opens an answer.
pub const ASSISTANT: &str = "<|assistant|>";
/// Ids of [`END`], [`USER`], [`ASSISTANT`].
pub const SPECIAL_IDS: [u32; 3] = [0, 1, 2];

/// The chat template (Jinja). No token comes before it: training, file metadata (`add_bos_token = false`) and template
/// agree that a prompt begins with its first marker. System messages are left out: the models never saw one.
pub const CHAT_TEMPLATE: &str = "{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}{% elif m['role'] == 'assistant' %}<|assistant|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

/// A failure inside `tokenizers`.
#[derive(Debug, thiserror::Error)]
#[error("tokenizer: {0}")]
pub struct TokenizerError(pub String);

impl From<tokenizers::Error> for TokenizerError {
    fn from(e: tokenizers::Error) -> Self {
        Self(e.to_string())
    }
}

/// Trains a vocabulary of `vocab` tokens on `texts`.
pub fn train(vocab: usize, texts: &[String]) -> Result<Tokenizer, TokenizerError> {
    let mut trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(vocab)
        .min_frequency(2)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens([END, USER, ASSISTANT].map(|t| AddedToken::from(t, true)).into())
        .build();
    let mut model =
        TokenizerBuilder::<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>::new()
            .with_model(BPE::default())
            .with_pre_tokenizer(Some(PreTokenizerWrapper::from(ByteLevel::new(false, true, true))))
            .with_decoder(Some(DecoderWrapper::from(Decoder::new(false, true, true))))
            .build()?;
    model.train(&mut trainer, texts.iter())?;
    // Through JSON: the type-erased form that the rest of the program (and the page) loads.
    Ok(Tokenizer::from_bytes(model.to_string(false)?.as_bytes())?)
}

/// Token ids of `text`; markers in it become special tokens.
pub fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, TokenizerError> {
    Ok(tokenizer.encode(text, false)?.get_ids().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_special_ids() {
        let texts: Vec<String> =
            ["The capital of Kenya is Nairobi.", "What is the capital of Mali?"].map(str::to_owned).into();
        let t = train(300, &texts).expect("trains");
        assert_eq!([END, USER, ASSISTANT].map(|s| t.token_to_id(s)), SPECIAL_IDS.map(Some));
        for text in ["The capital of Kenya is Nairobi.", "S\u{e3}o Tom\u{e9} \u{4e2d} 42", "  two  spaces"] {
            let ids = encode(&t, text).expect("encodes");
            assert_eq!(t.decode(&ids, false).expect("decodes"), text);
        }
        let ids = encode(&t, "<|user|>What<|assistant|>").expect("encodes");
        assert_eq!((ids[0], ids[ids.len() - 1]), (1, 2));
    }

    #[test]
    fn same_texts_same_vocabulary() {
        let texts: Vec<String> = (0..50).map(|i| format!("entity {i} has the value {}", i * i)).collect();
        let once = train(320, &texts).and_then(|t| Ok(t.to_string(false)?)).expect("trains");
        let twice = train(320, &texts).and_then(|t| Ok(t.to_string(false)?)).expect("trains");
        assert_eq!(once, twice);
    }
}
