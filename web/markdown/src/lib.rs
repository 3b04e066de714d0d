//! Answers of a chat as Markdown: a WebAssembly module of its own, fetched when the first answer comes.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`blocks`] | a text as blocks, of which only the last one can still change while the text grows |
//! | [`tree`] | what a block becomes: elements of a short list, text, and which byte of the answer each text begins at |
//! | `dom` (browser only) | the tree as DOM nodes, each text in the colours of who wrote it |
//!
//! What a model writes is outside data. It cannot become markup: no HTML is ever written or parsed here. Elements come from the
//! list in [`tree`], HTML in an answer is shown as the text that it is, links go to `http`, `https` and `mailto` only, and
//! images are links too, so that an answer fetches nothing.
//!
//! Deliberately absent: the page's state, and anything that knows of models.

pub mod blocks;
pub mod tree;

#[cfg(target_arch = "wasm32")]
mod dom;

/// Keeps the module's exports; there is nothing to do until an answer comes.
#[cfg(target_arch = "wasm32")]
pub fn start() {}
