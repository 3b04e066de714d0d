//! Whether this tab's model and the server's belong together; the page is told when that changes.

use super::EngineWorker;
use client::pair::{Device, pair};
use client::protocol::worker::{Event, Fit};

impl EngineWorker {
    /// Looks at both models, and tells the page what is new.
    pub(super) fn look_at_pair(&self) {
        let device = self.models.words();
        let pair = match (&device, &*self.server_model.borrow()) {
            (Some((name, vocabulary)), Some(server)) => {
                Some(pair(Device { name, vocabulary }, server, &self.manifest.borrow().models))
            }
            _ => None,
        };
        if *self.pair.borrow() != pair {
            self.pair.borrow_mut().clone_from(&pair);
            self.emit(Event::Pair { pair });
        }
    }

    /// Whether the two have nothing to do with each other.
    pub(super) fn mismatched(&self) -> bool {
        self.pair.borrow().as_ref().is_some_and(|pair| pair.fit == Fit::Different)
    }
}
