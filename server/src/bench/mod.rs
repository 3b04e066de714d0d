//! Measurements of the engine and of the server, for `tandem bench-engine`, `tandem bench-nearness`, `tandem bench-tokens`,
//! `tandem bench-serve` and `tandem bench-room`.
//!
//! - [`engine`]: how fast a model decodes and prefills here.
//! - [`nearness`]: how near backends are to what a model file stands for.
//! - [`tokens`]: whether texts are cut as llama.cpp cuts them.
//! - [`clients`]: what a server, ours or another, gives clients that ask at the same time.
//! - [`serve`]: what ours does under other loads.
//! - [`room`], [`room_phone`], [`room_report`]: a hall of phones in a live room; one of them; what they saw.
//!
//! Deliberately absent: passing and failing. Numbers are printed, and a person judges them.

pub mod clients;
pub mod engine;
pub mod nearness;
pub mod room;
pub mod room_phone;
pub mod room_report;
pub mod serve;
pub mod tokens;
