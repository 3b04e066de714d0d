//! A room's slots as CSV and JSON, piece by piece: a long room is larger than what should be held at once.

use std::fmt::Write as _;

use client::protocol::rooms::ROOM_VERSION;
use client::protocol::rooms::rest::{CSV_COLUMNS, MluRecord, RoomExport, SlotRecord};
use serde::Serialize;

use super::RoomsError;
use super::room::Room;
use super::store::{StoreError, unpack};

/// Slots of a piece.
const PIECE: usize = 64;

/// In what form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A row a slot and device.
    Csv,
    /// A [`RoomExport`].
    Json,
}

/// The pieces of an export, one after the other.
#[derive(Debug)]
pub struct Export {
    form: Form,
    place: Place,
    first: bool,
}

#[derive(Debug)]
enum Place {
    Head,
    Slots(u64),
    Done,
}

impl Export {
    /// From the beginning.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self { form, place: Place::Head, first: true }
    }

    /// The next piece; `None` at the end. Reads from disk.
    ///
    /// # Errors
    /// The database fails, or a slot is damaged.
    pub fn next(&mut self, room: &Room) -> Result<Option<String>, RoomsError> {
        match self.place {
            Place::Head => {
                self.place = Place::Slots(0);
                Ok(Some(self.head(room)?))
            }
            Place::Slots(from) => {
                let packed = room.kept_slots(from, PIECE)?;
                let mut piece = String::new();
                for (_, packed) in &packed {
                    self.add(&mut piece, &unpack(packed)?)?;
                }
                self.place = match packed.last() {
                    Some((slot, _)) if packed.len() == PIECE => Place::Slots(slot + 1),
                    _ => {
                        piece.push_str(if self.form == Form::Json { "]}" } else { "" });
                        Place::Done
                    }
                };
                Ok(Some(piece))
            }
            Place::Done => Ok(None),
        }
    }

    fn head(&self, room: &Room) -> Result<String, RoomsError> {
        if self.form == Form::Csv {
            return Ok(CSV_COLUMNS.join(",") + "\n");
        }
        let (seed, settings, radius_m) = room.about();
        let code = room.code().to_owned();
        let empty = RoomExport { version: ROOM_VERSION, code, seed, settings, radius_m, slots: Vec::new() };
        let mut text = json(&empty)?;
        // Without `]}`: `slots` is the last field.
        text.truncate(text.len() - 2);
        Ok(text)
    }

    fn add(&mut self, out: &mut String, record: &SlotRecord) -> Result<(), RoomsError> {
        match self.form {
            Form::Csv => rows(out, record),
            Form::Json => {
                if !std::mem::take(&mut self.first) {
                    out.push(',');
                }
                out.push_str(&json(record)?);
            }
        }
        Ok(())
    }
}

fn json(value: &impl Serialize) -> Result<String, RoomsError> {
    serde_json::to_string(value).map_err(|error| StoreError::Damaged(error.to_string()).into())
}

/// The word that JSON has for an enum.
fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn rows(out: &mut String, record: &SlotRecord) {
    let decider = word(&record.decider);
    for cell in &record.cells {
        for mlu in &cell.mlus {
            let MluRecord { part, presence, .. } = mlu;
            let _ = write!(out, "{},{},{decider},{},{},", record.slot, record.at_ms, cell.cell, mlu.mlu);
            let _ = write!(out, "{},{}", word(part), word(presence));
            for number in [
                mlu.x_m,
                mlu.y_m,
                mlu.gain,
                mlu.size_bits,
                mlu.alpha,
                mlu.power_w,
                mlu.rate_bps,
                mlu.local_s,
                mlu.uplink_s,
                mlu.server_s,
                mlu.latency_s,
                mlu.local_j,
                mlu.uplink_j,
                mlu.accuracy,
                mlu.hallucination,
                mlu.tokens_per_s,
            ] {
                let _ = write!(out, ",{number}");
            }
            out.push('\n');
        }
    }
}
