//! What waits to be sent to one connection.
//!
//! Two kinds: what must arrive (decisions, rounds, seats) waits in a queue, and the newest picture in a place of its own, where
//! it replaces one that has not been sent. A connection that lets the queue fill up is closed as too slow: it joins again with
//! its token and gets a snapshot, so nothing is ever left out silently. A connection that only missed pictures gets a snapshot
//! as soon as it has caught up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use client::protocol::rooms::CloseReason;
use tokio::sync::Notify;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Messages that must arrive.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
}

impl Space {
    /// A phone's: minutes of decisions.
    pub const PHONE: Self = Self { messages: 256, bytes: 512 << 10 };
    /// A presenter's: a hall that joins or answers at once.
    pub const PRESENTER: Self = Self { messages: 4096, bytes: 8 << 20 };
}

/// What comes next on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A message.
    Text(Arc<str>),
    /// Its end.
    Close(CloseReason),
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Arc<str>>,
    bytes: usize,
    picture: Option<Arc<str>>,
    /// Whether a picture was replaced since the last snapshot.
    missed: bool,
    dropped: u64,
    close: Option<CloseReason>,
}

/// What waits to be sent to one connection.
#[derive(Debug)]
pub struct Outbox {
    space: Space,
    inner: Mutex<Inner>,
    changed: Notify,
}

impl Outbox {
    /// An empty one.
    #[must_use]
    pub fn new(space: Space) -> Self {
        Self { space, inner: Mutex::default(), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that must arrive. When there is no room for it the connection ends.
    pub fn send(&self, text: Arc<str>) {
        let mut inner = self.lock();
        if inner.close.is_some() {
            return;
        }
        let fits = inner.queue.len() < self.space.messages && inner.bytes + text.len() <= self.space.bytes;
        if fits {
            inner.bytes += text.len();
            inner.queue.push_back(text);
        } else {
            inner.close = Some(CloseReason::TooSlow);
            (inner.queue, inner.picture, inner.bytes) = (VecDeque::new(), None, 0);
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// The newest picture.
    pub fn show(&self, picture: Arc<str>) {
        let mut inner = self.lock();
        if inner.close.is_some() {
            return;
        }
        if inner.picture.replace(picture).is_some() {
            inner.missed = true;
            inner.dropped += 1;
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// Whether a snapshot is due instead of the next picture: some were replaced, and the last one has been taken. Says so once.
    pub fn wants_snapshot(&self) -> bool {
        let mut inner = self.lock();
        let due = inner.missed && inner.picture.is_none();
        if due {
            inner.missed = false;
        }
        due
    }

    /// Pictures that were replaced before they were sent.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Ends the connection once what waits has been sent; the first reason stays.
    pub fn close(&self, reason: CloseReason) {
        self.lock().close.get_or_insert(reason);
        self.changed.notify_one();
    }

    /// What is to be sent next; waits for it. For one reader.
    pub async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.changed.notified().await;
        }
    }

    /// Resolves once the connection is too slow. For its reader, while it sends.
    pub async fn given_up(&self) {
        loop {
            let changed = self.changed.notified();
            if self.lock().close == Some(CloseReason::TooSlow) {
                return;
            }
            changed.await;
        }
    }

    fn take(&self) -> Option<Next> {
        let mut inner = self.lock();
        if let Some(text) = inner.queue.pop_front() {
            inner.bytes -= text.len();
            return Some(Next::Text(text));
        }
        if let Some(reason) = inner.close {
            return Some(Next::Close(reason));
        }
        inner.picture.take().map(Next::Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: impl Into<String>) -> Arc<str> {
        text.into().into()
    }

    fn all(outbox: &Outbox) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(next) = outbox.take() {
            match next {
                Next::Text(text) => all.push(text.to_string()),
                Next::Close(reason) => {
                    all.push(format!("{reason:?}"));
                    break;
                }
            }
        }
        all
    }

    #[test]
    fn a_slow_reader_gets_every_decision_one_picture_and_then_a_snapshot() {
        let outbox = Outbox::new(Space::PHONE);
        for slot in 0..100 {
            outbox.send(text(format!("decision {slot}")));
            outbox.show(text(format!("picture {slot}")));
            assert!(!outbox.wants_snapshot(), "it has not caught up");
        }
        let got = all(&outbox);
        let expected = (0..100).map(|slot| format!("decision {slot}")).chain(["picture 99".to_owned()]);
        assert_eq!(got, expected.collect::<Vec<_>>());
        assert_eq!(outbox.dropped(), 99);
        assert!(outbox.wants_snapshot() && !outbox.wants_snapshot());
    }

    #[test]
    fn whoever_reads_nothing_is_closed_and_holds_nothing() {
        for (space, count, length) in
            [(Space { messages: 3, bytes: 1000 }, 4, 1), (Space { messages: 100, bytes: 10 }, 3, 4)]
        {
            let outbox = Outbox::new(space);
            for _ in 0..count {
                outbox.send(text("x".repeat(length)));
            }
            outbox.show(text("picture"));
            assert_eq!(all(&outbox), ["TooSlow"]);
        }
    }

    #[test]
    fn what_waits_is_sent_before_the_end() {
        let outbox = Outbox::new(Space::PHONE);
        outbox.send(text("last words"));
        outbox.close(CloseReason::Removed);
        outbox.close(CloseReason::GoingDown);
        outbox.send(text("too late"));
        assert_eq!(all(&outbox), ["last words", "Removed"]);
    }
}
