//! The list of runs as it is sent: made once for all who ask, a page at a time.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use sha2::{Digest as _, Sha256};

use super::store::StoreError;
use super::{Runs, RunsError, lock};

/// Runs on a page, where nothing else is asked for, and at most.
pub const USUAL: usize = 50;
/// Most runs on a page.
pub const MOST: usize = 200;
/// Progress of a run that learns shows after at most so long.
const STALE: Duration = Duration::from_millis(250);
/// Most pages that are remembered.
const KEPT: usize = 16;

/// Which page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageRequest {
    /// Runs on it.
    pub limit: usize,
    /// Only runs of smaller numbers: the newest come first.
    pub before: Option<i64>,
}

/// A page as JSON.
#[derive(Clone, Debug)]
pub struct Page {
    /// Plain.
    pub json: Bytes,
    /// Compressed.
    pub gzip: Bytes,
    /// Its version.
    pub tag: String,
}

/// Pages that were made, and whether they still hold.
#[derive(Debug, Default)]
pub(super) struct Pages {
    made: Mutex<HashMap<PageRequest, RenderedPage>>,
    /// Counts what has to show at once: a run that is new, gone, or in another state.
    changes: AtomicU64,
    /// Counts what may show a little later.
    progress: AtomicU64,
    /// Held by who makes one. Askers wait for it without a thread: with one each, hundreds of polls made hundreds of threads,
    /// and each kept megabytes of the allocator's memory.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct RenderedPage {
    page: Arc<Page>,
    changes: u64,
    progress: u64,
    when: Instant,
}

impl Pages {
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn progressed(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    fn known(&self, which: PageRequest) -> Option<Arc<Page>> {
        lock(&self.made).get(&which).filter(|made| self.holds(made)).map(|made| Arc::clone(&made.page))
    }

    fn holds(&self, made: &RenderedPage) -> bool {
        made.changes == self.changes.load(Ordering::SeqCst)
            && (made.progress == self.progress.load(Ordering::Relaxed) || made.when.elapsed() < STALE)
    }
}

impl Runs {
    /// A page of the list, made anew where it does not hold any more.
    ///
    /// # Errors
    /// The list cannot be read.
    pub async fn page(&self, which: PageRequest) -> Result<Arc<Page>, RunsError> {
        let pages = &self.0.pages;
        if let Some(page) = pages.known(which) {
            return Ok(page);
        }
        let turn = Arc::clone(&pages.turn).lock_owned().await;
        if let Some(page) = pages.known(which) {
            return Ok(page);
        }
        let runs = self.clone();
        // The turn goes with the work, which goes on if whoever asked for it leaves.
        let making = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            runs.make_page(which)
        });
        // It can only fail while the runtime goes down.
        making.await.unwrap_or(Err(RunsError::Closing))
    }

    fn make_page(&self, which: PageRequest) -> Result<Arc<Page>, RunsError> {
        let pages = &self.0.pages;
        let (changes, progress) = (pages.changes.load(Ordering::SeqCst), pages.progress.load(Ordering::Relaxed));
        let page = Arc::new(render(&self.list_part(which)?)?);
        let mut made = lock(&pages.made);
        if made.len() >= KEPT {
            made.clear();
        }
        made.insert(which, RenderedPage { page: Arc::clone(&page), changes, progress, when: Instant::now() });
        Ok(page)
    }
}

fn render(list: &client::protocol::runs::RunList) -> Result<Page, RunsError> {
    let failed = |error: &dyn std::fmt::Display| RunsError::Store(StoreError::Damaged(error.to_string()));
    let json = serde_json::to_vec(list).map_err(|error| failed(&error))?;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let gzip = gzip.write_all(&json).and_then(|()| gzip.finish()).map_err(|error| failed(&error))?;
    let tag = Sha256::digest(&json).iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    Ok(Page { json: json.into(), gzip: gzip.into(), tag })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Polls that come while a page is made wait without a thread each, and all get that page.
    #[test]
    fn askers_wait_without_a_thread() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let runs = Runs::none("a test");
        let which = PageRequest { limit: USUAL, before: None };
        runtime.block_on(async {
            let turn = Arc::clone(&runs.0.pages.turn).lock_owned().await;
            let ask = || {
                let runs = runs.clone();
                tokio::spawn(async move { runs.page(which).await })
            };
            let asked: Vec<_> = (0..50).map(|_| ask()).collect();
            tokio::task::yield_now().await;
            let other = tokio::task::spawn_blocking(|| 7);
            let other = tokio::time::timeout(Duration::from_secs(30), other).await;
            assert_eq!(other.expect("the one thread is free").unwrap(), 7);
            assert!(asked.iter().all(|asked| !asked.is_finished()));
            drop(turn);
            let mut pages = Vec::new();
            for asked in asked {
                pages.push(asked.await.unwrap().unwrap());
            }
            assert!(pages.iter().all(|page| Arc::ptr_eq(page, &pages[0])));
            runs.0.pages.changed();
            assert!(!Arc::ptr_eq(&runs.page(which).await.unwrap(), &pages[0]), "it is made anew");
        });
    }
}
