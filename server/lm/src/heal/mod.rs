//! Stage II on files (eq. 8 to 11): a pruned model learns from the model that it was cut from, and becomes a file again.
//!
//! | file | holds |
//! | --- | --- |
//! | `student.rs` | a GGUF file's weights as training has them, and back |
//! | `adapter.rs` | adapters of low rank as a file of their own, and merged into another |
//! | `words.rs` | the corpus in a file's own tokens, through its own chat template |
//! | `record.rs` | what the teacher says of an epoch: computed once, kept on disk, shared by all students |
//! | `run.rs` | a run in its folder: begun, resumed, ended with a file |
//!
//! Deliberately absent: the loop itself ([`train`](crate::train)) and what a person sees of it.

mod adapter;
mod record;
mod run;
mod student;
mod words;

pub use adapter::{merge, save as save_adapter};
pub use record::{Record, Recorder};
pub use run::{Course, HealError, Lecture, Options};
pub use student::{load, save};
pub use words::FileWords;
