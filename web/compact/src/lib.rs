//! The page's view of compact models, a WebAssembly module of its own that is fetched when somebody opens the view: what
//! `tandem ecld report` measured of a family of them, what was cut, and one question asked of two.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`report`] | `reports/ecld.json` as this view reads it |
//! | [`plots`] | quality over bytes, and losses, as plots |
//! | [`cuts`] | what was cut, as bars and heat maps |
//! | [`duel`] | two models answering one question, one after the other |
//! | `view`, `table`, `pictures`, `sides` (browser only) | the view, its table, its pictures, the two models |
//!
//! Deliberately absent: any number that is not in the report, and the page's state. A variant that a visitor wants in the tab is
//! named in the link, which the page follows; its conversation stays.

pub mod cuts;
pub mod duel;
pub mod plots;
pub mod report;

#[cfg(target_arch = "wasm32")]
mod pictures;
#[cfg(target_arch = "wasm32")]
mod sides;
#[cfg(target_arch = "wasm32")]
mod table;
#[cfg(target_arch = "wasm32")]
mod view;

/// Keeps the module's exports; there is nothing to do until the page mounts the view.
#[cfg(target_arch = "wasm32")]
pub fn start() {
    console_error_panic_hook::set_once();
}
