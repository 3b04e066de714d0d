//! Conversations: what of them fits into the context of those who answer.

use super::EngineWorker;
use super::engine::Loaded;
use super::models::sentence;
use client::offload::context::fit;
use client::offload::run::Ask;
use client::protocol::engine::ContextUse;
use client::protocol::worker::{AskMode, AskOptions, Event};

impl EngineWorker {
    /// Tells the page what a question of a conversation would take.
    pub(super) async fn count(&self, ask: u64, prompt: &str, options: &AskOptions) {
        // While an answer is written, it has the engine.
        let _turn = self.turn.lock().await;
        let used = self.models.look(|loaded| self.used(loaded, prompt, options)).transpose();
        self.emit(match used {
            Ok(used) => Event::Context { ask, used },
            Err(problem) => Event::Failed { ask: Some(ask), message: sentence(&problem) },
        });
    }

    /// Leaves out what does not fit of the conversation that an ask goes on with, and tells the page.
    ///
    /// # Errors
    /// The question is too long by itself, or the model's template refuses the conversation.
    pub(super) fn fit(&self, ask: &mut Ask, loaded: Option<&Loaded>) -> Result<(), String> {
        if ask.options.earlier.is_empty() {
            return Ok(());
        }
        let [prompt] = &ask.prompts[..] else {
            return Err("A conversation goes on with one question at a time.".to_owned());
        };
        let used = loaded.map(|loaded| self.used(loaded, prompt, &ask.options)).transpose();
        let used = used.map_err(|problem| sentence(&problem))?;
        self.emit(Event::Context { ask: ask.id, used });
        if let Some(ContextUse { tokens, limit, left_out, fits }) = used {
            if !fits {
                return Err(format!(
                    "This question alone takes {tokens} tokens of a context of {limit}, in which the answer needs room too. Shorten it."
                ));
            }
            ask.options.earlier.drain(..2 * left_out);
        }
        Ok(())
    }

    /// What a question takes, by this tab's tokenizer; the server's model cuts the same text alike where the two are of one
    /// family, and about alike where they are not.
    fn used(&self, loaded: &Loaded, prompt: &str, options: &AskOptions) -> Result<ContextUse, String> {
        let (own, _) = loaded.count(&[], prompt)?;
        let of_server = || self.server_model.borrow().as_ref().and_then(|model| model.context_length);
        let limit = match options.mode {
            AskMode::LocalOnly => own,
            AskMode::ServerOnly => of_server().unwrap_or(own),
            AskMode::Split => of_server().map_or(own, |servers| servers.min(own)),
        };
        let exchanges = options.earlier.len() / 2;
        let answer = options.sampling.limit().unwrap_or(usize::MAX);
        fit(exchanges, limit, answer, |left_out| {
            let goes = options.earlier.get(2 * left_out..).unwrap_or_default();
            loaded.count(goes, prompt).map(|(_, tokens)| tokens)
        })
    }
}
