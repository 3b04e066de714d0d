//! Measurements of the engine and of the server, for `tandem bench-engine` and `tandem bench-serve`.
//!
//! - [`engine`]: how fast a model decodes and prefills here.
//! - [`serve`]: what the server does under load.
//!
//! Deliberately absent: passing and failing. Numbers are printed, and a person judges them.

pub mod engine;
pub mod serve;
