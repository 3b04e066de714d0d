//! Rooms, members and slots in SQLite (embedded, write-ahead log).
//!
//! A member is written before it is welcomed; everything else with the slot after it. A
//! killed process loses nothing that was written; a power cut may lose the last slots (`synchronous = NORMAL`), never
//! the file.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::Path;

use client::protocol::rooms::rest::SlotRecord;
use client::protocol::rooms::up::Answer;
use client::protocol::rooms::{Part, RoomSettings};
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::compare::Compare;
use super::member::{Identity, Progress};
use super::rounds::RoundState;
use super::secrets::Hash;
use super::state::Totals;
use crate::database::{Database, OpenError, integer};

/// Most rows of one room, a device and slot each: about an hour of 280 phones. Beyond it the oldest sixteenth goes.
const MOST_ROWS: i64 = 1_000_000;
/// Longest record of a slot, bytes: what a room of 500 has, twenty times over.
const RECORD_BYTES: u64 = 8 << 20;

const DATABASE: Database = Database {
    file: "rooms.sqlite",
    schema: SCHEMA,
    version: 1,
    // A slot a second and room: waiting for the disk each time would make slots late.
    synchronous: "NORMAL",
    flag: "--rooms",
};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS rooms (
        code TEXT PRIMARY KEY,
        secret BLOB NOT NULL,         -- SHA-256 of the presenter's secret
        used_ms INTEGER NOT NULL,     -- when somebody was last connected
        state TEXT NOT NULL           -- JSON, all but the members' identities
    ) STRICT;
    CREATE TABLE IF NOT EXISTS members (
        code TEXT NOT NULL,
        mlu INTEGER NOT NULL,
        token BLOB,                   -- SHA-256 of the device's token; NULL of a simulated one
        name TEXT NOT NULL,
        part TEXT NOT NULL,
        muted INTEGER NOT NULL,
        removed INTEGER NOT NULL,
        cell INTEGER,
        PRIMARY KEY (code, mlu)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS answers (
        code TEXT NOT NULL,
        round INTEGER NOT NULL,
        mlu INTEGER NOT NULL,
        answer TEXT NOT NULL,         -- JSON
        PRIMARY KEY (code, round, mlu)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS slots (
        code TEXT NOT NULL,
        slot INTEGER NOT NULL,
        rows INTEGER NOT NULL,
        record BLOB NOT NULL,         -- a SlotRecord as JSON, deflated
        PRIMARY KEY (code, slot)
    ) STRICT";

/// Why rooms cannot be kept.
#[derive(Debug, Error)]
pub enum StoreError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A row cannot be understood.
    #[error("the list of rooms is damaged: {0}")]
    Damaged(String),
    /// The server has closed it.
    #[error("the server is going down")]
    Closed,
    /// SQLite failed.
    #[error("the list of rooms cannot be used: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// What is kept of a room with every slot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Seed of the slots.
    pub seed: u64,
    /// The settings.
    pub settings: RoomSettings,
    /// The next slot.
    pub slot: u64,
    /// The next newcomer's number.
    pub next_mlu: u32,
    /// How far the members have come, by number.
    pub progress: BTreeMap<u32, Progress>,
    /// The round that runs, or the last one.
    pub round: Option<RoundState>,
    /// The comparison that runs, or the last one.
    pub compare: Option<Compare>,
    /// Counters.
    pub totals: Totals,
}

/// A member's answer to a round.
#[derive(Clone, Debug)]
pub struct KeptAnswer {
    /// Which round.
    pub round: u32,
    /// Whose.
    pub mlu: u32,
    /// What it answered.
    pub answer: Answer,
}

/// A room as it is read back.
#[derive(Clone, Debug)]
pub struct KeptRoom {
    /// Its code.
    pub code: String,
    /// Of the presenter's secret.
    pub secret: Hash,
    /// When somebody was last connected, milliseconds since 1970.
    pub used_ms: u64,
    /// Its state.
    pub kept: Kept,
    /// Its members.
    pub members: Vec<Identity>,
}

/// What is written of a room at once.
#[derive(Debug)]
pub struct Change<'a> {
    /// Which room.
    pub code: &'a str,
    /// When somebody was last connected, milliseconds since 1970.
    pub used_ms: u64,
    /// [`Kept`] as JSON.
    pub state: &'a str,
    /// Members that changed; `None`: forgotten.
    pub members: &'a [(u32, Option<Identity>)],
    /// Answers to the round that are new; those to rounds before it go.
    pub answers: &'a [KeptAnswer],
    /// Whether the slots and answers so far are forgotten.
    pub forget_past: bool,
    /// The new slot, packed: its number, its rows, its record.
    pub slot: Option<(u64, usize, Vec<u8>)>,
}

/// The open file.
#[derive(Debug)]
pub struct Store {
    db: Connection,
}

impl Store {
    /// Opens or makes the file in a folder.
    ///
    /// # Errors
    /// The folder cannot be written, the file is in use, damaged or of another version.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Ok(Self { db: DATABASE.open(dir)? })
    }

    /// All rooms. One that cannot be understood is told of and left out.
    ///
    /// # Errors
    /// The database fails; so for all that follow.
    pub fn rooms(&self) -> Result<Vec<KeptRoom>, StoreError> {
        let mut query = self.db.prepare("SELECT code, secret, used_ms, state FROM rooms ORDER BY used_ms")?;
        let rows = query.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Hash>(1)?, row.get::<_, i64>(2)?, row.get::<_, String>(3)?))
        })?;
        let mut rooms = Vec::new();
        for row in rows {
            let (code, secret, used_ms, state) = row?;
            match serde_json::from_str::<Kept>(&state) {
                Ok(mut kept) if kept.settings.check().is_ok() => {
                    if let Some(round) = &mut kept.round {
                        round.answers.extend(self.answers(&code, round.number)?);
                    }
                    let members = self.members(&code)?;
                    rooms.push(KeptRoom { code, secret, used_ms: used_ms.try_into().unwrap_or(0), kept, members });
                }
                Ok(_) => tracing::warn!(code, "a room's settings make no sense here; it is left out"),
                Err(error) => tracing::warn!(code, %error, "a room is damaged; it is left out"),
            }
        }
        Ok(rooms)
    }

    fn members(&self, code: &str) -> Result<Vec<Identity>, StoreError> {
        let text = "SELECT mlu, token, name, part, muted, removed, cell FROM members WHERE code = ?1 ORDER BY mlu";
        let mut query = self.db.prepare(text)?;
        let rows = query.query_map([code], identity)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Answers to a round. One that cannot be understood is left out.
    fn answers(&self, code: &str, round: u32) -> Result<Vec<(u32, Answer)>, StoreError> {
        let mut query = self.db.prepare("SELECT mlu, answer FROM answers WHERE code = ?1 AND round = ?2")?;
        let rows = query.query_map(params![code, round], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
        let mut answers = Vec::new();
        for row in rows {
            let (mlu, text) = row?;
            answers.extend(serde_json::from_str(&text).map(|answer| (mlu, answer)));
        }
        Ok(answers)
    }

    /// A new room.
    ///
    /// # Errors
    /// The database fails, or there is one of this code.
    pub fn insert(&self, code: &str, secret: &Hash, used_ms: u64, state: &str) -> Result<(), StoreError> {
        let text = "INSERT INTO rooms (code, secret, used_ms, state) VALUES (?1, ?2, ?3, ?4)";
        self.db.execute(text, params![code, secret, integer(used_ms), state])?;
        Ok(())
    }

    /// Whether there is a room of this code, also one that was left out.
    ///
    /// # Errors
    /// The database fails.
    pub fn has(&self, code: &str) -> Result<bool, StoreError> {
        let found = self.db.query_row("SELECT 1 FROM rooms WHERE code = ?1", [code], |_| Ok(())).optional()?;
        Ok(found.is_some())
    }

    /// Writes a member.
    ///
    /// # Errors
    /// The database fails.
    pub fn save_member(&self, code: &str, member: &Identity) -> Result<(), StoreError> {
        let mut change = self.db.prepare(
            "INSERT OR REPLACE INTO members (code, mlu, token, name, part, muted, removed, cell)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        let Identity { mlu, token, name, part, muted, removed, cell } = member;
        change.execute(params![code, mlu, token, name, part_name(*part), muted, removed, cell])?;
        Ok(())
    }

    /// Writes what changed of a room, all of it or nothing.
    ///
    /// # Errors
    /// The database fails.
    pub fn save(&mut self, change: &Change<'_>) -> Result<(), StoreError> {
        // The row of a room that was deleted meanwhile is not made again.
        if !self.has(change.code)? {
            return Ok(());
        }
        self.db.execute_batch("BEGIN IMMEDIATE")?;
        let done = self.write(change);
        self.db.execute_batch(if done.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
        done
    }

    fn write(&self, change: &Change<'_>) -> Result<(), StoreError> {
        let Change { code, used_ms, state, members, answers, forget_past, slot } = change;
        self.db.prepare("UPDATE rooms SET used_ms = ?2, state = ?3 WHERE code = ?1")?.execute(params![
            code,
            integer(*used_ms),
            state
        ])?;
        for (mlu, member) in *members {
            match member {
                Some(member) => self.save_member(code, member)?,
                None => {
                    self.db.execute("DELETE FROM members WHERE code = ?1 AND mlu = ?2", params![code, mlu])?;
                }
            }
        }
        if *forget_past {
            self.db.execute("DELETE FROM slots WHERE code = ?1", [code])?;
            // Its rounds are counted anew.
            self.db.execute("DELETE FROM answers WHERE code = ?1", [code])?;
        }
        if let Some(first) = answers.first() {
            self.db.execute("DELETE FROM answers WHERE code = ?1 AND round <> ?2", params![code, first.round])?;
        }
        for KeptAnswer { round, mlu, answer } in *answers {
            let text = serde_json::to_string(answer).map_err(|error| StoreError::Damaged(error.to_string()))?;
            self.db
                .prepare("INSERT OR REPLACE INTO answers (code, round, mlu, answer) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![code, round, mlu, text])?;
        }
        if let Some((slot, rows, record)) = slot {
            self.db
                .prepare("INSERT OR REPLACE INTO slots (code, slot, rows, record) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![code, integer(*slot), integer(*rows as u64), record])?;
            // Counting them all is work: once in 64 slots is often enough.
            if slot % 64 == 0 {
                self.forget_oldest(code)?;
            }
        }
        Ok(())
    }

    fn forget_oldest(&self, code: &str) -> Result<(), StoreError> {
        let text =
            "SELECT coalesce(sum(rows), 0), coalesce(min(slot), 0), coalesce(max(slot), 0) FROM slots WHERE code = ?1";
        let (rows, first, last) = self
            .db
            .query_row(text, [code], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))?;
        if rows > MOST_ROWS {
            let keep = first + (last - first) / 16 + 1;
            self.db.execute("DELETE FROM slots WHERE code = ?1 AND slot < ?2", params![code, keep])?;
        }
        Ok(())
    }

    /// At most `limit` slots of a room from slot `from` on, as they were packed.
    ///
    /// # Errors
    /// The database fails.
    pub fn slots(&self, code: &str, from: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let text = "SELECT slot, record FROM slots WHERE code = ?1 AND slot >= ?2 ORDER BY slot LIMIT ?3";
        let mut query = self.db.prepare(text)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = query.query_map(params![code, integer(from), limit], |row| {
            Ok((u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0), row.get(1)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Removes a room with all that belongs to it.
    ///
    /// # Errors
    /// The database fails.
    pub fn delete(&mut self, code: &str) -> Result<(), StoreError> {
        let change = self.db.transaction()?;
        for table in ["slots", "answers", "members", "rooms"] {
            change.execute(&format!("DELETE FROM {table} WHERE code = ?1"), [code])?;
        }
        Ok(change.commit()?)
    }
}

fn part_name(part: Part) -> &'static str {
    match part {
        Part::Model => "model",
        Part::ServerOnly => "server-only",
        Part::LoadOnly => "load-only",
    }
}

fn identity(row: &Row<'_>) -> rusqlite::Result<Identity> {
    let part: String = row.get(3)?;
    let known = [Part::Model, Part::ServerOnly, Part::LoadOnly].into_iter().find(|one| part_name(*one) == part);
    Ok(Identity {
        mlu: row.get(0)?,
        token: row.get(1)?,
        name: row.get(2)?,
        part: known.unwrap_or_default(),
        muted: row.get(4)?,
        removed: row.get(5)?,
        cell: row.get(6)?,
    })
}

/// A slot as it is kept.
///
/// # Errors
/// It cannot be written as JSON.
pub fn pack(record: &SlotRecord) -> Result<Vec<u8>, StoreError> {
    let damaged = |error: &dyn std::fmt::Display| StoreError::Damaged(error.to_string());
    let json = serde_json::to_vec(record).map_err(|error| damaged(&error))?;
    let mut out = DeflateEncoder::new(Vec::new(), Compression::fast());
    out.write_all(&json).and_then(|()| out.finish()).map_err(|error| damaged(&error))
}

/// A slot that was kept.
///
/// # Errors
/// It is damaged.
pub fn unpack(packed: &[u8]) -> Result<SlotRecord, StoreError> {
    let damaged = |error: &dyn std::fmt::Display| StoreError::Damaged(format!("a slot: {error}"));
    let mut json = Vec::new();
    DeflateDecoder::new(packed).take(RECORD_BYTES).read_to_end(&mut json).map_err(|error| damaged(&error))?;
    serde_json::from_slice(&json).map_err(|error| damaged(&error))
}
