//! Measurements of the engine and of the server, for `tandem bench-engine` and `tandem bench-serve`.
//!
//! - [`engine`]: how fast a model decodes and prefills here.
//! - [`clients`]: what a server, ours or another, gives clients that ask at the same time.
//! - [`serve`]: what ours does under other loads.
//!
//! Deliberately absent: passing and failing. Numbers are printed, and a person judges them.

pub mod clients;
pub mod engine;
pub mod serve;
