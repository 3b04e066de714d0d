//! What a device does of a task that it shares with a server, apart from computing: the messages, the split, both sides at
//! the same time, getting a model, and whether it fits.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`protocol`] | every wire type: page ↔ worker messages, manifests, the server's own JSON |
//! | [`offload`] | how one task is split, run on both sides at once, and put together again |
//! | [`download`] | getting a model file onto this device: resumable, verified |
//! | [`offers`] | which server offered which models, and what may be removed for it |
//! | [`catalogue`] | models from elsewhere: what they are, what they ask, where their files are |
//! | [`pair`] | whether this device's model and the server's belong together |
//! | [`verdict`] | what a model will take, and whether a tab can give it |
//! | `bytes` | sizes in words |
//! | [`cell`] | the simulated cell as the page sees it: settings in, view out |
//! | [`calibrate`] | a world whose times are those of the machines at hand |
//!
//! Deliberately absent: the DOM, sockets (a transport is passed in), clocks and global random numbers (callers pass time
//! and seed), and the engine itself, which is a crate of its own behind the feature `engine`.

mod bytes;
pub mod calibrate;
pub mod catalogue;
pub mod cell;
pub mod download;
pub mod offers;
pub mod offload;
pub mod pair;
pub mod protocol;
pub mod verdict;
