//! The presenter's screen, and replays of what was shown on one.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`state`] | what the server said, reduced from its messages |
//! | [`replay`] | slots of an exported file as the pictures that they were |
//! | [`words`] | names of deciders, presences, parts |
//! | `ctx` | what drives them: connection, settings, commands, exports |
//! | `screen`, `setup`, `bar`, `hall`, `numbers`, `round`, `compare`, `world`, `people`, `qr`, `player` | what is seen |

pub mod replay;
pub mod state;
pub mod words;

#[cfg(target_arch = "wasm32")]
mod bar;
#[cfg(target_arch = "wasm32")]
mod compare;
#[cfg(target_arch = "wasm32")]
mod ctx;
#[cfg(target_arch = "wasm32")]
mod export;
#[cfg(target_arch = "wasm32")]
mod hall;
#[cfg(target_arch = "wasm32")]
mod numbers;
#[cfg(target_arch = "wasm32")]
mod people;
#[cfg(target_arch = "wasm32")]
mod player;
#[cfg(target_arch = "wasm32")]
mod qr;
#[cfg(target_arch = "wasm32")]
mod round;
#[cfg(target_arch = "wasm32")]
mod screen;
#[cfg(target_arch = "wasm32")]
mod setup;
#[cfg(target_arch = "wasm32")]
mod world;

/// Shows the page.
#[cfg(target_arch = "wasm32")]
pub fn start() {
    web::dom::mount(screen::App);
}
