//! Wire types. Each lives here once, is plain data, and changes only together with [`VERSION`].
//!
//! - [`worker`]: page → worker commands and worker → page events, as JSON texts
//! - [`engine`]: what both of them say about a model by itself
//! - [`tier`]: which engine runs in the tab
//! - [`sampling`]: how long and how freely to write, each number with its range
//! - [`world`]: what both of them say about the simulated cell
//! - [`manifest`]: the manifest under `/models`
//! - [`health`]: the state of the server, under `/health`
//! - [`runs`]: training runs, under `/api/runs`
//! - [`rooms`]: live rooms, under `/api/rooms` and `/ws/rooms`
//! - [`hyper`]: their hyper-parameters as they are declared
//! - [`similarity`]: the server's own endpoint for eq. 26–27
//!
//! The OpenAI-compatible API keeps that API's own names and is typed where the server implements it.

pub mod engine;
pub mod health;
pub mod hyper;
pub mod manifest;
pub mod rooms;
pub mod runs;
pub mod sampling;
pub mod similarity;
pub mod tier;
pub mod worker;
pub mod world;

/// Version of the page ↔ worker messages; a page refuses a worker of another version (a stale cache) and reloads it.
pub const VERSION: u32 = 8;

#[cfg(test)]
mod tests {
    /// JavaScript cannot import it, and two versions refuse each other.
    #[test]
    fn the_npm_package_is_of_the_same_version() {
        let package = include_str!("../../../npm/index.js");
        let line = format!("const VERSION = {};", super::VERSION);
        assert!(package.lines().any(|found| found == line), "client-core/npm/index.js has no line {line:?}");
    }
}
