//! A model here that can give way to another one. Answers that have begun, and those that wait, are written to their end by the
//! model that they were asked of; until the last of them is done, both are in memory.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use client::protocol::health::HostKind;

use super::local::LocalHost;
use super::{
    Embedder, Generation, GenerationStream, Host, HostError, Load, ModelCard, Passage, Progress, TokenEmbeddings,
};

/// How often it is looked at whether the model that gives way still writes.
const LOOK: Duration = Duration::from_millis(50);

/// The model that answers now.
#[derive(Debug)]
pub struct Swap(RwLock<Arc<LocalHost>>);

impl Swap {
    /// Begins with this one.
    #[must_use]
    pub fn new(host: LocalHost) -> Self {
        Self(RwLock::new(Arc::new(host)))
    }

    fn now(&self) -> Arc<LocalHost> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets another model answer from now on. Returns a task that ends when the one before has answered all that it was asked and
    /// is out of memory.
    pub fn replace(&self, next: LocalHost) -> tokio::task::JoinHandle<()> {
        let next = Arc::new(next);
        let before = std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), next);
        tokio::spawn(async move {
            // Who is about to ask holds it, too.
            let busy = |load: Load| load.active + load.waiting > 0;
            while Arc::strong_count(&before) > 1 || busy(Host::load(before.as_ref())) {
                tokio::time::sleep(LOOK).await;
            }
        })
    }
}

#[async_trait]
impl Host for Swap {
    fn kind(&self) -> HostKind {
        HostKind::Local
    }

    async fn model(&self) -> ModelCard {
        self.now().model().await
    }

    fn vocabulary(&self) -> Option<String> {
        self.now().vocabulary()
    }

    fn load(&self) -> Load {
        Host::load(self.now().as_ref())
    }

    fn progress(&self) -> Option<Progress> {
        self.now().progress()
    }

    async fn generate(&self, generation: Generation) -> Result<GenerationStream, HostError> {
        let now = self.now();
        now.generate(generation).await
    }
}

#[async_trait]
impl Embedder for Swap {
    fn id(&self) -> String {
        self.now().id()
    }

    async fn embed(&self, passage: Passage) -> Result<TokenEmbeddings, HostError> {
        let now = self.now();
        now.embed(passage).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::local::LocalConfig;
    use crate::host::testing::{card, engine};
    use crate::host::{GenerationEvent, Prompt, Sampling};

    fn host(name: &str, context: usize) -> LocalHost {
        let card = ModelCard { id: name.into(), ..card() };
        LocalHost::start(engine(context), card, LocalConfig { slots: 1, queue: 4, prefix_bytes: 0 }).unwrap()
    }

    fn ask(max_tokens: usize) -> Generation {
        let sampling = Sampling { max_tokens: Some(max_tokens), temperature: Some(0.0), ..Sampling::default() };
        Generation { prompt: Prompt::Text("hello".into()), sampling, counted: true, cache_salt: None }
    }

    async fn count(mut stream: GenerationStream) -> usize {
        let mut pieces = 0;
        while let Some(event) = stream.recv().await {
            match event {
                GenerationEvent::Text(_) => pieces += 1,
                GenerationEvent::Done(_) => return pieces,
                other => panic!("{other:?}"),
            }
        }
        panic!("the answer has no end");
    }

    #[tokio::test]
    async fn what_was_asked_of_a_model_is_answered_by_it_and_what_comes_later_by_the_next() {
        // Uncancelled, a context of this length would take many minutes to fill.
        let swap = Swap::new(host("first", 100_000));
        let mut running = swap.generate(ask(usize::MAX)).await.unwrap();
        assert!(matches!(running.recv().await, Some(GenerationEvent::Text(_))));
        // One place: this one waits for it, while the model gives way.
        let waiting = swap.generate(ask(3)).await.unwrap();
        let gone = swap.replace(host("second", 64));
        assert_eq!((swap.model().await.id.as_str(), Embedder::id(&swap).as_str()), ("second", "second"));
        assert_eq!(Host::load(&swap).active, 0);
        // The second answers at once, with a place of its own.
        assert_eq!(count(swap.generate(ask(5)).await.unwrap()).await, 5);
        assert!(matches!(running.recv().await, Some(GenerationEvent::Text(_))));
        tokio::time::sleep(3 * LOOK).await;
        assert!(!gone.is_finished(), "the first still writes");
        drop(running);
        assert_eq!(count(waiting).await, 3);
        tokio::time::timeout(Duration::from_secs(10), gone).await.expect("it leaves the memory").unwrap();
    }
}
