//! Time in a worker.

use async_trait::async_trait;
use futures::channel::oneshot;
use gloo::timers::callback::Timeout;
use wasm_bindgen::JsCast;
use web_sys::{Performance, WorkerGlobalScope};

use client::offload::ports::Clock;

/// Timers take at most this; longer waits are cut into pieces.
const LONGEST_TIMER_S: f64 = 1e6;

/// The worker's clock: seconds since the worker began.
#[derive(Clone, Debug)]
pub struct BrowserClock(Option<Performance>);

impl Default for BrowserClock {
    fn default() -> Self {
        Self(js_sys::global().dyn_ref::<WorkerGlobalScope>().and_then(WorkerGlobalScope::performance))
    }
}

#[async_trait(?Send)]
impl Clock for BrowserClock {
    fn now_s(&self) -> f64 {
        match &self.0 {
            Some(performance) => performance.now() / 1e3,
            None => js_sys::Date::now() / 1e3,
        }
    }

    async fn sleep(&self, seconds: f64) {
        let until_s = self.now_s() + seconds;
        loop {
            let left_s = (until_s - self.now_s()).clamp(0.0, LONGEST_TIMER_S);
            let (sender, receiver) = oneshot::channel();
            // Dropping the handle cancels the timer.
            let _timer = Timeout::new((left_s * 1e3).ceil() as u32, move || {
                // Nobody listens when the sleeper was dropped at this very moment.
                let _ = sender.send(());
            });
            let _ = receiver.await;
            // A timer may come a fraction of a millisecond early.
            if until_s - self.now_s() < 1e-3 {
                return;
            }
        }
    }
}
