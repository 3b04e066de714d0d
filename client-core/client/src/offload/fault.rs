//! Why the server did not answer.

/// Why the server did not answer, or not to the end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection.
    #[error("the server cannot be reached ({0})")]
    Unreachable(String),
    /// An HTTP status that is not a success, or an error inside the stream.
    #[error("the server refused ({status}): {message}")]
    Refused {
        /// HTTP status; 0 for an error inside a stream.
        status: u16,
        /// The server's own words.
        message: String,
    },
    /// The connection ended before the answer did.
    #[error("the connection broke off ({0})")]
    Broken(String),
    /// Nothing came for too long.
    #[error("the server sent nothing for {0} seconds")]
    Silent(u32),
    /// What came was not what was asked for.
    #[error("the server's reply could not be read ({0})")]
    Malformed(String),
}

impl TransportError {
    /// Whether the fault lies with this one request, so that another prompt may well be answered.
    #[must_use]
    pub fn concerns_request_only(&self) -> bool {
        matches!(self, Self::Refused { status: 400 | 404 | 413 | 414 | 415 | 422, .. })
    }
}
