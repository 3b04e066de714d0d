//! The phone: one MLU of a cell.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`state`] | what the server said, reduced from its messages |
//! | [`answer`] | one question and its answer, token by token |
//! | [`read`], [`heard`] | the server's messages and the engine's events, read |
//! | [`meter`] | tokens a second and times, as this phone measures them |
//! | `engine` | the compact model in this tab |
//! | `server` | an answer of the server's alone |
//! | `ctx`, `asking` | what drives them: connection and measurements, questions |
//! | `screen`, `choice`, `map`, `ask` | what a person sees |

pub mod answer;
pub mod heard;
pub mod meter;
pub mod read;
pub mod state;

#[cfg(target_arch = "wasm32")]
mod ask;
#[cfg(target_arch = "wasm32")]
mod asking;
#[cfg(target_arch = "wasm32")]
mod choice;
#[cfg(target_arch = "wasm32")]
mod ctx;
#[cfg(target_arch = "wasm32")]
mod engine;
#[cfg(target_arch = "wasm32")]
mod map;
#[cfg(target_arch = "wasm32")]
mod screen;
#[cfg(target_arch = "wasm32")]
mod server;

/// Shows the page.
#[cfg(target_arch = "wasm32")]
pub fn start() {
    web::dom::mount(screen::App);
}
