//! The list of runs in SQLite (embedded, write-ahead log).

use std::collections::BTreeMap;
use std::path::Path;

use client::protocol::runs::{RunState, RunView};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use thiserror::Error;

use rl::config::TrainConfig;

use crate::database::{Database, OpenError, integer};

const DATABASE: Database = Database {
    file: "runs.sqlite",
    schema: SCHEMA,
    version: 1,
    // A run that was acknowledged is there after a power cut, too.
    synchronous: "FULL",
    flag: "--runs",
};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS runs (
        id INTEGER PRIMARY KEY AUTOINCREMENT, -- numbers of deleted runs are not used again
        config TEXT NOT NULL,                 -- as in config.toml: TOML gives every number back as it was
        state TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        started_ms INTEGER,
        ended_ms INTEGER,
        steps INTEGER NOT NULL DEFAULT 0,
        total_steps INTEGER NOT NULL,
        best_reward REAL,
        refs TEXT NOT NULL DEFAULT '{}',      -- rewards to compare with, by name
        error TEXT,
        resumes INTEGER NOT NULL DEFAULT 0
    ) STRICT";

const COLUMNS: &str = "id, config, state, created_ms, started_ms, ended_ms, steps, total_steps, best_reward, refs, error, \
                       resumes";

/// Why the list of runs cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A row cannot be understood.
    #[error("the list of runs is damaged: {0}")]
    Damaged(String),
    /// SQLite failed.
    #[error("the list of runs cannot be used: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// The open list.
pub struct Store {
    db: Connection,
}

impl Store {
    /// Opens or makes the list in a folder.
    ///
    /// # Errors
    /// The folder cannot be written, the list is in use, damaged or of another version.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Ok(Self { db: DATABASE.open(dir)? })
    }

    /// How many runs there are.
    ///
    /// # Errors
    /// The database fails; so for all that follow.
    pub fn count(&self) -> Result<usize, StoreError> {
        let count: i64 = self.db.query_row("SELECT count(*) FROM runs", [], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// At most `limit` runs, newest first; only those of smaller numbers than `before`.
    ///
    /// # Errors
    /// The database fails. A row that cannot be understood is one of the runs, and says so.
    pub fn list(&self, limit: usize, before: Option<i64>) -> Result<Vec<Entry>, StoreError> {
        let text = format!("SELECT {COLUMNS} FROM runs WHERE id < ?1 ORDER BY id DESC LIMIT ?2");
        let mut query = self.db.prepare(&text)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = query.query_map(params![before.unwrap_or(i64::MAX), limit], entry)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// One run.
    ///
    /// # Errors
    /// The database fails.
    pub fn get(&self, id: i64) -> Result<Option<Entry>, StoreError> {
        let mut query = self.db.prepare(&format!("SELECT {COLUMNS} FROM runs WHERE id = ?1"))?;
        Ok(query.query_row([id], entry).optional()?)
    }

    /// The runs that wait, oldest first.
    ///
    /// # Errors
    /// The database fails.
    pub fn queued(&self) -> Result<Vec<i64>, StoreError> {
        let mut query = self.db.prepare("SELECT id FROM runs WHERE state = ?1 ORDER BY id")?;
        let ids = query.query_map([RunState::Queued.name()], |row| row.get(0))?;
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// A new run, which waits.
    ///
    /// # Errors
    /// The database fails.
    pub fn insert(&self, config: &TrainConfig, now_ms: u64) -> Result<i64, StoreError> {
        let text = toml::to_string(config).map_err(|error| StoreError::Damaged(error.to_string()))?;
        self.db.execute(
            "INSERT INTO runs (config, state, created_ms, total_steps) VALUES (?1, ?2, ?3, ?4)",
            params![text, RunState::Queued.name(), integer(now_ms), integer(config.steps)],
        )?;
        Ok(self.db.last_insert_rowid())
    }

    /// A run begins to learn.
    ///
    /// # Errors
    /// The database fails.
    pub fn begin(&self, id: i64, now_ms: u64) -> Result<(), StoreError> {
        let change = "UPDATE runs SET state = ?2, started_ms = ?3, ended_ms = NULL, error = NULL WHERE id = ?1";
        self.db.execute(change, params![id, RunState::Running.name(), integer(now_ms)])?;
        Ok(())
    }

    /// How far a run has come.
    ///
    /// # Errors
    /// The database fails.
    pub fn note(
        &self,
        id: i64,
        steps: u64,
        best_reward: Option<f64>,
        references: &BTreeMap<String, f64>,
    ) -> Result<(), StoreError> {
        let refs = serde_json::to_string(references).map_err(|error| StoreError::Damaged(error.to_string()))?;
        let mut change = self.db.prepare(
            "UPDATE runs SET steps = ?2, best_reward = ?3, refs = CASE WHEN ?4 = '{}' THEN refs ELSE ?4 END WHERE id = ?1",
        )?;
        change.execute(params![id, integer(steps), best_reward, refs])?;
        Ok(())
    }

    /// A run is over.
    ///
    /// # Errors
    /// The database fails.
    pub fn end(&self, id: i64, state: RunState, error: Option<&str>, ended_ms: u64) -> Result<(), StoreError> {
        let change = "UPDATE runs SET state = ?2, error = ?3, ended_ms = ?4 WHERE id = ?1";
        self.db.execute(change, params![id, state.name(), error, integer(ended_ms)])?;
        Ok(())
    }

    /// A run waits again.
    ///
    /// # Errors
    /// The database fails.
    pub fn requeue(&self, id: i64) -> Result<(), StoreError> {
        let change = "UPDATE runs SET state = ?2, error = NULL, ended_ms = NULL, resumes = resumes + 1 WHERE id = ?1";
        self.db.execute(change, params![id, RunState::Queued.name()])?;
        Ok(())
    }

    /// What ran when the last server ended was interrupted.
    ///
    /// # Errors
    /// The database fails.
    pub fn interrupt_running(&self, now_ms: u64) -> Result<usize, StoreError> {
        let change = "UPDATE runs SET state = ?1, ended_ms = ?2 WHERE state = ?3";
        let running = RunState::Running.name();
        Ok(self.db.execute(change, params![RunState::Interrupted.name(), integer(now_ms), running])?)
    }

    /// Removes a run.
    ///
    /// # Errors
    /// The database fails.
    pub fn delete(&self, id: i64) -> Result<(), StoreError> {
        self.db.execute("DELETE FROM runs WHERE id = ?1", [id])?;
        Ok(())
    }
}

/// A row of the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The run; where the row cannot be understood, a failed one that says so.
    pub view: RunView,
    /// Whether the row cannot be understood.
    pub damaged: bool,
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let id = row.get(0)?;
    let error = match view(row) {
        Ok(view) => return Ok(Entry { view, damaged: false }),
        Err(error) => error,
    };
    tracing::warn!(run = id, %error, "a row of the list of runs");
    let moment = row.get::<_, i64>(3).ok().and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
    let view = RunView {
        id,
        state: RunState::Failed,
        stopping: false,
        config: serde_json::Value::Null,
        created_ms: moment,
        started_ms: None,
        ended_ms: None,
        steps: 0,
        total_steps: 0,
        best_reward: None,
        references: BTreeMap::new(),
        error: Some("The entry of this run is damaged; delete it. What it learned is in its folder.".to_owned()),
        has_policy: false,
        resumes: 0,
    };
    Ok(Entry { view, damaged: true })
}

fn view(row: &Row<'_>) -> Result<RunView, StoreError> {
    let unsigned =
        |index: usize| -> rusqlite::Result<u64> { Ok(u64::try_from(row.get::<_, i64>(index)?).unwrap_or(0)) };
    let moment = |index: usize| -> rusqlite::Result<Option<u64>> {
        Ok(row.get::<_, Option<i64>>(index)?.and_then(|ms| u64::try_from(ms).ok()))
    };
    let damaged = |what: &str, found: &str| StoreError::Damaged(format!("{what} `{found}`"));
    let (config, state, refs): (String, String, String) = (row.get(1)?, row.get(2)?, row.get(9)?);
    // Whatever fields it has: an earlier version may have written it.
    let read: serde_json::Value = toml::from_str(&config).map_err(|_| damaged("configuration", &config))?;
    Ok(RunView {
        id: row.get(0)?,
        state: RunState::ALL.into_iter().find(|s| s.name() == state).ok_or_else(|| damaged("state", &state))?,
        stopping: false,
        config: as_written(read),
        created_ms: unsigned(3)?,
        started_ms: moment(4)?,
        ended_ms: moment(5)?,
        steps: unsigned(6)?,
        total_steps: unsigned(7)?,
        best_reward: row.get(8)?,
        references: serde_json::from_str(&refs).map_err(|_| damaged("references", &refs))?,
        error: row.get(10)?,
        has_policy: false,
        resumes: u32::try_from(unsigned(11)?).unwrap_or(u32::MAX),
    })
}

/// A number that was kept in single precision, as it was written: 0.1, where its 64 bits are 0.10000000149011612.
#[must_use]
pub fn as_written(mut value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match &mut value {
        Value::Number(number) if number.is_f64() => {
            if let Some(wide) = number.as_f64()
                && f64::from(wide as f32) == wide
                && let Some(short) = (wide as f32).to_string().parse().ok().and_then(serde_json::Number::from_f64)
            {
                *number = short;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| *value = as_written(value.take())),
        Value::Object(fields) => fields.values_mut().for_each(|value| *value = as_written(value.take())),
        _ => {}
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Store {
        /// Lets every write fail, as a full disk does.
        pub(crate) fn refuse_writes(&self, on: bool) {
            self.db.pragma_update(None, "query_only", on).unwrap();
        }

        /// Makes a row that cannot be read.
        pub(crate) fn damage(&self, id: i64) {
            self.db.execute("UPDATE runs SET config = 'seed = ' WHERE id = ?1", [id]).unwrap();
        }
    }

    #[test]
    fn a_run_through_all_its_states_and_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let config = TrainConfig { seed: i64::MAX as u64, ..TrainConfig::new(3) };
        let (first, second) = {
            let store = Store::open(folder.path()).unwrap();
            let (first, second) = (store.insert(&config, 5).unwrap(), store.insert(&config, 6).unwrap());
            assert_eq!(store.queued().unwrap(), [first, second]);
            store.begin(first, 7).unwrap();
            store.note(first, 640, Some(1.5), &[("optimum".to_owned(), 2.0)].into()).unwrap();
            // What is not known yet does not wipe out what was known.
            store.note(first, 641, Some(1.5), &BTreeMap::new()).unwrap();
            (first, second)
        };
        let store = Store::open(folder.path()).unwrap();
        let run = store.get(first).unwrap().unwrap().view;
        assert_eq!((run.state, run.started_ms, run.steps), (RunState::Running, Some(7), 641));
        assert_eq!((run.references["optimum"], run.users(), run.algo()), (2.0, Some(3), "ppo"));
        assert_eq!(serde_json::from_value::<TrainConfig>(run.config).unwrap(), config);
        assert_eq!(store.interrupt_running(9).unwrap(), 1);
        store.end(second, RunState::Failed, Some("why"), 10).unwrap();
        let states: Vec<_> = store
            .list(9, None)
            .unwrap()
            .into_iter()
            .map(|r| (r.view.id, r.view.state, r.view.ended_ms, r.view.error))
            .collect();
        let failed = (second, RunState::Failed, Some(10), Some("why".to_owned()));
        assert_eq!(states, [failed, (first, RunState::Interrupted, Some(9), None)]);
        store.requeue(second).unwrap();
        let ids = |limit, before| -> Vec<i64> {
            store.list(limit, before).unwrap().into_iter().map(|entry| entry.view.id).collect()
        };
        assert_eq!((ids(1, None), ids(9, Some(second))), (vec![second], vec![first]));
        let again = store.get(second).unwrap().unwrap().view;
        assert_eq!((again.state, again.resumes, again.error, again.ended_ms), (RunState::Queued, 1, None, None));
        store.delete(second).unwrap();
        assert_eq!((store.count().unwrap(), store.get(second).unwrap()), (1, None));
        assert!(store.insert(&config, 11).unwrap() > second, "numbers are not used again");
    }

    #[test]
    fn a_damaged_row_is_one_of_the_runs_and_can_be_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let config = TrainConfig::new(2);
        let ids: Vec<i64> = (0..5).map(|n| store.insert(&config, n).unwrap()).collect();
        for (id, change) in [
            (ids[0], "config = 'seed = '"),
            (ids[1], "state = 'asleep'"),
            (ids[2], "refs = '{'"),
            (ids[3], "config = CAST(x'ff' AS TEXT)"),
        ] {
            store.db.execute(&format!("UPDATE runs SET {change} WHERE id = {id}"), []).unwrap();
        }
        let list = store.list(9, None).unwrap();
        assert_eq!(list.iter().map(|entry| entry.damaged).collect::<Vec<_>>(), [false, true, true, true, true]);
        for id in &ids[..4] {
            let entry = store.get(*id).unwrap().unwrap();
            assert_eq!((entry.view.id, entry.view.state), (*id, RunState::Failed));
            assert!(entry.view.error.unwrap().contains("damaged"));
            store.delete(*id).unwrap();
        }
        assert_eq!(store.count().unwrap(), 1);
    }

    #[test]
    fn numbers_are_shown_as_they_were_written() {
        let mut config = TrainConfig::new(2);
        (config.ppo.clip, config.ppo.learning_rate) = (0.1, 3e-5);
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let id = store.insert(&config, 1).unwrap();
        let shown = store.get(id).unwrap().unwrap().view.config;
        assert_eq!(
            (shown["ppo"]["clip"].to_string().as_str(), &shown["ppo"]["learning_rate"]),
            ("0.1", &serde_json::json!(3e-5))
        );
        assert_eq!(serde_json::from_value::<TrainConfig>(shown).unwrap(), config);
        for number in ["0.1", "1e-7", "0.3333333333333333", "16.0", "1e300", "-0.0"] {
            let value: serde_json::Value = number.parse().unwrap();
            assert_eq!(as_written(value.clone()), value, "{number}");
        }
    }
}
