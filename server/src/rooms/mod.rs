//! Live rooms: phones join as mobile LLM users (MLUs) of shared cells, and the server decides slot by slot for all of them.
//! The messages and their meaning are in [`client::protocol::rooms`].
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`registry`] | [`Rooms`]: all rooms of a server; making, finding and closing them |
//! | [`room`] | one room: its sockets and its state behind one lock |
//! | [`clock`] | a room's slots, on time |
//! | [`session`] | a joined connection: what it says, and its end |
//! | [`state`] | members and settings, and the moves that change them; knows no sockets and no time of its own |
//! | [`member`] | a member: identity, seat, presence, counters |
//! | [`steer`] | a presenter's commands |
//! | [`cells`] | who sits in which cell |
//! | [`radio`] | a member's channel, task and difficulty, drawn from the seed |
//! | [`slot`], [`finish`] | a slot: its inputs frozen and decided; carried out |
//! | [`numbers`] | what is told of a slot: decisions, pictures, records |
//! | [`view`], [`snapshot`] | what is told of members, and all that there is to know |
//! | [`deciders`] | the policy, the optimum and the others, for one cell |
//! | [`compare`] | ways to decide in turn, and their differences as intervals |
//! | [`rounds`] | every phone asks at once |
//! | [`outbox`] | what waits to be sent to one connection, bounded |
//! | [`limits`] | messages a second |
//! | [`secrets`] | codes, tokens and what is kept of them |
//! | [`store`] | rooms, members and slots in SQLite |
//! | [`export`] | slots as CSV and JSON |
//! | [`error`](mod@error) | why something about rooms could not be done |
//!
//! A slot is a function of the room's seed, the settings and the members' moves: a member's channel, task sizes and
//! difficulty are drawn from (seed, number of the member, slot), and a move that comes while a slot is being decided counts
//! for the next one. What was sent before a crash but not yet written is decided again, alike, after it.
//!
//! Deliberately absent: HTTP and WebSockets ([`crate::http`]), and questions on their way to the model ([`crate::host`]).

pub mod cells;
pub mod clock;
pub mod compare;
pub mod deciders;
pub mod error;
pub mod export;
pub mod finish;
pub mod limits;
pub mod member;
pub mod numbers;
pub mod outbox;
pub mod radio;
pub mod registry;
pub mod room;
pub mod rounds;
pub mod secrets;
pub mod session;
pub mod slot;
pub mod snapshot;
pub mod state;
pub mod steer;
pub mod store;
pub mod view;

#[cfg(test)]
mod tests;

pub use error::RoomsError;
pub use numbers::ServerNow;
pub use registry::{Rooms, RoomsConfig};
