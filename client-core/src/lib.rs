//! What Tandem's page and server share: the MEC simulator, the offloading policy, the LLM engine, the split of a task
//! between device and server, and the messages that page, worker and server exchange.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `protocol` | every wire type: page ↔ worker messages, manifests, the server's own JSON |
//! | `cell` | the simulated cell as the page sees it: settings in, view out |
//! | `download` | getting a model file onto this device: resumable, verified |
//! | `mec` | the simulator: channel, tasks, quality, cost, oracle |
//! | `policy` | the actor network, its observation and action spaces, the policy file |
//! | `llm` | the engine: GGUF, tokenizer, sampling, CPU and WebGPU backends |
//! | `verdict` | what a model will take, and whether a tab can give it |
//! | `js` | the browser's workers, and what they need of the browser |
//! | `offload` | how one task is split, run on both sides at once, and put together again |
//!
//! Deliberately absent: the DOM, and, outside of `js`, sockets (a transport is passed in), clocks and global random numbers
//! (callers pass time and seed).

pub mod cell;
pub mod download;
#[cfg(all(feature = "js", target_arch = "wasm32"))]
pub mod js;
#[cfg(feature = "llm")]
pub mod llm;
pub mod mec;
pub mod offload;
pub mod policy;
pub mod protocol;
pub mod verdict;
