//! A run's metrics as they stand in its file, and then every line as it is written, as server-sent events.
//!
//! The file is the source ([`super::tail`]), never a queue of messages: whoever reads slowly reads later, and nothing is
//! lost or piled up.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use client::protocol::runs::{END_EVENT, RESET_EVENT, RunView};
use futures::Stream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::tail::{LinePosition, Tail};
use super::{RunProgress, Runs, RunsError};

/// Comments go out so often when there is nothing to tell.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// New lines are sent together, at most so often: a tiny run writes thousands a second.
const EVERY: Duration = Duration::from_millis(100);

/// Where somebody stands in a stream of metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// How often the run had been resumed.
    pub resumes: u32,
    /// Lines read.
    pub line: u64,
}

impl std::str::FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (resumes, line) = text.split_once('.').ok_or(())?;
        Ok(Self { resumes: resumes.parse().map_err(drop)?, line: line.parse().map_err(drop)? })
    }
}

/// What a follower does next.
enum Stage {
    /// Waits until the run's folder is in order: its file may still hold lines that resuming takes back.
    Begin,
    /// Reads on from a place.
    Read {
        tail: Arc<Tail>,
        at: LinePosition,
        not_before: Instant,
    },
    Done,
}

struct Follower {
    runs: Runs,
    id: i64,
    from: Option<Place>,
    progress: Option<watch::Receiver<RunProgress>>,
    /// Lines that the follower has.
    has: u64,
    stage: Stage,
}

impl Runs {
    /// Follows a run from a place, or from the beginning.
    ///
    /// # Errors
    /// There is no such run.
    pub fn follow(
        &self,
        id: i64,
        from: Option<Place>,
    ) -> Result<impl Stream<Item = Result<Bytes, Infallible>> + use<>, RunsError> {
        let progress = self.progress(id)?;
        let follower = Follower { runs: self.clone(), id, from, progress, has: 0, stage: Stage::Begin };
        Ok(futures::stream::unfold(follower, |mut follower| async move {
            let bytes = follower.next().await?;
            Some((Ok(bytes), follower))
        }))
    }

    async fn view(&self, id: i64) -> Option<RunView> {
        let runs = self.clone();
        tokio::task::spawn_blocking(move || runs.get(id)).await.ok()?.ok()
    }
}

impl Follower {
    /// The next bytes of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let sent = match &self.stage {
                Stage::Begin => self.begin().await,
                Stage::Read { .. } => self.read().await,
                Stage::Done => return None,
            };
            if let Some(bytes) = sent.filter(|bytes| !bytes.is_empty()) {
                return Some(bytes);
            }
        }
    }

    async fn begin(&mut self) -> Option<Bytes> {
        if let Some(progress) = &mut self.progress {
            let begun = progress.wait_for(|progress| progress.begun || progress.over);
            // A sender that is gone means that it is over.
            if timeout(KEEP_ALIVE, begun).await.is_err() {
                return Some(comment());
            }
        }
        self.stage = Stage::Done;
        let view = self.runs.view(self.id).await?;
        let tail = self.runs.tail(self.id, view.resumes);
        let mut reset = None;
        match self.from {
            Some(from) if from.resumes == view.resumes => self.has = from.line,
            Some(_) => reset = Some(Bytes::from(format!("event: {RESET_EVENT}\ndata: {{}}\n\n"))),
            None => {}
        }
        let at = tail.near(self.has).await;
        self.stage = Stage::Read { tail, at, not_before: Instant::now() };
        reset
    }

    async fn read(&mut self) -> Option<Bytes> {
        let Stage::Read { tail, at, not_before } = &mut self.stage else { return None };
        sleep_until(*not_before).await;
        // Looked at before reading: whatever is written after the reading is a change after this look.
        let over = self.progress.as_mut().is_none_or(|progress| progress.borrow_and_update().over);
        match tail.piece(*at).await {
            Ok(Some(piece)) => {
                *at = piece.end;
                return Some(piece.after(self.has));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(run = self.id, %error, "the metrics cannot be read");
                self.stage = Stage::Done;
                return None;
            }
        }
        if over {
            self.stage = Stage::Done;
            let view = self.runs.view(self.id).await?;
            // Numbers and names always make JSON.
            let json = serde_json::to_string(&view).unwrap_or_default();
            return Some(Bytes::from(format!("event: {END_EVENT}\ndata: {json}\n\n")));
        }
        *not_before = Instant::now() + EVERY;
        match &mut self.progress {
            Some(progress) => match timeout(KEEP_ALIVE, progress.changed()).await {
                Ok(Ok(())) => None,
                Ok(Err(_)) => {
                    self.progress = None;
                    None
                }
                Err(_) => Some(comment()),
            },
            None => None,
        }
    }
}

fn comment() -> Bytes {
    Bytes::from_static(b":\n\n")
}
