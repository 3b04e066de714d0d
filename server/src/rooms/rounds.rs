//! Every phone asks at once.

use std::collections::{BTreeMap, BTreeSet};

use client::protocol::rooms::down::Round;
use client::protocol::rooms::up::Answer;
use client::protocol::rooms::{ROUND_QUESTIONS, TEXT_CHARS, clean};
use serde::{Deserialize, Serialize};

/// Times that a round may last, seconds.
pub const SECONDS: [u32; 2] = [5, 600];

/// A round, open or over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RoundState {
    /// Number in the room, from 1 on.
    pub number: u32,
    questions: Vec<String>,
    slot: u64,
    left_s: f64,
    open: bool,
    asked: BTreeSet<u32>,
    /// The answer of each member that answered. Kept by themselves, once: a hall's are megabytes, and the rest is written with
    /// every slot.
    #[serde(default, skip_serializing)]
    pub answers: BTreeMap<u32, Answer>,
}

impl RoundState {
    /// Begins one.
    ///
    /// # Errors
    /// Too many questions, or a time out of range; in words.
    pub fn begin(
        number: u32,
        questions: &[String],
        seconds: u32,
        slot: u64,
        asked: BTreeSet<u32>,
    ) -> Result<Self, String> {
        if questions.len() > ROUND_QUESTIONS {
            return Err(format!("A round takes at most {ROUND_QUESTIONS} questions, not {}.", questions.len()));
        }
        let [least, most] = SECONDS;
        if !(least..=most).contains(&seconds) {
            return Err(format!("A round lasts {least} to {most} seconds, not {seconds}."));
        }
        let questions = questions.iter().map(|question| clean(question, TEXT_CHARS)).filter(|text| !text.is_empty());
        let left_s = f64::from(seconds);
        Ok(Self { number, questions: questions.collect(), slot, left_s, open: true, asked, answers: BTreeMap::new() })
    }

    /// Lets time pass; `true` when it ended the round.
    pub fn pass(&mut self, seconds: f64) -> bool {
        self.left_s = (self.left_s - seconds).max(0.0);
        let ends = self.open && self.left_s == 0.0;
        self.open &= !ends;
        ends
    }

    /// Ends it; `false` when it was over.
    pub fn end(&mut self) -> bool {
        self.left_s = 0.0;
        std::mem::take(&mut self.open)
    }

    /// Whether a member's answer to this round is there already. A phone that was cut off tells it again, as it does not
    /// know whether it has arrived.
    #[must_use]
    pub fn has(&self, mlu: u32, answer: &Answer) -> bool {
        answer.round == Some(self.number) && self.answers.contains_key(&mlu)
    }

    /// Takes the first answer of a member that was asked in this round; `false` for all others, and too late.
    pub fn take(&mut self, mlu: u32, answer: &Answer) -> bool {
        let counts = self.open
            && answer.round == Some(self.number)
            && self.asked.contains(&mlu)
            && !self.answers.contains_key(&mlu);
        if counts {
            self.answers.insert(mlu, answer.clone());
        }
        counts
    }

    /// As it is told.
    #[must_use]
    pub fn view(&self) -> Round {
        let mut latencies: Vec<f64> = self.answers.values().map(|answer| answer.latency_s).collect();
        Round {
            round: self.number,
            questions: self.questions.clone(),
            slot: self.slot,
            open: self.open,
            seconds_left: self.left_s,
            asked: self.asked.len() as u32,
            answered: self.answers.len() as u32,
            device_tokens: self.answers.values().map(|answer| u64::from(answer.device_tokens)).sum(),
            server_tokens: self.answers.values().map(|answer| u64::from(answer.server_tokens)).sum(),
            latency_median_s: quantile(&mut latencies, 0.5),
            latency_p95_s: quantile(&mut latencies, 0.95),
        }
    }
}

/// The value below which this share of all lies, the upper of two; `None` of nothing.
#[must_use]
pub fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    values.get((share * last as f64).ceil() as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_once_and_only_in_time() {
        let mut round = RoundState::begin(2, &["  Who?\u{0} ".to_owned()], 10, 7, [1, 2, 3].into()).unwrap();
        let answer = |round, device_tokens, latency_s| Answer { round, device_tokens, latency_s, ..Answer::default() };
        assert!(!round.take(1, &answer(Some(1), 5, 1.0)) && !round.take(1, &answer(None, 5, 1.0)));
        assert!(round.take(1, &answer(Some(2), 5, 1.0)) && round.take(2, &answer(Some(2), 7, 3.0)));
        assert!(!round.take(1, &answer(Some(2), 6, 2.0)) && round.has(1, &answer(Some(2), 6, 2.0)), "once a member");
        assert!(!round.has(1, &answer(None, 6, 2.0)) && !round.has(3, &answer(Some(2), 6, 2.0)));
        assert!(!round.take(4, &answer(Some(2), 100_000, 100.0)), "who came later was not asked");
        assert!(!round.pass(9.0) && round.pass(1.0) && !round.pass(1.0), "it ends once");
        assert!(!round.take(3, &answer(Some(2), 1, 1.0)) && !round.end());
        let view = round.view();
        assert_eq!((view.asked, view.answered, view.device_tokens), (3, 2, 12));
        assert_eq!((view.latency_median_s, view.latency_p95_s), (Some(3.0), Some(3.0)));
        assert_eq!(view.questions, ["Who?"]);
    }

    #[test]
    fn what_is_no_round_is_refused() {
        let begin =
            |questions: usize, seconds| RoundState::begin(1, &vec!["q".to_owned(); questions], seconds, 0, [].into());
        assert!(begin(ROUND_QUESTIONS, 5).is_ok() && begin(0, 600).is_ok());
        assert!(begin(ROUND_QUESTIONS + 1, 5).unwrap_err().contains("at most"));
        assert!(begin(1, 4).is_err() && begin(1, 601).is_err());
    }

    #[test]
    fn quantiles_of_few() {
        assert_eq!(quantile(&mut [], 0.5), None);
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0], 0.5), Some(2.0));
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0], 1.0), Some(3.0));
    }
}
