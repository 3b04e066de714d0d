//! Edge compact LLM deployment (the paper's section III): from a checkpoint to compact ones.
//!
//! | module | holds |
//! | --- | --- |
//! | [`score`], [`depth`] | stage I, eq. 1: importance from activations; blocks by the rise of the loss |
//! | [`select`] | eq. 2, 4, 6: what stays, by ratio or threshold |
//! | [`cut`], [`names`] | eq. 3, 5, 7: which rows and columns of which tensor |
//! | [`calibration`], [`wishes`], [`plan`], [`memo`] | what scores are taken on; from wishes to what stays |
//! | [`trial`] | splits of a budget compared |
//! | [`prune`] | a file cut, tensor by tensor |
//! | [`distil`] | stage II, eq. 8 to 11: the loss and its gradient |
//! | [`uniform`] | stage III, eq. 12 and 13: the uniform quantiser and its minimisation |
//! | [`encode`], [`quantise`] | the same search inside ggml's block formats; a file quantised |
//! | [`rounding`] | what a quantiser leaves of weights, for trainings |
//! | [`hallucination`], [`efficiency`] | eq. 24 counted honestly; HRE and ARE |
//! | [`real`], [`spec`], [`forward`] | the forward pass that scores are taken from, block by block |
//! | [`file`] | model files, read and written in pieces |
//! | [`matmul`] | products of matrices |
//! | [`memory`] | a whole model in double precision |
//! | [`case`] | cases of a vectors file |
//! | [`error`] | what can go wrong |

pub mod calibration;
pub mod case;
pub mod cut;
pub mod depth;
pub mod distil;
pub mod efficiency;
pub mod encode;
pub mod error;
pub mod file;
pub mod forward;
pub mod hallucination;
pub mod matmul;
pub mod memo;
pub mod memory;
pub mod names;
pub mod plan;
pub mod prune;
pub mod quantise;
pub mod real;
pub mod rounding;
pub mod score;
pub mod select;
pub mod spec;
pub mod trial;
pub mod uniform;
pub mod wishes;

pub use error::EcldError;
