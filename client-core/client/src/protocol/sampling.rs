//! How an answer is written: how long, how freely, until when. Each number is declared once, in [`SETTINGS`]: the page's
//! panel and its links, the worker, and the server's check of a request are made from it.

use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How long and how freely to write. The default is the model's own choice at every token, until the model ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// Most tokens. [`MOST_TOKENS`] leaves the end to the model, and to its context.
    pub max_tokens: usize,
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 is off.
    pub top_k: usize,
    /// 1 is off.
    pub top_p: f32,
    /// 1 is off; larger ones make repetitions less likely.
    pub repetition_penalty: f32,
    /// Seed of the choice.
    pub seed: u64,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
}

/// The longest answer that anybody can ask for, tokens: a model that never ends is ended here.
pub const MOST_TOKENS: usize = 4096;

/// One number of [`Sampling`].
#[derive(Debug)]
pub struct Setting {
    /// Field of [`Sampling`], and the name in JSON.
    pub key: &'static str,
    /// Name in a link; empty where the page does not offer it, since not every engine behind a server knows it.
    pub url: &'static str,
    /// Name for a label.
    pub label: &'static str,
    /// What it does, one sentence.
    pub help: &'static str,
    /// Unit, empty for a plain number.
    pub unit: &'static str,
    /// Step of an input field; 1 for whole numbers.
    pub step: f64,
    /// Least and greatest value, as numbers for an input field.
    pub range: (f64, f64),
    read: fn(&Sampling) -> String,
    write: fn(&mut Sampling, &str) -> Option<()>,
}

impl Setting {
    /// The value as text, which [`Setting::write`] reads.
    #[must_use]
    pub fn read(&self, sampling: &Sampling) -> String {
        (self.read)(sampling)
    }

    /// Sets the value from text; `None`, and nothing is changed, where that is no number of the range.
    pub fn write(&self, sampling: &mut Sampling, text: &str) -> Option<()> {
        (self.write)(sampling, text)
    }

    /// The number of the range that is nearest to what a person typed; `None` where that is no number.
    #[must_use]
    pub fn nearest(&self, text: &str) -> Option<String> {
        let text = text.trim();
        let value: f64 = text.parse().ok().filter(|value: &f64| !value.is_nan())?;
        let (min, max) = self.range;
        if (min..=max).contains(&value) { Some(text.to_owned()) } else { Some(value.clamp(min, max).to_string()) }
    }

    /// What is wrong with a value, as the end of a sentence; `None` for a sound one.
    #[must_use]
    pub fn problem(&self, value: f64) -> Option<String> {
        let (min, max) = self.range;
        (!(min..=max).contains(&value)).then(|| format!("has to be between {min} and {max}"))
    }
}

/// A number of the range; NaN is in none.
fn parsed<T: FromStr + PartialOrd>(text: &str, range: RangeInclusive<T>) -> Option<T> {
    text.parse().ok().filter(|value| range.contains(value))
}

macro_rules! settings {
    ($( $key:ident, $url:literal, $label:literal, $unit:literal, $min:tt ..= $max:tt, $step:literal, $default:expr, $help:literal; )*) => {
        impl Default for Sampling {
            fn default() -> Self {
                Self { $( $key: $default, )* stop: Vec::new() }
            }
        }

        /// Every number of [`Sampling`].
        #[allow(clippy::unnecessary_cast, reason = "ranges of several types, as numbers for an input field")]
        pub static SETTINGS: &[Setting] = &[$( Setting {
            key: stringify!($key), url: $url, label: $label, help: $help, unit: $unit, step: $step,
            range: ($min as f64, $max as f64),
            read: |sampling| sampling.$key.to_string(),
            write: |sampling, text| { sampling.$key = parsed(text, $min..=$max)?; Some(()) },
        } ),*];
    };
}

const MOST_TOP_K: usize = 1_000_000;
const MOST_SEED: u64 = u64::MAX;

settings! {
    temperature, "temp", "Temperature (0 is greedy)", "", 0.0..=2.0, 0.1, 0.0, "How freely tokens are chosen; 0 always takes the likeliest.";
    top_k, "topk", "Top k (0 is off)", "tokens", 0..=MOST_TOP_K, 1.0, 0, "Only the k likeliest tokens are chosen from.";
    top_p, "topp", "Top p (1 is off)", "", 0.0..=1.0, 0.05, 1.0, "Only the likeliest tokens that hold this much probability together are chosen from.";
    max_tokens, "tokens", "Longest answer, tokens", "tokens", 1..=MOST_TOKENS, 1.0, MOST_TOKENS, "Where an answer is cut that the model has not ended by itself.";
    repetition_penalty, "", "Repetition penalty (1 is off)", "", 0.01..=10.0, 0.05, 1.0, "Makes tokens less likely that are there already.";
    seed, "sample", "Sampling seed", "", 0..=MOST_SEED, 1.0, 0, "The same seed chooses the same tokens.";
}

/// The setting of this key.
#[must_use]
pub fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

impl Sampling {
    /// What is wrong with it, as a clause that names the field; a worker takes messages from any page.
    ///
    /// # Errors
    /// A number out of its range.
    pub fn check(&self) -> Result<(), String> {
        for setting in SETTINGS {
            let text = setting.read(self);
            if setting.write(&mut self.clone(), &text).is_none() {
                let (min, max) = setting.range;
                return Err(format!("“{}” has to be between {min} and {max}, and is {text}", setting.key));
            }
        }
        Ok(())
    }

    /// The limit that a request names; `None` where the end is the model's.
    #[must_use]
    pub fn limit(&self) -> Option<usize> {
        (self.max_tokens < MOST_TOKENS).then_some(self.max_tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_as_text_and_one_out_of_range_changes_nothing() {
        for setting in SETTINGS {
            let mut sampling = Sampling::default();
            let default = setting.read(&sampling);
            assert_eq!(setting.write(&mut sampling, &default), Some(()), "{}: the default is in range", setting.key);
            let (min, max) = setting.range;
            assert!(min < max && setting.step > 0.0 && !setting.help.is_empty(), "{}", setting.key);
            for wrong in ["NaN", "inf", "-1", "1e300", "x", ""] {
                assert_eq!(setting.write(&mut sampling, wrong), None, "{}: {wrong}", setting.key);
            }
            assert_eq!(sampling, Sampling::default(), "{}", setting.key);
            assert_eq!(setting.write(&mut sampling, &setting.nearest("-7").expect("a number")), Some(()));
            assert_eq!(setting.problem(min), None);
            assert!(setting.problem(min - 1.0).is_some() && setting.problem(f64::NAN).is_some(), "{}", setting.key);
        }
    }

    #[test]
    fn what_a_person_types_is_brought_into_the_range() {
        let nearest = |key: &str, text: &str| setting(key).and_then(|setting| setting.nearest(text));
        for (key, text, expect) in [
            ("temperature", "3", Some("2")),
            ("temperature", " 0.7 ", Some("0.7")),
            ("max_tokens", "0", Some("1")),
            ("max_tokens", "99999", Some("4096")),
            ("top_p", "-1", Some("0")),
            ("seed", "18446744073709551615", Some("18446744073709551615")),
            ("seed", "NaN", None),
            ("seed", "seven", None),
        ] {
            assert_eq!(nearest(key, text).as_deref(), expect, "{key} {text}");
        }
    }

    #[test]
    fn a_check_names_the_field() {
        assert_eq!(Sampling::default().check(), Ok(()));
        let wrong = Sampling { top_p: 1.5, ..Sampling::default() };
        assert!(wrong.check().is_err_and(|problem| problem.contains("top_p") && problem.contains("1.5")));
        let none = Sampling { temperature: f32::NAN, ..Sampling::default() };
        assert!(none.check().is_err());
        assert_eq!(
            (Sampling::default().limit(), Sampling { max_tokens: 7, ..Sampling::default() }.limit()),
            (None, Some(7))
        );
    }
}
