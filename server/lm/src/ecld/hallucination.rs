//! Eq. 24 as it can be counted: sentences pooled over articles, openings and repeats apart.
//!
//! As it is printed, a model that repeats the opening for ever never hallucinates, and one that says nothing has 0/0. Here
//! a sentence that the article's opening or an earlier sentence has already said is a repeat and not counted; where no
//! sentence is left, there is no rate.

use std::collections::BTreeSet;

use crate::normalise::normalise;
use crate::sentences::sentences;

/// What a model wrote after an article's opening.
#[derive(Debug, Clone, Copy)]
pub struct Telling<'a> {
    /// The opening that it was given.
    pub opening: &'a str,
    /// What it went on with.
    pub text: &'a str,
    /// Whether it was cut at its longest: then half a sentence at the end states nothing.
    pub cut: bool,
}

/// What was counted, over any number of articles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tally {
    /// Sentences that say something new.
    pub sentences: usize,
    /// Those of them that the article's facts support.
    pub supported: usize,
    /// Sentences that only say again what the opening or an earlier one said.
    pub repeats: usize,
    /// Those of them that the opening or the facts support: eq. 24 as printed counts them.
    pub supported_repeats: usize,
    /// Articles without any sentence.
    pub empty_articles: usize,
}

impl Tally {
    /// Counts the sentences of one article; returns those that nothing supports. `supports` judges a sentence by the
    /// article's facts.
    pub fn add(&mut self, telling: Telling<'_>, supports: &dyn Fn(&str) -> bool) -> Vec<String> {
        let opening: Vec<String> = sentences(telling.opening, supports).iter().map(|s| normalise(s)).collect();
        let opens = |sentence: &str| {
            let said = normalise(sentence);
            opening.contains(&said) || said == normalise(telling.opening)
        };
        let known = |sentence: &str| supports(sentence) || opens(sentence);
        let mut all = sentences(telling.text, &known);
        if telling.cut && !telling.text.trim_end().ends_with('.') {
            all.pop();
        }
        self.empty_articles += usize::from(all.is_empty());
        let mut said = BTreeSet::new();
        let mut unsupported = Vec::new();
        for sentence in all {
            let right = known(&sentence);
            if opens(&sentence) || !said.insert(normalise(&sentence)) {
                self.repeats += 1;
                self.supported_repeats += usize::from(right);
                continue;
            }
            self.sentences += 1;
            self.supported += usize::from(right);
            if !right {
                unsupported.push(sentence);
            }
        }
        unsupported
    }

    /// Unsupported sentences of all; `None` where there are none to judge.
    pub fn rate(&self) -> Option<f64> {
        share(self.supported, self.sentences)
    }

    /// Eq. 24 as it is printed: repeats count, and the opening counts as true.
    pub fn literal(&self) -> Option<f64> {
        share(self.supported + self.supported_repeats, self.sentences + self.repeats)
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.sentences += other.sentences;
        self.supported += other.supported;
        self.repeats += other.repeats;
        self.supported_repeats += other.supported_repeats;
        self.empty_articles += other.empty_articles;
    }
}

fn share(supported: usize, of: usize) -> Option<f64> {
    (of > 0).then(|| 1.0 - supported as f64 / of as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_and_openings_are_counted_apart() {
        let facts = ["Kenya lies in Africa.", "Its symbol is C."];
        let supports = |s: &str| facts.iter().any(|f| normalise(f) == normalise(s));
        let opening = "Kenya is a country.";
        for (text, cut, want) in [
            ("", false, [0, 0, 0, 0, 1]),
            ("Kenya is a country. Kenya is a country.", false, [0, 0, 2, 2, 0]),
            ("Kenya lies in Africa. Kenya lies in Africa. It is big. It is big.", false, [2, 1, 2, 1, 0]),
            ("Its symbol is C. It is b", true, [1, 1, 0, 0, 0]),
            ("It is b", true, [0, 0, 0, 0, 1]),
        ] {
            let mut tally = Tally::default();
            tally.add(Telling { opening, text, cut }, &supports);
            let Tally { sentences, supported, repeats, supported_repeats, empty_articles } = tally;
            assert_eq!([sentences, supported, repeats, supported_repeats, empty_articles], want, "{text}");
        }
        assert_eq!((Tally::default().rate(), Tally::default().literal()), (None, None));
    }
}
