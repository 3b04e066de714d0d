//! Waking tasks of one thread: the stop flag of an ask, and the notification by which one side of a run tells the other
//! that there is something new to look at.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Tasks that wait for a condition over shared state. Whoever changes the state notifies them.
#[derive(Debug, Default)]
pub struct Notify {
    waiting: RefCell<Vec<Waker>>,
}

impl Notify {
    /// Wakes everyone who waits.
    pub fn notify_all(&self) {
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Waits until `look` finds something; it is asked at once and after every notification.
    pub async fn wait_for<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        poll_fn(|context| match look() {
            Some(found) => Poll::Ready(found),
            None => {
                let mut waiting = self.waiting.borrow_mut();
                // One entry a task, however often it is polled: the list is as long as there are tasks.
                if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    waiting.push(context.waker().clone());
                }
                Poll::Pending
            }
        })
        .await
    }
}

/// A flag that is set once and can be waited for. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct StopFlag {
    inner: Rc<(Cell<bool>, Notify)>,
}

impl StopFlag {
    /// Sets the flag and wakes everyone who waits for it.
    pub fn stop(&self) {
        self.inner.0.set(true);
        self.inner.1.notify_all();
    }

    /// Whether the flag is set.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.inner.0.get()
    }

    /// Waits for the flag.
    pub async fn stopped(&self) {
        self.inner.1.wait_for(|| self.is_stopped().then_some(())).await;
    }
}
