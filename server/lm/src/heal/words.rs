//! The corpus in a model file's own tokens.

use engine::engine::ChatTokenizer;
use engine::prompt::Prompt;
use engine::{ChatMessage, EngineError};

use crate::batch::Words;
use crate::tokenizer::TokenizerError;

/// A file's tokenizer and chat template. What it writes for the models that ship is what they were trained on.
#[derive(Debug, Clone)]
pub struct FileWords(pub ChatTokenizer);

fn failed(error: EngineError) -> TokenizerError {
    TokenizerError(error.to_string())
}

impl Words for FileWords {
    fn prompt(&self, question: &str) -> Result<Vec<u32>, TokenizerError> {
        let message = ChatMessage { role: "user".into(), content: question.into() };
        let rendered = self.0.template.render(&[message]).map_err(failed)?;
        Prompt::with_control_tokens(&rendered).tokens(&self.0.tokenizer).map_err(failed)
    }

    fn ended(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut tokens = self.0.tokenizer.encode(text).map_err(failed)?;
        tokens.extend(self.0.tokenizer.eos());
        Ok(tokens)
    }
}
