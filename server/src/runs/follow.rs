//! A run's metrics as they stand in its file, and then every line as it is written.
//!
//! The file is the source, never a queue of messages: whoever reads slowly reads later, and nothing is lost or piled up.

use std::io::{ErrorKind, SeekFrom};
use std::path::Path;

use client::protocol::runs::RunView;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::{mpsc, watch};

use super::{Pulse, Runs, RunsError};

/// Lines that wait for a slow reader; then the file waits.
const AHEAD: usize = 64;

/// Where somebody stands in a stream of metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// How often the run had been resumed.
    pub resumes: u32,
    /// Lines read.
    pub line: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.resumes, self.line)
    }
}

impl std::str::FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (resumes, line) = text.split_once('.').ok_or(())?;
        Ok(Self { resumes: resumes.parse().map_err(drop)?, line: line.parse().map_err(drop)? })
    }
}

/// What a follower gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Followed {
    /// Forget what came before: the run was resumed meanwhile, and lines after its checkpoint are gone.
    Reset,
    /// A line of metrics, and where it stands.
    Line(Place, String),
    /// The run is over (for now).
    End(Box<RunView>),
}

impl Runs {
    /// Follows a run from a place, or from the beginning. Must be called within the async runtime.
    ///
    /// # Errors
    /// There is no such run.
    pub fn follow(&self, id: i64, from: Option<Place>) -> Result<mpsc::Receiver<Followed>, RunsError> {
        let (path, pulse) = self.metrics(id)?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        let runs = self.clone();
        tokio::spawn(async move {
            if let Err(error) = forward(&runs, id, from, &path, pulse, &sender).await {
                tracing::warn!(run = id, %error, "the metrics cannot be read");
            }
        });
        Ok(receiver)
    }

    async fn view(&self, id: i64) -> Option<RunView> {
        let runs = self.clone();
        tokio::task::spawn_blocking(move || runs.get(id)).await.ok()?.ok()
    }
}

async fn forward(
    runs: &Runs,
    id: i64,
    from: Option<Place>,
    path: &Path,
    mut pulse: Option<watch::Receiver<Pulse>>,
    sender: &mpsc::Sender<Followed>,
) -> std::io::Result<()> {
    // Before it begins, its file may still hold lines that resuming takes back.
    if let Some(pulse) = &mut pulse {
        tokio::select! {
            // A sender that is gone means that it is over.
            _ = pulse.wait_for(|pulse| pulse.begun || pulse.over) => {}
            () = sender.closed() => return Ok(()),
        }
    }
    let Some(view) = runs.view(id).await else { return Ok(()) };
    let mut place = Place { resumes: view.resumes, line: 0 };
    let skip = match from {
        Some(from) if from.resumes == view.resumes => from.line,
        Some(_) => {
            if sender.send(Followed::Reset).await.is_err() {
                return Ok(());
            }
            0
        }
        None => 0,
    };
    let (mut read, mut pending) = (0, Vec::new());
    loop {
        // Looked at before reading: whatever is written after the reading is a change after this look.
        let over = pulse.as_mut().is_none_or(|pulse| pulse.borrow_and_update().over);
        read += read_from(path, read, &mut pending).await?;
        let complete = pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = pending.drain(..complete).collect();
        for line in String::from_utf8_lossy(&lines).lines() {
            place.line += 1;
            if place.line > skip && sender.send(Followed::Line(place, line.to_owned())).await.is_err() {
                return Ok(());
            }
        }
        if over {
            if let Some(view) = runs.view(id).await {
                // Nobody may be listening any more.
                let _ = sender.send(Followed::End(Box::new(view))).await;
            }
            return Ok(());
        }
        if let Some(watched) = &mut pulse {
            tokio::select! {
                changed = watched.changed() => if changed.is_err() { pulse = None },
                () = sender.closed() => return Ok(()),
            }
        }
    }
}

/// Appends what the file holds from an offset on; a file that is not there yet is empty.
async fn read_from(path: &Path, offset: u64, into: &mut Vec<u8>) -> std::io::Result<u64> {
    let mut file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(offset)).await?;
    Ok(file.read_to_end(into).await? as u64)
}
