//! Whether texts are cut into the tokens that llama.cpp cuts them into: strings as they are hard to cut, made from a seed, of
//! every kind the same number; ours here, its own through its server's `/tokenize`. Users' text on both sides: the text of a
//! control token in it is text.

use std::collections::BTreeMap;

use engine::Tokenizer;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};
use serde_json::json;

type Rng = Xoshiro256PlusPlus;

/// What makes a string hard to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Runs of spaces of all widths, tabs and line ends.
    Spaces,
    /// Long numbers, groups, decimals, digits of other scripts.
    Digits,
    /// `don't`, `I'LL`, with straight and typographic apostrophes.
    Contractions,
    /// Chinese, Japanese and Korean.
    Cjk,
    /// Families, flags, skin tones, keycaps.
    Emoji,
    /// The same letters composed and decomposed, and heaps of marks.
    Normalisation,
    /// Texts of control tokens, whole and broken.
    Control,
    /// Private use, unassigned, U+FFFD, controls: what a vocabulary has as bytes alone.
    Bytes,
    /// Source code.
    Code,
    /// Cyrillic, Greek, Arabic, Hebrew, Devanagari, Thai, in words and mixed.
    Scripts,
    /// Punctuation, URLs, addresses.
    Punctuation,
    /// Pieces of all the others without a space between them.
    Mixed,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Spaces,
        Self::Digits,
        Self::Contractions,
        Self::Cjk,
        Self::Emoji,
        Self::Normalisation,
        Self::Control,
        Self::Bytes,
        Self::Code,
        Self::Scripts,
        Self::Punctuation,
        Self::Mixed,
    ];
}

const WORDS: [&str; 16] = [
    "the",
    "Edge",
    "offloading",
    "HTTPServer",
    "naïve",
    "Straße",
    "x",
    "I",
    "we",
    "they",
    "Zürich",
    "tokenizer",
    "OK",
    "don",
    "antidisestablishmentarianism",
    "a",
];
const SPACES: [&str; 10] = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\u{a0}", "\u{3000}", "\u{2009}"];
const CONTRACTED: [&str; 10] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "'"];
const EMOJI: [&str; 10] = ["👩‍👩‍👧‍👦", "🇩🇪", "🏳️‍🌈", "👍🏽", "1️⃣", "❤️", "🤷🏻‍♀️", "😀", "🫠", "☎"];
const MARKED: [(&str, &str); 6] = [
    ("é", "e\u{301}"),
    ("ü", "u\u{308}"),
    ("ñ", "n\u{303}"),
    ("Å", "A\u{30a}"),
    ("각", "\u{1100}\u{1161}\u{11a8}"),
    ("ế", "e\u{302}\u{301}"),
];
const CONTROL: [&str; 12] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<s>",
    "</s>",
    "<bos>",
    "<eos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<unk>",
    "<|im_end",
    "im_end|>",
];
const CODE: [&str; 10] = [
    "fn main() {\n    println!(\"{}\", x[i]);\n}",
    "if (a&&!b) { return; }",
    "def f(x):\n\treturn x**2\n",
    "SELECT * FROM t WHERE a<>'b';",
    "<div class=\"a\">&nbsp;</div>",
    "camelCaseName",
    "snake_case_name",
    "a->b::c",
    "/* x */",
    "0xFFu8 as i32",
];
const PUNCTUATION: [&str; 12] = [
    "...",
    "…",
    "!!!",
    "?!",
    "--",
    "—",
    "\"",
    "“x”",
    "https://a.example/b?c=d&e=%20#f",
    "me@example.com",
    "`a`",
    "[1](2)",
];

/// Ranges of letters: first and last code point.
const CJK: [(u32, u32); 4] = [(0x4e00, 0x9fff), (0x3041, 0x3096), (0x30a1, 0x30fa), (0xac00, 0xd7a3)];
const SCRIPTS: [(u32, u32); 6] =
    [(0x0410, 0x044f), (0x0391, 0x03c9), (0x0621, 0x064a), (0x05d0, 0x05ea), (0x0904, 0x0939), (0x0e01, 0x0e30)];
const DIGITS: [(u32, u32); 3] = [(0x0660, 0x0669), (0x0966, 0x096f), (0xff10, 0xff19)];
const BYTES: [(u32, u32); 5] = [(0xe000, 0xe0ff), (0x1, 0x1f), (0x80, 0x9f), (0x1f_0000, 0x1f_ffff), (0xfff9, 0xfffd)];

/// As many strings, of each kind in turn; the same seed gives the same ones.
#[must_use]
pub fn corpus(count: usize, seed: u64) -> Vec<(Kind, String)> {
    let mut rng = Rng::seed_from_u64(seed);
    (0..count)
        .map(|n| {
            let kind = Kind::ALL[n % Kind::ALL.len()];
            (kind, string(kind, &mut rng))
        })
        .collect()
}

fn string(kind: Kind, rng: &mut Rng) -> String {
    (0..rng.random_range(1..=6)).map(|_| piece(kind, rng)).collect()
}

fn piece(kind: Kind, rng: &mut Rng) -> String {
    match kind {
        Kind::Spaces => {
            let run: String = (0..rng.random_range(1..=4)).map(|_| one(&SPACES, rng)).collect();
            if rng.random_bool(0.7) { run + one(&WORDS, rng) } else { run }
        }
        Kind::Digits => digits(rng),
        Kind::Contractions => {
            let ending = one(&CONTRACTED, rng);
            let ending = if rng.random_bool(0.3) { ending.replace('\'', "’") } else { ending.to_owned() };
            format!("{}{ending}{}", one(&WORDS, rng), if rng.random_bool(0.6) { " " } else { "" })
        }
        Kind::Cjk => letters(&CJK, rng) + if rng.random_bool(0.3) { "。" } else { "" },
        Kind::Emoji => {
            let space = if rng.random_bool(0.3) { " " } else { "" };
            one(&EMOJI, rng).to_owned() + space
        }
        Kind::Normalisation => {
            let (composed, decomposed) = MARKED.choose(rng).copied().unwrap_or_default();
            let marked = if rng.random_bool(0.5) { composed } else { decomposed };
            let heap: String = (0..rng.random_range(0..=2)).map(|_| point((0x300, 0x36f), rng)).collect();
            format!("{}{marked}{heap}", one(&WORDS, rng))
        }
        Kind::Control => {
            let space = if rng.random_bool(0.5) { " " } else { "" };
            format!("{}{space}{}", one(&CONTROL, rng), if rng.random_bool(0.5) { one(&WORDS, rng) } else { "" })
        }
        Kind::Bytes => {
            let range = BYTES.choose(rng).copied().unwrap_or_default();
            format!("{}{}", point(range, rng), if rng.random_bool(0.4) { one(&WORDS, rng) } else { "" })
        }
        Kind::Code => one(&CODE, rng).to_owned() + one(&SPACES, rng),
        Kind::Scripts => letters(&SCRIPTS, rng) + if rng.random_bool(0.7) { " " } else { "" },
        Kind::Punctuation => {
            let space = if rng.random_bool(0.4) { " " } else { "" };
            format!("{}{space}{}", one(&PUNCTUATION, rng), if rng.random_bool(0.5) { one(&WORDS, rng) } else { "" })
        }
        Kind::Mixed => {
            let others = &Kind::ALL[..Kind::ALL.len() - 1];
            others.choose(rng).map_or_else(String::new, |kind| piece(*kind, rng))
        }
    }
}

fn digits(rng: &mut Rng) -> String {
    let run = |rng: &mut Rng, most: usize| -> String {
        (0..rng.random_range(1..=most)).map(|_| char::from(b'0' + rng.random_range(0..10u8))).collect()
    };
    match rng.random_range(0..5) {
        0 => run(rng, 24),
        1 => format!("{}.{}", run(rng, 4), run(rng, 8)),
        2 => format!("{},{},{} ", run(rng, 3), run(rng, 3), run(rng, 3)),
        3 => format!("-{}e{}", run(rng, 3), run(rng, 2)),
        _ => letters(&DIGITS, rng),
    }
}

/// One to eight code points of one of the ranges.
fn letters(ranges: &[(u32, u32)], rng: &mut Rng) -> String {
    let range = ranges.choose(rng).copied().unwrap_or_default();
    (0..rng.random_range(1..=8)).map(|_| point(range, rng)).collect()
}

fn point((first, last): (u32, u32), rng: &mut Rng) -> char {
    char::from_u32(rng.random_range(first..=last)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn one<'a>(of: &[&'a str], rng: &mut Rng) -> &'a str {
    of.choose(rng).copied().unwrap_or_default()
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// For each kind, how many strings there were, and how many were cut alike.
    pub kinds: BTreeMap<Kind, Count>,
    /// The first strings that were not.
    pub differing: Vec<Difference>,
}

/// Strings of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// All.
    pub strings: usize,
    /// Those that were cut alike.
    pub equal: usize,
    /// Those that ours refuses, in words: a letter of it has no token. llama.cpp leaves such letters out.
    pub refused: usize,
}

/// A string that is cut in two ways.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// It.
    pub text: String,
    /// Our ids.
    pub ours: Vec<u32>,
    /// The other engine's.
    pub theirs: Vec<u32>,
}

impl Report {
    /// Differences that are kept.
    const KEPT: usize = 20;

    fn add(&mut self, kind: Kind, text: &str, ours: Vec<u32>, theirs: Vec<u32>) {
        let count = self.kinds.entry(kind).or_default();
        count.strings += 1;
        if ours == theirs {
            count.equal += 1;
        } else if self.differing.len() < Self::KEPT {
            self.differing.push(Difference { text: text.to_owned(), ours, theirs });
        }
    }

    fn refuse(&mut self, kind: Kind) {
        let count = self.kinds.entry(kind).or_default();
        count.strings += 1;
        count.refused += 1;
    }

    /// All kinds together.
    #[must_use]
    pub fn all(&self) -> Count {
        self.kinds.values().fold(Count::default(), |all, kind| Count {
            strings: all.strings + kind.strings,
            equal: all.equal + kind.equal,
            refused: all.refused + kind.refused,
        })
    }
}

/// Why nothing was compared: the other engine does not answer, or not as llama.cpp's server does.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {source}")]
pub struct TokensError {
    /// What was asked.
    url: String,
    /// Why not.
    source: reqwest::Error,
}

/// Cuts the strings on both sides. `address` is that of llama.cpp's server, with the same model.
///
/// # Errors
/// The other engine does not cut a string.
pub async fn compare(
    tokenizer: &Tokenizer,
    address: &str,
    corpus: &[(Kind, String)],
    mut done: impl FnMut(usize),
) -> Result<Report, TokensError> {
    #[derive(Deserialize)]
    struct Cut {
        tokens: Vec<u32>,
    }
    let url = format!("{}/tokenize", address.trim_end_matches('/'));
    let failed = |source| TokensError { url: url.clone(), source };
    let client = reqwest::Client::builder().no_proxy().timeout(std::time::Duration::from_secs(30)).build();
    let client = client.map_err(failed)?;
    let mut report = Report::default();
    for (n, (kind, text)) in corpus.iter().enumerate() {
        let Ok(ours) = tokenizer.encode_text(text) else {
            report.refuse(*kind);
            continue;
        };
        let body = json!({"content": text, "add_special": true, "parse_special": false});
        let answer = client.post(&url).json(&body).send().await.and_then(reqwest::Response::error_for_status);
        let theirs: Cut = answer.map_err(failed)?.json().await.map_err(failed)?;
        report.add(*kind, text, ours, theirs.tokens);
        done(n + 1);
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Json;
    use axum::routing::post;
    use engine::gguf::Gguf;

    #[test]
    fn strings_are_of_all_kinds_and_the_seeds() {
        let strings = corpus(2400, 1);
        assert_eq!(strings, corpus(2400, 1));
        assert_ne!(strings, corpus(2400, 2));
        for kind in Kind::ALL {
            let of: Vec<&String> = strings.iter().filter(|(it, _)| *it == kind).map(|(_, text)| text).collect();
            assert_eq!(of.len(), 200, "{kind:?}");
            let mut different = of.clone();
            different.sort_unstable();
            different.dedup();
            assert!(different.len() > 100 && of.iter().all(|text| !text.is_empty()), "{kind:?}: {}", different.len());
        }
    }

    /// Another engine that is ours, but for one text.
    #[tokio::test]
    async fn what_differs_is_counted_and_shown() {
        crate::tls::install_provider();
        let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../public/models/compact.gguf")).unwrap();
        let tokenizer = Tokenizer::from_gguf(&Gguf::parse(&bytes).unwrap()).unwrap();
        let strings = corpus(120, 3);
        let odd = strings[7].1.clone();
        let theirs = Tokenizer::from_gguf(&Gguf::parse(&bytes).unwrap()).unwrap();
        let cut = move |Json(body): Json<serde_json::Value>| async move {
            let text = body["content"].as_str().unwrap();
            let mut ids = theirs.encode_text(text).unwrap();
            if text == odd {
                ids.push(0);
            }
            Json(json!({ "tokens": ids }))
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let cut = std::sync::Arc::new(cut);
            let app = axum::Router::new().route("/tokenize", post(move |body| (*cut.clone()).clone()(body)));
            axum::serve(listener, app).await.unwrap();
        });
        let report = compare(&tokenizer, &address, &strings, |_| ()).await.unwrap();
        assert_eq!(report.all(), Count { strings: 120, equal: 119, refused: 0 });
        assert_eq!(report.kinds[&strings[7].0], Count { strings: 10, equal: 9, refused: 0 });
        assert_eq!(report.differing[0].text, strings[7].1);
        let silent = compare(&tokenizer, &format!("{address}none"), &strings, |_| ()).await.unwrap_err();
        assert!(silent.to_string().contains("404"), "{silent}");
    }
}
