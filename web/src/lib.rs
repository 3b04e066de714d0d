//! Tandem's page: what a person sees and touches, on the browser's main thread.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `state` | what the engine worker said, reduced from its events |
//! | `run` | one burst of questions being answered, token by token |
//! | `chat` | a conversation: what was said, what of it the models still see |
//! | `settings`, `url` | everything a person can set, and the same as a link |
//! | `sliders`, `format`, `geometry` | numbers as positions, as text and as drawings |
//! | `burst`, `csv`, `recorded`, `source` | questions, the exported log, the recorded run, names of models |
//! | `training` | training runs on the server; crate `chart` draws their curves |
//! | `panels`, `panel` (browser only) | one file a panel, and the frame around each |
//! | `app`, `ctx`, `chat_link`, `engine`, `late`, `modules`, `player`, `server_only`, `training_link`, `api`, `dom` (browser only) | the frame around them and what drives them |
//!
//! All modules of the first seven rows are pure: they know no browser and are tested natively.
//!
//! Deliberately absent: models and the maths of the simulator (they run in the engine worker; this page
//! only talks to it through `client::protocol::worker`), and any numbers of its own making: what is not measured or
//! modelled by the worker is shown as N/A.

pub mod burst;
pub mod chat;
pub mod csv;
pub mod format;
pub mod geometry;
pub mod recorded;
pub mod run;
pub mod settings;
pub mod sliders;
pub mod source;
pub mod state;
pub mod training;
pub mod url;

#[cfg(target_arch = "wasm32")]
pub mod api;
#[cfg(target_arch = "wasm32")]
mod app;
#[cfg(target_arch = "wasm32")]
mod chat_link;
#[cfg(target_arch = "wasm32")]
mod ctx;
#[cfg(target_arch = "wasm32")]
pub mod dom;
#[cfg(target_arch = "wasm32")]
pub mod engine;
#[cfg(target_arch = "wasm32")]
mod late;
#[cfg(target_arch = "wasm32")]
mod modules;
#[cfg(target_arch = "wasm32")]
mod panel;
#[cfg(target_arch = "wasm32")]
mod panels;
#[cfg(target_arch = "wasm32")]
mod player;
#[cfg(target_arch = "wasm32")]
mod server_only;
#[cfg(target_arch = "wasm32")]
mod training_link;

/// Shows the page.
#[cfg(target_arch = "wasm32")]
pub fn start() {
    dom::mount(app::App);
}
