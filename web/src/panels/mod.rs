//! The panels, one file each. A panel reads signals and sends commands; it keeps no state that matters beyond a click.
//!
//! Left: [`prompt`], [`model`], [`answers`]. Right: [`cell`], [`decision`], [`latency`], [`quality`]. Below: [`controls`]
//! and [`log`]. In place of questions and answers: [`chat`] with its [`chat_turn`]s. In
//! place of all: [`compact`], [`train`]. Around them: [`header`] (with [`share`]), [`notices`], [`tour`].

pub mod answers;
pub mod cell;
pub mod chat;
pub mod chat_turn;
pub mod compact;
pub mod controls;
pub mod decision;
pub mod header;
pub mod latency;
pub mod log;
pub mod model;
pub mod notices;
pub mod prompt;
pub mod quality;
pub mod share;
pub mod tour;
pub mod train;
