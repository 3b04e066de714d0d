//! Model files as the stages read and write them: tensor by tensor, in pieces, never as a whole.
//!
//! | file | holds |
//! | --- | --- |
//! | `disk.rs` | open files, read by range |
//! | `archive.rs` | the tensors of a GGUF file or of a folder with a Hugging Face checkpoint |
//! | `gguf.rs` | GGUF's metadata byte for byte, and headers |
//! | `output.rs` | files and folders that appear under their name only when they are whole |
//! | `writer.rs` | tensors in order into either kind of file |
//! | `teacher.rs` | a file's model, block by block |
//!
//! Deliberately absent: hubs (the server's), and tokenizers, which are copied as they are.

mod archive;
mod disk;
pub mod gguf;
mod output;
mod teacher;
mod writer;

pub use archive::{Archive, Format, Stored};
pub use disk::Disk;
pub use output::{PartFile, PartFolder, write_atomically};
pub use teacher::Teacher;
pub use writer::{Described, TensorWriter, safetensors_header};
