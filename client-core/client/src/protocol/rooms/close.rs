//! Why the server ended a connection.

/// Why the server ended a connection: the close code, with a sentence beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The server is going down; it comes back, and so should the client.
    GoingDown,
    /// A message of more than [`MESSAGE_BYTES`](super::MESSAGE_BYTES).
    TooLarge,
    /// Something that is no message of this protocol.
    BadMessage,
    /// The client's version is not the server's.
    Version,
    /// No join came in time, or something else came first.
    NoJoin,
    /// Not the room's secret, or a command of somebody who has not given it.
    Forbidden,
    /// There is no room of this code.
    NoRoom,
    /// The presenter lets nobody new in.
    Locked,
    /// All seats are taken.
    Full,
    /// The device token is none of this room's.
    UnknownToken,
    /// The client takes what it is sent too slowly.
    TooSlow,
    /// The same device joined over another connection, or a presenter where there were as many as may be: the oldest goes.
    Replaced,
    /// The presenter removed this device.
    Removed,
    /// Too many messages.
    Flood,
    /// The room was closed.
    RoomClosed,
    /// Something failed on the server.
    ServerError,
}

impl CloseReason {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::GoingDown,
        Self::TooLarge,
        Self::BadMessage,
        Self::Version,
        Self::NoJoin,
        Self::Forbidden,
        Self::NoRoom,
        Self::Locked,
        Self::Full,
        Self::UnknownToken,
        Self::TooSlow,
        Self::Replaced,
        Self::Removed,
        Self::Flood,
        Self::RoomClosed,
        Self::ServerError,
    ];

    /// The WebSocket's close code.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::GoingDown => 1001,
            Self::TooLarge => 1009,
            Self::ServerError => 1011,
            Self::BadMessage => 4000,
            Self::Version => 4001,
            Self::NoJoin => 4002,
            Self::Forbidden => 4003,
            Self::NoRoom => 4004,
            Self::Locked => 4005,
            Self::Full => 4006,
            Self::UnknownToken => 4007,
            Self::TooSlow => 4008,
            Self::Replaced => 4009,
            Self::Removed => 4010,
            Self::Flood => 4011,
            Self::RoomClosed => 4012,
        }
    }

    /// The reason of a close code; `None` for a code that the server does not send, such as the 1006 of a lost network.
    #[must_use]
    pub fn of_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// What happened and what to do about it; at most 123 bytes, which is what a close frame holds.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::GoingDown => "The server is restarting; this page joins again by itself.",
            Self::TooLarge => "A message was too large.",
            Self::BadMessage => "A message could not be understood; reload the page.",
            Self::Version => "This page and the server are of different versions; reload the page.",
            Self::NoJoin => "No join came in time.",
            Self::Forbidden => "Only the presenter may do this; open the room with the presenter's link.",
            Self::NoRoom => "There is no room of this code; check it, or ask the presenter.",
            Self::Locked => "The presenter has locked the room; ask to be let in.",
            Self::Full => "The room is full; try again when somebody has left.",
            Self::UnknownToken => "This device is not known in the room; join it anew.",
            Self::TooSlow => "The connection is too slow to follow; this page joins again by itself.",
            Self::Replaced => "This device joined again elsewhere; go on there.",
            Self::Removed => "The presenter removed this device.",
            Self::Flood => "Too many messages; wait a moment and join again.",
            Self::RoomClosed => "The presenter closed the room.",
            Self::ServerError => "Something failed on the server; this page joins again by itself.",
        }
    }

    /// Whether a client should join again by itself, with its token, after a pause that grows. (So it should after any code
    /// that is none of these.)
    #[must_use]
    pub fn comes_back(self) -> bool {
        matches!(self, Self::GoingDown | Self::TooSlow | Self::ServerError)
    }

    /// Whether the client's device token is worth nothing any more.
    #[must_use]
    pub fn forgets_token(self) -> bool {
        matches!(self, Self::UnknownToken | Self::Removed | Self::RoomClosed | Self::NoRoom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_texts_fit_into_a_frame() {
        for (i, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(CloseReason::of_code(reason.code()), Some(reason));
            assert!(CloseReason::ALL[i + 1..].iter().all(|other| other.code() != reason.code()), "{reason:?}");
            assert!(reason.text().len() <= 123, "{reason:?}");
        }
        assert_eq!(CloseReason::of_code(1006), None);
    }
}
