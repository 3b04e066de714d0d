//! How near backends are to the truth: to a pass in single precision over the very weights that a file stands for.
//!
//! Two engines that differ may both be wrong. So each is compared with a third, which rounds neither activations nor the
//! cache: the mean and the 99th percentile of KL(reference ‖ backend) over the positions of a fixed text and of
//! conversations, and the perplexity of both. The reference is held against the oracle (`engine::reference`), whose sums are
//! in double precision, on a few positions.
//!
//! | file | holds |
//! | --- | --- |
//! | `texts.rs`, `text.md` | what is read |
//! | `passes.rs` | what reads it |
//! | `score.rs` | what two distributions are apart |
//! | `error.rs` | why nothing was compared |
//!
//! Deliberately absent: another engine's API. Its logits come as a file, for windows of tokens that are written for it.

mod error;
mod passes;
mod score;
mod texts;

use std::path::PathBuf;

use engine::ChatTokenizer;
use engine::weights::ModelWeights;
use serde::Serialize;

pub use error::NearnessError;
use passes::Pass;
pub use passes::Where;
pub use score::{Position, Summary};
pub use texts::{Window, windows};

/// Positions that all passes read before any goes on: what is in memory at once.
const CHUNK: usize = 32;

/// What is compared.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Backends, and how many positions each reads at most.
    pub places: Vec<(Where, usize)>,
    /// Names and logits of other engines.
    pub others: Vec<(String, PathBuf)>,
    /// Positions on which the reference is held against the oracle, at most 32.
    pub check: usize,
}

/// What one pass came to.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// On the text.
    pub text: Option<Summary>,
    /// On conversations.
    pub chats: Option<Summary>,
    /// On all.
    pub all: Option<Summary>,
}

struct Compared {
    name: String,
    pass: Box<dyn Pass>,
    left: usize,
    found: [Vec<Position>; 2],
}

impl Compared {
    fn row(self) -> Row {
        let [text, chats] = self.found;
        let of = [Summary::of(&text), Summary::of(&chats)];
        let [text_summary, chats_summary] = of;
        let all = Summary::of(&[text, chats].concat());
        Row { name: self.name, text: text_summary, chats: chats_summary, all }
    }
}

/// Compares all passes on all windows. `progress` is told how many of how many positions are done.
///
/// # Errors
/// [`NearnessError`].
pub fn measure(
    weights: &ModelWeights<'_>,
    windows: &[Window],
    settings: &Settings,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Row>, NearnessError> {
    let vocab = weights.config.vocab;
    let total = windows.iter().map(|window| window.tokens.len()).sum();
    let mut compared = Vec::new();
    let mut add = |name: String, pass: Box<dyn Pass>, left: usize| {
        compared.push(Compared { name, pass, left, found: [Vec::new(), Vec::new()] });
    };
    if settings.check > 0 {
        add("oracle (the reference's check)".into(), passes::oracle(weights), settings.check.min(CHUNK));
    }
    for (place, left) in &settings.places {
        add(format!("{place:?}").to_lowercase(), passes::on(*place, weights)?, *left);
    }
    for (name, path) in &settings.others {
        add(name.clone(), passes::of_file(path, total, vocab)?, usize::MAX);
    }
    let mut reference = passes::reference(weights)?;
    let mut done = 0;
    for (number, window) in windows.iter().enumerate() {
        let before = windows.get(..number).unwrap_or_default();
        let known = before.iter().map(|other| alike(other, window)).max().unwrap_or(0);
        reference.begin();
        compared.iter_mut().for_each(|one| one.pass.begin());
        for (at, chunk) in window.tokens.chunks(CHUNK).enumerate() {
            let logits = reference.read(chunk)?;
            let truth: Vec<_> = logits.chunks_exact(vocab).map(score::LogProbs::of).collect();
            for one in &mut compared {
                let count = chunk.len().min(one.left);
                one.left -= count;
                if count == 0 {
                    continue;
                }
                let found = one.pass.read(&chunk[..count])?;
                let next = (at * CHUNK + 1..).map(|next| window.tokens.get(next).copied());
                let positions = truth.iter().zip(found.chunks_exact(vocab)).zip(next);
                let positions = positions.map(|((truth, found), next)| Position::of(truth, found, next));
                let positions = positions.skip(known.saturating_sub(at * CHUNK));
                one.found[usize::from(window.is_chat)].extend(positions);
            }
            done += chunk.len();
            progress(done, total);
        }
    }
    Ok(compared.into_iter().map(Compared::row).collect())
}

/// Positions of `window` at which all has been read that `other` has, and what follows, too: a template's beginning is the same in
/// every conversation, and counts once.
fn alike(other: &Window, window: &Window) -> usize {
    let same = other.tokens.iter().zip(&window.tokens).take_while(|(a, b)| a == b).count();
    // The token that follows the last of them is another one.
    same.saturating_sub(1)
}

/// The windows' tokens as JSON, for another engine: `{"windows": [[token, …], …]}`.
#[must_use]
pub fn windows_as_json(windows: &[Window]) -> String {
    let tokens: Vec<&[u32]> = windows.iter().map(|window| window.tokens.as_slice()).collect();
    serde_json::json!({ "windows": tokens }).to_string()
}

/// [`windows`] of a file.
///
/// # Errors
/// The file has no tokenizer that is known, or its template refuses the conversations.
pub fn windows_of(gguf: &engine::gguf::Gguf<'_>, positions: usize, chats: usize) -> Result<Vec<Window>, NearnessError> {
    Ok(windows(&ChatTokenizer::from_gguf(gguf)?, positions, chats)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::engine::{ModelSize, RandomBytes, random_weights};

    fn settings(others: Vec<(String, PathBuf)>) -> Settings {
        let places = vec![(Where::Cpu, usize::MAX), (Where::Portable, usize::MAX), (Where::Candle, 5)];
        Settings { places, others, check: 8 }
    }

    /// A random model of rounded weights: the reference is the oracle's, backends round activations and are a little off, and
    /// what a file holds is taken from it.
    #[test]
    fn rows_say_what_was_read() {
        let bytes = RandomBytes::new(&ModelSize::Tiny.config().0, 3);
        let weights = random_weights(ModelSize::Tiny, &bytes);
        let window = |is_chat, len: u32| Window { is_chat, tokens: (0..len).map(|i| i * 37 % 512).collect() };
        let mut windows = [window(false, 40), window(true, 9)];
        // What begins alike counts once: 3 tokens here, of which two are followed by the same.
        windows[1].tokens[3..].reverse();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logits");
        // Another engine that knows nothing: all tokens alike.
        std::fs::write(&path, vec![0; 4 * 49 * 512]).unwrap();
        let mut steps = Vec::new();
        let others = vec![("other".to_owned(), path.clone())];
        let rows = measure(&weights, &windows, &settings(others), &mut |done, of| steps.push((done, of))).unwrap();
        assert_eq!(steps, [(32, 49), (40, 49), (49, 49)]);
        let [oracle, cpu, portable, candle, other] = rows.as_slice() else { panic!("{rows:?}") };
        let of = |row: &Row| row.all.clone().unwrap();
        assert!(of(oracle).kl_mean < 1e-9 && of(oracle).positions == 8 && oracle.chats.is_none(), "{oracle:?}");
        for row in [cpu, portable, candle] {
            assert!((1e-9..1e-2).contains(&of(row).kl_mean), "{row:?}");
            assert!(of(row).kl_p99 >= of(row).kl_mean && of(row).above_percent.abs() < 5.0, "{row:?}");
        }
        assert_eq!([of(cpu).positions, of(portable).positions, of(candle).positions], [47, 47, 5]);
        assert_eq!(cpu.chats.as_ref().unwrap().positions, 7);
        assert!((of(other).perplexity - 512.0).abs() < 1e-6 && of(other).kl_mean > 0.01, "{other:?}");

        let short = Settings { places: Vec::new(), check: 0, ..settings(vec![("other".to_owned(), path)]) };
        let error = measure(&weights, &windows[..1], &short, &mut |_, _| ()).unwrap_err();
        assert!(matches!(error, NearnessError::OtherSize { positions: 40, vocab: 512, .. }), "{error}");
    }
}
