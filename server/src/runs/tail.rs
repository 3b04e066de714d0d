//! The file of a run's metrics for all who follow the run: read once, in pieces of a bounded size.
//!
//! A piece is a stretch of whole lines, made into server-sent events once and sent to everybody as the same bytes. Those
//! who are at the end read the same piece; who lags behind reads pieces of his own, one at a time. So a thousand followers
//! cost about what one does, and one that never reads costs a piece.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Bytes;
use tokio::sync::Mutex;

/// Bytes of the file that are read at a time.
const PIECE: u64 = 32 << 10;
/// Longest line; one is some hundred bytes.
const LONGEST_LINE: u64 = 1 << 20;
/// Pieces that are remembered.
const KEPT: usize = 8;
/// Bytes between two places that can be found without reading what is before.
const APART: u64 = 1 << 20;

/// A place between two lines of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinePosition {
    /// Bytes before it.
    pub offset: u64,
    /// Lines before it.
    pub line: u64,
}

/// A stretch of lines as events.
#[derive(Debug)]
pub struct LineRange {
    begin: LinePosition,
    /// Where it ends.
    pub end: LinePosition,
    text: Bytes,
}

impl LineRange {
    /// The events after so many lines of the file.
    #[must_use]
    pub fn after(&self, lines: u64) -> Bytes {
        let skip = lines.saturating_sub(self.begin.line);
        if skip == 0 {
            return self.text.clone();
        }
        if lines >= self.end.line {
            return Bytes::new();
        }
        // Each event ends with an empty line and holds no other.
        let ends = self.text.windows(2).enumerate().filter(|(_, pair)| *pair == b"\n\n");
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        match ends.map(|(at, _)| at + 2).nth(skip - 1) {
            Some(at) => self.text.slice(at..),
            None => Bytes::new(),
        }
    }
}

/// The file, from the beginning of a session of learning on: lines are only added to it.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    /// How often the run had been resumed.
    pub resumes: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Arc<LineRange>>,
    /// Some places, in order.
    marks: Vec<LinePosition>,
}

impl Tail {
    /// Nothing of it is read yet.
    #[must_use]
    pub fn new(path: PathBuf, resumes: u32) -> Self {
        Self { path, resumes, state: Mutex::default() }
    }

    /// A known place with at most so many lines before it.
    pub async fn near(&self, line: u64) -> LinePosition {
        let state = self.state.lock().await;
        state.marks.iter().rev().find(|mark| mark.line <= line).copied().unwrap_or_default()
    }

    /// What follows after a place; `None` where nothing does yet.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn piece(&self, begin: LinePosition) -> std::io::Result<Option<Arc<LineRange>>> {
        // Held while the file is read: those who want the same piece wait for it.
        let mut state = self.state.lock().await;
        if let Some(piece) = state.pieces.iter().find(|piece| piece.begin == begin) {
            return Ok(Some(Arc::clone(piece)));
        }
        let (path, resumes) = (self.path.clone(), self.resumes);
        let read = move || lines(&path, begin.offset).map(|lines| render(&lines, begin, resumes));
        let piece = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)??;
        let Some(piece) = piece.map(Arc::new) else { return Ok(None) };
        if state.pieces.len() >= KEPT {
            state.pieces.pop_front();
        }
        state.pieces.push_back(Arc::clone(&piece));
        if piece.end.offset >= state.marks.last().map_or(0, |mark| mark.offset) + APART {
            state.marks.push(piece.end);
        }
        Ok(Some(piece))
    }
}

/// Whole lines from an offset on, about [`PIECE`] bytes of them. A file that is not there yet is empty.
fn lines(path: &std::path::Path, offset: u64) -> std::io::Result<Vec<u8>> {
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    for limit in [PIECE, LONGEST_LINE] {
        let left = limit.saturating_sub(bytes.len() as u64);
        let is_end = (&mut file).take(left).read_to_end(&mut bytes)? < usize::try_from(left).unwrap_or(usize::MAX);
        if let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') {
            bytes.truncate(end + 1);
            return Ok(bytes);
        }
        if is_end {
            // The last line is being written.
            return Ok(Vec::new());
        }
    }
    Err(std::io::Error::new(ErrorKind::InvalidData, "a line of the metrics is longer than any line of ours"))
}

fn render(lines: &[u8], begin: LinePosition, resumes: u32) -> Option<LineRange> {
    let mut end = begin;
    let mut text = String::with_capacity(lines.len() + lines.len() / 8);
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        end.line += 1;
        end.offset += line.len() as u64;
        let line = String::from_utf8_lossy(line);
        text.push_str(&format!("id: {resumes}.{}\ndata: {}\n\n", end.line, line.trim_end_matches(['\n', '\r'])));
    }
    (end != begin).then(|| LineRange { begin, end, text: Bytes::from(text) })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    async fn all(tail: &Tail, mut at: LinePosition, after: u64) -> String {
        let mut text = String::new();
        while let Some(piece) = tail.piece(at).await.unwrap() {
            text += std::str::from_utf8(&piece.after(after)).unwrap();
            at = piece.end;
        }
        text
    }

    #[tokio::test]
    async fn everybody_reads_the_same_lines_in_bounded_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let tail = Tail::new(path.clone(), 2);
        assert!(tail.piece(LinePosition::default()).await.unwrap().is_none(), "not there yet");
        let line = |n: usize| format!("{{\"global_step\":{n},\"text\":\"{}\"}}", "x".repeat(n % 400));
        let count = 20_000;
        let file: String = (1..=count).map(|n| line(n) + "\n").collect();
        std::fs::write(&path, file + "{\"half\":").unwrap();
        let events =
            |from: usize| -> String { (from..=count).map(|n| format!("id: 2.{n}\ndata: {}\n\n", line(n))).collect() };
        assert!(all(&tail, LinePosition::default(), 0).await == events(1));
        let first = tail.piece(LinePosition::default()).await.unwrap().unwrap();
        assert!(first.text.len() < 2 * PIECE as usize && first.end.line > 100, "{:?}", first.end);
        for after in [1, 2, first.end.line, first.end.line + 1, count as u64 - 1, count as u64] {
            assert!(all(&tail, LinePosition::default(), after).await == events(after as usize + 1), "{after}");
            let near = tail.near(after).await;
            assert!(near.line <= after && all(&tail, near, after).await == events(after as usize + 1), "{near:?}");
        }
        assert!(tail.near(u64::MAX).await.offset > APART, "the end is found without reading the beginning");
        let end = LinePosition { offset: std::fs::metadata(&path).unwrap().len() - 8, line: count as u64 };
        assert!(tail.piece(end).await.unwrap().is_none(), "half a line is none");
        std::fs::File::options().append(true).open(&path).unwrap().write_all(b"1}\n").unwrap();
        let [one, other] = [tail.piece(end).await.unwrap().unwrap(), tail.piece(end).await.unwrap().unwrap()];
        assert_eq!(one.text, "id: 2.20001\ndata: {\"half\":1}\n\n");
        assert_eq!(one.text.as_ptr(), other.text.as_ptr(), "the same bytes for all");
        assert!(tail.state.lock().await.pieces.len() <= KEPT);
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_not_read_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, "x".repeat(3 * LONGEST_LINE as usize)).unwrap();
        let error = Tail::new(path, 0).piece(LinePosition::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }
}
