//! One task on two machines: how it is split between this device and the server, how both parts run at the same time,
//! and how they are put together again.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`split`] | which bits of which prompt go to the server for a ratio α, hardest prompts first |
//! | [`length`] | how long an answer will be, from earlier ones |
//! | [`context`] | what of a conversation still fits into the context |
//! | [`pacing`] | the simulated uplink: when a piece has arrived at rate r |
//! | [`ports`] | what a run needs from outside: an engine, a transport, a clock |
//! | `local` | the LLM engine as the device's port |
//! | [`signal`] | the stop flag, and waking the other side |
//! | [`run`] | the run itself: both sides at once (eq. 29), hand-over when one of them is lost |
//! | [`compare`] | after the run: the server's own answer beside the device's (eq. 26–28) |
//! | [`qos`] | eq. 26–28 on token embeddings and cosines |
//! | [`fault`] | why the server did not answer |
//! | [`sse`], [`openai`] | reading a streamed chat completion |
//!
//! Deliberately absent: sockets, timers and models. They come in through [`ports`], so that everything here is tested
//! natively, on a simulated clock.

pub mod compare;
pub mod context;
pub mod fault;
pub mod length;
#[cfg(feature = "engine")]
pub mod local;
pub mod openai;
pub mod pacing;
pub mod ports;
pub mod qos;
pub mod run;
pub mod signal;
pub mod split;
pub mod sse;

#[cfg(test)]
pub(crate) mod fakes;
