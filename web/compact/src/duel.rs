//! One question asked of two models of the server's list, one after the other: a tab holds one at a time. Pure: commands go out,
//! events come in.

use client::protocol::VERSION;
use client::protocol::engine::{Input, ModelSource, Turn};
use client::protocol::sampling::Sampling;
use client::protocol::worker::{Command, Event, ModelState};

/// Longest answer, tokens: enough to tell two models apart.
const MOST_TOKENS: usize = 160;

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was asked.
    #[default]
    Idle,
    /// The worker starts.
    Starting,
    /// A model comes; in percent, where that is known.
    Loading(usize, Option<u8>),
    /// A model writes.
    Writing(usize),
    /// Both have answered.
    Over,
    /// Broken off; why.
    Failed(String),
}

/// What one of the two said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// Its answer so far.
    pub text: String,
    /// From the question to its first word and to its last, ms; without loading.
    pub first_ms: Option<f64>,
    /// The same to the end.
    pub whole_ms: Option<f64>,
    asked_ms: f64,
}

/// A question and the two that answer it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Duel {
    /// How far it is.
    pub stage: Stage,
    /// What they said.
    pub said: [Said; 2],
    question: String,
    models: [String; 2],
    is_up: bool,
    ask: u64,
}

impl Duel {
    /// Whether something is under way.
    #[must_use]
    pub fn busy(&self) -> bool {
        matches!(self.stage, Stage::Starting | Stage::Loading(..) | Stage::Writing(_))
    }

    /// Asks both. The commands are to be sent once the worker is started.
    ///
    /// # Errors
    /// There is nothing to ask, or not two to ask.
    pub fn begin(&mut self, question: &str, models: [String; 2]) -> Result<Vec<Command>, String> {
        let question = question.trim();
        if question.is_empty() {
            return Err("Type a question first.".to_owned());
        }
        if models[0] == models[1] || models.iter().any(String::is_empty) {
            return Err("Choose two different variants.".to_owned());
        }
        let (is_up, ask) = (self.is_up, self.ask);
        *self = Self { question: question.to_owned(), models, is_up, ask, ..Self::default() };
        if !is_up {
            self.stage = Stage::Starting;
            return Ok(Vec::new());
        }
        Ok(self.load(0))
    }

    fn load(&mut self, which: usize) -> Vec<Command> {
        self.stage = Stage::Loading(which, None);
        let source = ModelSource::Server { id: self.models[which].clone() };
        vec![Command::LoadModel { source, context: None, unasked: false }]
    }

    /// Takes in what the worker says; returns what it is to be told.
    pub fn hear(&mut self, event: &Event, now_ms: f64) -> Vec<Command> {
        match (event, self.stage.clone()) {
            (Event::Ready { version, .. }, _) if *version != VERSION => {
                self.stage = Stage::Failed("Page and engine are of different versions; reload the page.".to_owned());
            }
            (Event::Ready { .. }, stage) => {
                self.is_up = true;
                if stage == Stage::Starting {
                    return self.load(0);
                }
            }
            (Event::Model { id, state }, Stage::Loading(which, _)) if *id == self.models[which] => match state {
                ModelState::Ready { .. } => {
                    self.ask += 1;
                    self.stage = Stage::Writing(which);
                    self.said[which].asked_ms = now_ms;
                    let input = Input::Chat(vec![Turn::user(&self.question)]);
                    let options = Sampling { max_tokens: MOST_TOKENS, ..Sampling::default() };
                    return vec![Command::Write { ask: self.ask, input, options }];
                }
                ModelState::Failed { message } => self.stage = Stage::Failed(message.clone()),
                ModelState::Downloading { received: part, total } | ModelState::Loading { read: part, total } => {
                    let percent = (*total > 0).then(|| part.saturating_mul(100) / total);
                    self.stage = Stage::Loading(which, percent.and_then(|percent| u8::try_from(percent).ok()));
                }
                _ => {}
            },
            (Event::Text { ask, text }, Stage::Writing(which)) if *ask == self.ask => {
                let said = &mut self.said[which];
                said.first_ms.get_or_insert(now_ms - said.asked_ms);
                said.text.push_str(text);
            }
            (Event::Written { ask, .. }, Stage::Writing(which)) if *ask == self.ask => {
                let said = &mut self.said[which];
                said.whole_ms = Some(now_ms - said.asked_ms);
                if which == 0 {
                    return self.load(1);
                }
                self.stage = Stage::Over;
            }
            (Event::Failed { ask: Some(ask), message }, Stage::Writing(_)) if *ask == self.ask => {
                self.stage = Stage::Failed(message.clone());
            }
            _ => {}
        }
        Vec::new()
    }

    /// Stops it; what was said stays. The command ends what is being written or loaded.
    pub fn stop(&mut self) -> Option<Command> {
        let command = match self.stage {
            Stage::Writing(_) => Command::Stop { ask: self.ask },
            Stage::Loading(..) => Command::CancelLoad,
            Stage::Starting => return self.end("Stopped."),
            _ => return None,
        };
        self.end("Stopped.");
        Some(command)
    }

    /// The worker is gone.
    pub fn lost(&mut self, reason: &str) {
        self.is_up = false;
        if self.busy() {
            self.end(&format!("The engine stopped: {reason}. Ask again."));
        }
    }

    fn end(&mut self, why: &str) -> Option<Command> {
        self.stage = Stage::Failed(why.to_owned());
        None
    }
}

#[cfg(test)]
mod tests {
    use client::protocol::engine::WriteRecord;
    use client::protocol::tier::{Tier, TierReport};
    use client::protocol::worker::ServerHealth;

    use super::*;

    fn ready() -> Event {
        let tier = TierReport { tier: Tier::Cpu, device: String::new(), reason: String::new(), desktop_class: false };
        Event::Ready { version: VERSION, tier, models: Vec::new(), server: ServerHealth::default() }
    }

    fn model(id: &str, state: ModelState) -> Event {
        Event::Model { id: id.to_owned(), state }
    }

    fn text(ask: u64, text: &str) -> Event {
        Event::Text { ask, text: text.to_owned() }
    }

    fn loads(commands: &[Command], id: &str) -> bool {
        matches!(commands, [Command::LoadModel { source: ModelSource::Server { id: found }, unasked: false, .. }] if found == id)
    }

    fn pair() -> [String; 2] {
        ["a".to_owned(), "b".to_owned()]
    }

    #[test]
    fn two_models_answer_one_after_the_other() {
        let mut duel = Duel::default();
        assert_eq!(duel.begin(" why? ", pair()), Ok(Vec::new()), "the worker has to come first");
        assert!(loads(&duel.hear(&ready(), 0.0), "a"));
        assert!(duel.hear(&model("b", ModelState::Ready { memory_bytes: 1 }), 1.0).is_empty(), "not asked of it yet");
        duel.hear(&model("a", ModelState::Downloading { received: 1, total: 4 }), 1.0);
        assert_eq!(duel.stage, Stage::Loading(0, Some(25)));
        let write = duel.hear(&model("a", ModelState::Ready { memory_bytes: 1 }), 10.0);
        assert!(
            matches!(&write[..], [Command::Write { ask: 1, input: Input::Chat(turns), .. }] if turns[..] == [Turn::user("why?")])
        );
        duel.hear(&text(1, "Be"), 15.0);
        duel.hear(&text(7, "x"), 16.0);
        duel.hear(&text(1, "cause."), 20.0);
        assert!(loads(&duel.hear(&Event::Written { ask: 1, record: WriteRecord::default() }, 30.0), "b"));
        assert_eq!(
            (duel.said[0].text.as_str(), duel.said[0].first_ms, duel.said[0].whole_ms),
            ("Because.", Some(5.0), Some(20.0))
        );
        duel.hear(&model("b", ModelState::Ready { memory_bytes: 1 }), 40.0);
        duel.hear(&text(2, "No."), 41.0);
        duel.hear(&Event::Written { ask: 2, record: WriteRecord::default() }, 42.0);
        assert_eq!((&duel.stage, duel.said[1].text.as_str(), duel.busy()), (&Stage::Over, "No.", false));
        assert!(loads(&duel.begin("again?", pair()).expect("two"), "a"), "the worker is there now");
        assert_eq!(duel.said, <[Said; 2]>::default());
    }

    #[test]
    fn what_cannot_be_asked_is_said() {
        let mut duel = Duel::default();
        assert!(duel.begin("  ", pair()).is_err());
        assert!(duel.begin("why?", ["a".to_owned(), "a".to_owned()]).is_err());
        assert_eq!(duel.stage, Stage::Idle);
    }

    #[test]
    fn every_end_is_one() {
        let mut duel = Duel::default();
        duel.begin("why?", pair()).expect("two");
        assert_eq!((duel.stop(), duel.busy()), (None, false));
        duel.hear(&ready(), 0.0);
        assert!(loads(&duel.begin("why?", pair()).expect("two"), "a"));
        assert_eq!(duel.stop(), Some(Command::CancelLoad));
        duel.begin("why?", pair()).expect("two");
        duel.hear(&model("a", ModelState::Failed { message: "too large".to_owned() }), 1.0);
        assert_eq!(duel.stage, Stage::Failed("too large".to_owned()));
        duel.begin("why?", pair()).expect("two");
        duel.hear(&model("a", ModelState::Ready { memory_bytes: 1 }), 2.0);
        duel.hear(&text(1, "part"), 3.0);
        duel.lost("it crashed");
        assert!(matches!(&duel.stage, Stage::Failed(why) if why.contains("crashed")) && duel.said[0].text == "part");
        assert_eq!(duel.begin("why?", pair()), Ok(Vec::new()), "another worker has to come");
    }
}
