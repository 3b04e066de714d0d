//! A joined connection: what it says, and its end.

use std::sync::Arc;

use client::protocol::rooms::down::ServerMessage;
use client::protocol::rooms::up::Join;
use client::protocol::rooms::{ClientMessage, CloseReason, MESSAGE_BYTES, ROOM_VERSION};
use serde::Deserialize;

use super::limits::Bucket;
use super::outbox::Outbox;
use super::room::{Joined, Room};
use super::state::Effect;
use crate::surrogates::whole_characters;

/// What every version of a join has.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: String,
    version: Option<u64>,
}

/// Reads the first message of a connection.
///
/// # Errors
/// It is too large, no message, no join, or of another version.
pub fn read_join(text: &str) -> Result<Join, CloseReason> {
    check_size(text)?;
    let text = &whole_characters(text.as_bytes());
    let head: Head = serde_json::from_slice(text).map_err(|_| CloseReason::BadMessage)?;
    if head.kind != "join" {
        return Err(CloseReason::NoJoin);
    }
    // Before the rest is read: another version may have another form.
    if head.version != Some(u64::from(ROOM_VERSION)) {
        return Err(CloseReason::Version);
    }
    match serde_json::from_slice(text) {
        Ok(ClientMessage::Join(join)) => Ok(join),
        _ => Err(CloseReason::BadMessage),
    }
}

fn check_size(text: &str) -> Result<(), CloseReason> {
    if text.len() > MESSAGE_BYTES { Err(CloseReason::TooLarge) } else { Ok(()) }
}

/// Whether the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    On,
    /// Its owner has left.
    Left,
}

/// A joined connection. Dropping it ends it: the member is away then.
#[derive(Debug)]
pub struct Session {
    room: Arc<Room>,
    joined: Joined,
    /// A presenter's own; a phone's is its member's, whatever connection it comes by.
    bucket: Bucket,
    began: std::time::Instant,
}

impl Session {
    /// Joins a room. Writes a newcomer to disk.
    ///
    /// # Errors
    /// Why not.
    pub fn begin(room: Arc<Room>, join: Join) -> Result<Self, CloseReason> {
        let joined = room.join(join)?;
        Ok(Self { room, joined, bucket: Bucket::full(0.0), began: std::time::Instant::now() })
    }

    /// What is to be sent.
    #[must_use]
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.joined.outbox
    }

    /// Counts something that came in: a message, a ping, a pong.
    ///
    /// # Errors
    /// [`CloseReason::Flood`].
    pub fn count(&mut self) -> Result<(), CloseReason> {
        let may = match self.joined.mlu {
            Some(mlu) => self.room.may_send(mlu),
            None => self.bucket.take(self.began.elapsed().as_secs_f64()),
        };
        if may { Ok(()) } else { Err(CloseReason::Flood) }
    }

    /// Takes a message, which was counted.
    ///
    /// # Errors
    /// Why the connection ends.
    pub fn receive(&mut self, text: &str) -> Result<Flow, CloseReason> {
        check_size(text)?;
        let message: ClientMessage =
            serde_json::from_slice(&whole_characters(text.as_bytes())).map_err(|_| CloseReason::BadMessage)?;
        let room = &self.room;
        match (message, self.joined.mlu) {
            (ClientMessage::Join(_), _) => return Err(CloseReason::BadMessage),
            (ClientMessage::Resync, _) => room.resync(&self.joined),
            (ClientMessage::Command(command), None) => room.make(|state| match state.command(command) {
                Ok(effects) => effects,
                Err(why) => {
                    self.joined
                        .outbox
                        .send(serde_json::to_string(&ServerMessage::Refused { why }).unwrap_or_default().into());
                    Vec::new()
                }
            }),
            // The secret is what makes a presenter.
            (ClientMessage::Command(_), Some(_)) => return Err(CloseReason::Forbidden),
            (_, None) => return Err(CloseReason::BadMessage),
            (ClientMessage::Telemetry(telemetry), Some(mlu)) => room.make(|state| state.measured(mlu, telemetry)),
            (ClientMessage::Place(place), Some(mlu)) => room.make(|state| {
                state.placed(mlu, place);
                Vec::new()
            }),
            (ClientMessage::Part { part }, Some(mlu)) => room.make(|state| state.plays(mlu, part)),
            (ClientMessage::Name { name }, Some(mlu)) => room.make(|state| state.named(mlu, &name)),
            (ClientMessage::Answer(answer), Some(mlu)) => room.make(|state| state.answered(mlu, answer)),
            (ClientMessage::Quality(quality), Some(mlu)) => room.make(|state| {
                state.compared(mlu, quality);
                Vec::new()
            }),
            (ClientMessage::Leave, Some(mlu)) => {
                room.make(|state| -> Vec<Effect> { state.leave(mlu) });
                return Ok(Flow::Left);
            }
        }
        Ok(Flow::On)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.room.leave(&self.joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_messages_and_what_is_answered() {
        let long = format!(r#"{{"type":"join","version":2,"role":"phone","name":"{}"}}"#, "x".repeat(MESSAGE_BYTES));
        for (text, reason) in [
            ("", CloseReason::BadMessage),
            ("{", CloseReason::BadMessage),
            ("[1]", CloseReason::BadMessage),
            (r#"{"version":2}"#, CloseReason::BadMessage),
            (r#"{"type":"resync"}"#, CloseReason::NoJoin),
            (r#"{"type":"join"}"#, CloseReason::Version),
            (r#"{"type":"join","version":3,"anything":[]}"#, CloseReason::Version),
            (r#"{"type":"join","version":18446744073709551615}"#, CloseReason::Version),
            (r#"{"type":"join","version":2}"#, CloseReason::BadMessage),
            (r#"{"type":"join","version":2,"role":"king"}"#, CloseReason::BadMessage),
            (long.as_str(), CloseReason::TooLarge),
        ] {
            assert_eq!(read_join(text), Err(reason), "{}", &text[..text.len().min(60)]);
        }
        let join = read_join(r#"{"type":"join","version":2,"role":"phone"}"#).unwrap();
        assert_eq!(join, Join::phone(None, None, None));
        let half = read_join(r#"{"type":"join","version":2,"role":"phone","name":"A\ud83d"}"#).unwrap();
        assert_eq!(half.name.as_deref(), Some("A\u{fffd}"), "half an emoji is no reason to send a phone away");
    }
}
