//! Why something about rooms could not be done.

use super::store::StoreError;

/// Why something about rooms could not be done.
#[derive(Debug, thiserror::Error)]
pub enum RoomsError {
    /// This server has no rooms.
    #[error("This server has no live rooms: {0}")]
    Off(String),
    /// There is no such room.
    #[error("There is no room {0:?}; check its code, or make one with POST /api/rooms.")]
    Unknown(String),
    /// The secret is missing or wrong.
    #[error("Only the room's presenter may do this; send its secret as 'Authorization: Bearer SECRET'.")]
    Forbidden,
    /// All rooms are in use.
    #[error("There are {0} rooms already, all in use; close one, or come back later.")]
    TooMany(usize),
    /// The settings make no sense.
    #[error("'{param}': {message}")]
    Field {
        /// Which field.
        param: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandom,
    /// The shipped policy cannot be used.
    #[error("the policy for any number of devices cannot be used: {0}")]
    Policy(#[from] policy::PolicyError),
    /// The database fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}
