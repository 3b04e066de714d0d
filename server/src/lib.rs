//! Tandem's server library: everything behind the `tandem` binary but training and making models, which are crates of
//! their own (`rl`, `lm`).
//!
//! - [`bench`]: what engine and server do, measured.
//! - [`catalogue`]: models from elsewhere: the list of them, and their files on this machine.
//! - [`cli`]: one file a command.
//! - [`database`]: SQLite files, each used by one server at a time.
//! - [`figures`]: the paper's control figures, from our own runs and policies.
//! - [`host`]: who writes the answers: the model here, or an engine upstream.
//! - [`http`]: the server: files, and an API in OpenAI's format.
//! - [`hub`]: a model hub's files, passed on and kept.
//! - [`rooms`]: live rooms: phones as mobile LLM users of shared cells.
//! - [`runs`]: training as a service: queue, list of runs, live metrics.
//! - [`tls`]: certificates for the local network.
//!
//! Deliberately absent: physics and the equations of the paper. They live in `mec`, shared with the page.

pub mod bench;
pub mod catalogue;
pub mod cli;
pub mod database;
mod disk;
pub mod figures;
pub mod host;
pub mod http;
pub mod hub;
pub mod rooms;
pub mod runs;
mod surrogates;
pub mod tls;
#[cfg(test)]
mod untrained;
