//! One file, fetched by command. What has arrived of a cut or cancelled download stays beside the place that the file gets,
//! and the next try asks for the rest by `Range`. A file gets its name only when size and checksum agree.
//!
//! A try that brings something is followed by another one; [`MAX_BARREN_TRIES`] in a row that bring nothing end it. A site
//! that says when to come back (429, `Retry-After`) is waited for, up to [`LONGEST_WAIT`] in all.

use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use super::site::{Answer, Rest, Site, header, words};
use super::{HubError, tag_path, with_ending};

/// Tries in a row that may bring nothing new.
const MAX_BARREN_TRIES: u32 = 4;
/// Pause before the second of them; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest time in all that a site is waited for which says when to come back.
pub const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// How often it is looked at whether a person has stopped it.
const LOOK: Duration = Duration::from_millis(50);
/// Bytes that are read and hashed at a time.
const PIECE: usize = 1 << 20;

/// Raised by whoever wants it to end.
pub type Stop = Arc<AtomicBool>;

/// A file that is wanted.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// What it is called in words.
    pub name: &'a str,
    /// Where it is, relative to the site's base or absolute.
    pub address: &'a str,
    /// Its size, where it is known.
    pub bytes: Option<u64>,
    /// Its SHA-256 in lower-case hex, where it is known.
    pub sha256: Option<&'a str>,
}

/// How far it is: bytes here, and bytes in all (0 while nobody has said).
pub type Report<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

/// Half a file. Whoever holds it is the only one who writes it.
struct Part {
    path: PathBuf,
    file: std::fs::File,
    /// The same, as it is written.
    out: tokio::fs::File,
    received: u64,
    hash: Sha256,
    /// The version that it is half of; empty where nobody has said.
    tag: String,
}

/// Where half a file lies.
#[must_use]
pub fn part_path(to: &Path) -> PathBuf {
    with_ending(to, ".download")
}

/// Brings the file to `to`. Returns its size.
///
/// # Errors
/// [`HubError`]; half a file is kept, but for one that turned out to be another file.
pub async fn download(
    site: &Site,
    wanted: &Wanted<'_>,
    to: &Path,
    stop: &Stop,
    report: Report<'_>,
) -> Result<u64, HubError> {
    if let Some(folder) = to.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    let mut part = Part::open(to, wanted.name, stop)?;
    let (mut barren, mut waited) = (0, Duration::ZERO);
    let total = loop {
        let before = part.received;
        let problem = match attempt(site, wanted, &mut part, stop, report).await {
            Ok(total) => break total,
            Err(HubError::Later { retry_after_s }) => {
                let pause = Duration::from_secs(retry_after_s);
                waited += pause.max(LOOK);
                if waited > LONGEST_WAIT {
                    return Err(HubError::Later { retry_after_s });
                }
                tracing::info!(retry_after_s, "the site asks to come back later");
                unless_stopped(stop, tokio::time::sleep(pause)).await?;
                continue;
            }
            Err(problem @ (HubError::Upstream(_) | HubError::Cut { .. })) => problem,
            Err(problem) => return Err(problem),
        };
        barren = if part.received > before { 0 } else { barren + 1 };
        if barren >= MAX_BARREN_TRIES {
            return Err(problem);
        }
        unless_stopped(stop, tokio::time::sleep(FIRST_PAUSE * (1 << barren))).await?;
    };
    part.keep(wanted, to, total)?;
    Ok(total)
}

/// Takes a copy of a file that is on this machine, as if it had come from afar; `wanted.address` does not count. Returns its
/// size.
///
/// # Errors
/// [`HubError`]; nothing is kept of it.
pub async fn take_in(
    file: &Path,
    wanted: &Wanted<'_>,
    to: &Path,
    stop: &Stop,
    report: Report<'_>,
) -> Result<u64, HubError> {
    if let Some(folder) = to.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    let fail = |error: std::io::Error| HubError::Source { path: file.to_owned(), why: error.to_string() };
    let mut file = std::fs::File::open(file).map_err(fail)?;
    let total = file.metadata().map_err(fail)?.len();
    let mut part = Part::open(to, wanted.name, stop)?;
    part.restart()?;
    let mut piece = vec![0; PIECE];
    loop {
        if stop.load(Ordering::Relaxed) {
            part.restart()?;
            return Err(HubError::Stopped);
        }
        let length = file.read(&mut piece).map_err(fail)?;
        let Some(bytes) = piece.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
        part.append(bytes, wanted, total).await?;
        report(part.received, total);
    }
    let received = part.received;
    part.keep(wanted, to, received)?;
    Ok(received)
}

/// One request, and what it brings. Returns the file's size once all of it is here.
async fn attempt(
    site: &Site,
    wanted: &Wanted<'_>,
    part: &mut Part,
    stop: &Stop,
    report: Report<'_>,
) -> Result<u64, HubError> {
    if wanted.bytes == Some(part.received) && part.received > 0 {
        return Ok(part.received);
    }
    let rest = Rest { from: part.received, tag: &part.tag };
    let answer = unless_stopped(stop, site.ask(wanted.address, rest)).await??.granted(wanted.name)?;
    let total = begin(&answer, wanted, part)?;
    report(part.received, total);
    let Answer { mut response, .. } = answer;
    let cut =
        |part: &Part, why: String| HubError::Cut { name: wanted.name.to_owned(), received: part.received, total, why };
    while part.received < total {
        let chunk = unless_stopped(stop, response.chunk()).await?.map_err(|error| cut(part, words(&error)))?;
        let Some(chunk) = chunk else { return Err(cut(part, "the connection ended early".to_owned())) };
        let room = usize::try_from(total - part.received).unwrap_or(usize::MAX);
        let chunk = chunk.get(..room.min(chunk.len())).unwrap_or(&chunk);
        part.append(chunk, wanted, total).await?;
        report(part.received, total);
    }
    Ok(total)
}

/// Makes of an answer's head what the part begins with; returns the file's size.
fn begin(answer: &Answer, wanted: &Wanted<'_>, part: &mut Part) -> Result<u64, HubError> {
    let differs = |what: String| HubError::Differs {
        name: wanted.name.to_owned(),
        what,
        then: "nothing was fetched; another --from may have it, or a catalogue of yours may name this one",
    };
    if let (Some(theirs), Some(ours)) = (answer.sha256(), wanted.sha256)
        && theirs != ours
    {
        return Err(differs(format!("its SHA-256 there is {theirs}, not {ours}")));
    }
    let headers = answer.response.headers();
    let range = header(headers, CONTENT_RANGE.as_str()).unwrap_or_default();
    let total = match answer.response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let (first, total) = range_of(&range).ok_or_else(|| HubError::Upstream(format!("it sent {range:?}")))?;
            let same = part.tag.is_empty() || answer.tag.is_empty() || part.tag == answer.tag;
            if first != part.received || !same {
                // Half of another version: the next try begins anew.
                part.restart()?;
                return Err(HubError::Upstream("it has another version of the file than before".to_owned()));
            }
            total
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let all = range.strip_prefix("bytes */").and_then(|total| total.parse().ok());
            if all == Some(part.received) {
                return Ok(part.received);
            }
            part.restart()?;
            return Err(HubError::Upstream("it has a shorter file than before".to_owned()));
        }
        _ => {
            part.restart()?;
            let length = header(headers, CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
            length.ok_or_else(|| HubError::Upstream("it does not say how large the file is".to_owned()))?
        }
    };
    if let Some(bytes) = wanted.bytes.filter(|bytes| *bytes != total) {
        return Err(differs(format!("it has {total} bytes there, not {bytes}")));
    }
    part.remember(&answer.tag)?;
    Ok(total)
}

/// First byte and size of the whole, from `bytes FIRST-LAST/TOTAL`.
fn range_of(text: &str) -> Option<(u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
}

/// What comes of `work`, unless a person stops it.
async fn unless_stopped<T>(stop: &Stop, work: impl Future<Output = T>) -> Result<T, HubError> {
    let raised = async {
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        biased;
        () = raised => Err(HubError::Stopped),
        done = work => Ok(done),
    }
}

impl Part {
    /// What there is of the file that is to lie at `to`.
    fn open(to: &Path, name: &str, stop: &Stop) -> Result<Self, HubError> {
        let path = part_path(to);
        let mut file = std::fs::File::options().read(true).append(true).create(true).open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(HubError::Taken(name.to_owned())),
            // A disk without locks is a disk that one person uses.
            Err(std::fs::TryLockError::Error(error)) => tracing::debug!(%error, "the file cannot be locked"),
        }
        let mut hash = Sha256::new();
        let received = hash_into(&mut hash, &mut file, stop, &mut |_, _| {})?;
        let tag = std::fs::read_to_string(tag_path(&path)).unwrap_or_default();
        let out = tokio::fs::File::from_std(file.try_clone()?);
        Ok(Self { path, file, out, received, hash, tag: tag.trim().to_owned() })
    }

    fn restart(&mut self) -> Result<(), HubError> {
        if self.received > 0 {
            self.file.set_len(0)?;
        }
        (self.received, self.hash, self.tag) = (0, Sha256::new(), String::new());
        Ok(())
    }

    fn remember(&mut self, tag: &str) -> Result<(), HubError> {
        if self.tag != tag {
            std::fs::write(tag_path(&self.path), tag)?;
            tag.clone_into(&mut self.tag);
        }
        Ok(())
    }

    /// Adds what has come. After an error nothing more may be added: how much of it is in the file is not known.
    async fn append(&mut self, bytes: &[u8], wanted: &Wanted<'_>, total: u64) -> Result<(), HubError> {
        let written = async {
            self.out.write_all(bytes).await?;
            self.out.flush().await
        };
        written.await.map_err(|error: std::io::Error| match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                HubError::DiskFull { name: wanted.name.to_owned(), left: total.saturating_sub(self.received) }
            }
            _ => error.into(),
        })?;
        self.hash.update(bytes);
        self.received += bytes.len() as u64;
        Ok(())
    }

    /// Gives a whole file its name.
    fn keep(self, wanted: &Wanted<'_>, to: &Path, total: u64) -> Result<(), HubError> {
        let digest: String = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if let Some(sha256) = wanted.sha256.filter(|sha256| *sha256 != digest) {
            let _ = std::fs::remove_file(tag_path(&self.path));
            std::fs::remove_file(&self.path)?;
            return Err(HubError::Differs {
                name: wanted.name.to_owned(),
                what: format!("the SHA-256 of what arrived is {digest}, not {sha256}"),
                then: "it was removed; the same command fetches it anew",
            });
        }
        // It gets its name only when a power cut would leave it whole.
        self.file.sync_all()?;
        std::fs::write(tag_path(to), &digest)?;
        std::fs::rename(&self.path, to)?;
        let _ = std::fs::remove_file(tag_path(&self.path));
        tracing::debug!(path = %to.display(), total, "whole");
        Ok(())
    }
}

/// Hashes all of a file from its beginning; returns its length.
///
/// # Errors
/// It cannot be read, or a person stopped it.
pub fn hash_into(
    hash: &mut Sha256,
    file: &mut std::fs::File,
    stop: &Stop,
    report: Report<'_>,
) -> Result<u64, HubError> {
    let total = file.metadata()?.len();
    file.seek(SeekFrom::Start(0))?;
    let mut piece = vec![0; PIECE];
    let mut read = 0;
    while read < total {
        if stop.load(Ordering::Relaxed) {
            return Err(HubError::Stopped);
        }
        let length = file.read(&mut piece)?;
        let Some(bytes) = piece.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
        hash.update(bytes);
        read += length as u64;
        report(read, total);
    }
    Ok(read)
}

#[cfg(test)]
#[path = "download_tests.rs"]
mod tests;
