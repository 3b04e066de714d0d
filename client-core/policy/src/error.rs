//! What can be wrong with a policy or its manifest.

use thiserror::Error;

/// Why a policy cannot be used.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// Not a safetensors file, or a damaged one.
    #[error("the policy file cannot be read: {0}")]
    Format(String),
    /// Not our kind of safetensors file, or a header that makes no sense.
    #[error("the policy file's header: {field}: {problem}")]
    Header {
        /// Field of the metadata.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Made for another version of the code.
    #[error(
        "the policy was written as {what} version {found}, this build reads version {wanted}; train or download it again"
    )]
    Version {
        /// What has the version.
        what: &'static str,
        /// Version in the file.
        found: u32,
        /// Version of this build.
        wanted: u32,
    },
    /// A tensor has another shape or type than the header promises.
    #[error("tensor {name} should be {wanted}, but is {found}")]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// Shape and type promised.
        wanted: String,
        /// Shape and type found.
        found: String,
    },
    /// A weight is NaN or infinite.
    #[error("tensor {0} holds a value that is not a finite number")]
    NotFinite(String),
    /// Asked to decide for another number of users.
    #[error("the policy decides for {trained} users, but there are {present}")]
    Users {
        /// Users that it was trained for.
        trained: usize,
        /// Users that are there.
        present: usize,
    },
    /// Asked to decide for a number of users out of its range.
    #[error("the policy decides for {least} to {most} users, but there are {present}")]
    OutOfRange {
        /// Fewest users.
        least: usize,
        /// Most users.
        most: usize,
        /// Users that are there.
        present: usize,
    },
    /// The device failed to compute.
    #[error("the policy's device failed: {0}")]
    Device(String),
}
