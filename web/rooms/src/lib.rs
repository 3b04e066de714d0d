//! A room's two pages: `join.html`, which a phone opens from the QR code, and `room.html`, the presenter's screen.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`phone`] | the phone: its state, the model in its tab, its screen |
//! | [`presenter`] | the presenter: the room's state, replays, the screen |
//! | [`draw`] | cells and curves as SVG text |
//! | [`json`] | messages as the phone reads them |
//! | [`backoff`] | when a cut connection is tried again |
//! | `link`, `device`, `keep` (browser only) | the WebSocket, what a phone's browser offers, what is remembered |
//!
//! State, drawings, waiting times and replays are pure: they know no browser and are tested natively.
//!
//! Deliberately absent: anything that is decided. The server draws the channel and decides α and p for all; these pages show
//! it, measure, and steer. The engine is the main page's, in its worker.

pub mod backoff;
pub mod draw;
pub mod json;
pub mod phone;
pub mod presenter;

#[cfg(target_arch = "wasm32")]
mod device;
#[cfg(target_arch = "wasm32")]
mod keep;
#[cfg(target_arch = "wasm32")]
mod link;
