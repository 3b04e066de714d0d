//! Letting the browser's event loop turn once.

use futures::future::LocalBoxFuture;
use wasm_bindgen::{JsCast, JsValue, closure::Closure};

/// Resolves in a task of its own, so that messages that have arrived are handled first. A message to oneself is used
/// because a timer is held back to 4 ms after a few turns, and a promise would not leave the current task.
pub fn next_task() -> LocalBoxFuture<'static, ()> {
    Box::pin(async {
        let promise = js_sys::Promise::new(&mut |resolve, _reject| {
            let Ok(channel) = web_sys::MessageChannel::new() else {
                let _ = resolve.call0(&JsValue::UNDEFINED);
                return;
            };
            let port = channel.port1();
            let receiver = port.clone();
            let on_message = Closure::once_into_js(move || {
                receiver.close();
                let _ = resolve.call0(&JsValue::UNDEFINED);
            });
            port.set_onmessage(Some(on_message.unchecked_ref()));
            if channel.port2().post_message(&JsValue::NULL).is_err() {
                // Never seen; without it the promise would wait for ever.
                let _ = on_message.unchecked_ref::<js_sys::Function>().call0(&JsValue::UNDEFINED);
            }
        });
        // It is never rejected.
        let _ = wasm_bindgen_futures::JsFuture::from(promise).await;
    })
}
