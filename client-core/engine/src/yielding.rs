//! Letting other tasks of the thread run between tokens.

use futures::future::LocalBoxFuture;

/// Yields to other tasks of the thread. In a browser tab queued messages are handled then, so that "stop" is seen between
/// tokens.
pub type YieldNow = fn() -> LocalBoxFuture<'static, ()>;

/// What an engine yields with by itself: in a browser, where everything shares one thread.
#[cfg(all(target_arch = "wasm32", feature = "browser"))]
pub(super) fn default_yield() -> Option<YieldNow> {
    Some(super::event_loop::next_task)
}

/// What an engine yields with by itself: natively nothing, where other tasks have threads of their own.
#[cfg(not(all(target_arch = "wasm32", feature = "browser")))]
pub(super) fn default_yield() -> Option<YieldNow> {
    None
}
