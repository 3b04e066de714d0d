//! Continuous batching: one thread owns the model, and every pass over its weights makes all running sequences longer.
//!
//! A pass gives each sequence that writes its next token, and beside that reads at most [`CHUNK`] tokens of prompts; so a
//! running answer's next token is never later than one such pass. Prompts are read in turn: whoever got a part of a pass
//! and is not done goes behind the others. Sequences join and leave between passes. One whose client has left is given up
//! before the next pass, and in the middle of one that reads its prompt.
//!
//! Before a prompt is read any further, the beginning that it shares with another sequence, running or kept
//! ([`Prefixes`]), is copied. So several requests with the same system prompt read it once, even where they come together.
//!
//! A sequence's tokens do not depend on what runs beside it: the kernels promise the same bits for every row and any
//! cutting of a prompt, and each sequence has a sampler of its own.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use engine::backend::{Batch, Output, OutputKind, Span};
use engine::continuation::Continuation;
use engine::{EngineError, SamplingOptions, TokenEvent, Tokenizer};
use futures::executor::block_on;
use tokio::sync::{mpsc, oneshot};

use super::prefix::{FEWEST, Prefixes, common};
use super::queue::{Job, Place, Queue};
use super::{FinishReason, GenerationEvent, HostError, Load, Progress, Summary, scores};

/// Most tokens of prompts that are read in a pass: as many as the kernels take at once.
const CHUNK: usize = 64;
/// The time over which the rate of tokens is told, seconds.
const WINDOW_S: u64 = 10;

/// A sequence to be computed.
#[derive(Debug)]
pub struct Ask {
    /// The prompt: at least one token, at most as many as a row holds, all of them in the vocabulary.
    pub tokens: Vec<u32>,
    /// With whom beginnings are shared.
    pub salt: Option<String>,
    /// What is wanted.
    pub wish: Wish,
}

/// What is wanted of a sequence.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a queue holds a few hundred of them")]
pub enum Wish {
    /// An answer.
    Write {
        /// How long and how freely.
        options: SamplingOptions,
        /// The form of log probabilities.
        is_chat: bool,
        /// Where it goes; there is room for every token and one event more.
        events: mpsc::Sender<GenerationEvent>,
    },
    /// The final hidden states, `[tokens][dim]`, flat.
    Embed {
        /// Where they go.
        answer: oneshot::Sender<Result<Vec<f32>, HostError>>,
    },
}

impl Job for Ask {
    fn is_abandoned(&self) -> bool {
        match &self.wish {
            Wish::Write { events, .. } => events.is_closed(),
            Wish::Embed { answer } => answer.is_closed(),
        }
    }
}

/// The thread that owns the model, from outside. Dropping it lets the running sequences end.
#[derive(Debug)]
pub struct Scheduler {
    queue: Queue<Ask>,
    tally: Arc<Mutex<Tally>>,
}

impl Scheduler {
    /// Starts the thread: as many sequences at once as `batch` has rows, at most `waiting` behind them, and at most
    /// `prefix_bytes` of beginnings that are kept.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        batch: Box<dyn Batch>,
        tokenizer: Tokenizer,
        waiting: usize,
        prefix_bytes: usize,
    ) -> std::io::Result<Self> {
        let rows = batch.rows();
        let queue = Queue::new(rows, waiting);
        let tally = Arc::new(Mutex::new(Tally::new()));
        let mut worker = Worker {
            batch,
            tokenizer,
            prefixes: Prefixes::new(prefix_bytes),
            running: Vec::with_capacity(rows),
            left_behind: (0..rows).map(|_| None).collect(),
            tally: Arc::clone(&tally),
        };
        let of_thread = queue.clone();
        std::thread::Builder::new().name("scheduler".into()).spawn(move || {
            let _staff = of_thread.staff(rows);
            worker.run(&of_thread);
        })?;
        Ok(Self { queue, tally })
    }

    /// Where sequences wait for a row.
    #[must_use]
    pub fn queue(&self) -> &Queue<Ask> {
        &self.queue
    }

    /// How busy it is.
    #[must_use]
    pub fn load(&self) -> Load {
        self.queue.load()
    }

    /// What has been done.
    #[must_use]
    pub fn progress(&self) -> Progress {
        lock(&self.tally).progress()
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// What has been done so far.
#[derive(Debug)]
struct Tally {
    started: Instant,
    /// Tokens that were written in a second since the start, for the last few in which there were any.
    written: VecDeque<(u64, u64)>,
    progress: Progress,
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    fn new() -> Self {
        Self { started: Instant::now(), written: VecDeque::new(), progress: Progress::default() }
    }

    fn wrote(&mut self, tokens: u64) {
        let now = self.started.elapsed().as_secs();
        match self.written.back_mut() {
            Some((second, count)) if *second == now => *count += tokens,
            _ => self.written.push_back((now, tokens)),
        }
        while self.written.front().is_some_and(|(second, _)| second + WINDOW_S < now) {
            self.written.pop_front();
        }
    }

    fn progress(&self) -> Progress {
        let now = self.started.elapsed().as_secs_f64();
        let recent = self.written.iter().filter(|(second, _)| second + WINDOW_S > now as u64);
        let tokens: u64 = recent.map(|(_, count)| count).sum();
        Progress { tokens_per_s: tokens as f64 / now.clamp(1.0, WINDOW_S as f64), ..self.progress }
    }
}

/// A sequence in a row. The row holds the first of its `tokens`; what is behind them is to be appended next.
#[derive(Debug)]
struct Running {
    row: usize,
    salt: Option<String>,
    /// The prompt, and what was chosen behind it.
    tokens: Vec<u32>,
    /// Tokens of the prompt.
    prompt: usize,
    /// Those of them that were computed for it; the rest was kept from before.
    computed: usize,
    work: Work,
    begun: Instant,
    /// When the prompt had been read.
    read: Option<Instant>,
    /// Whether somebody else's beginning has been looked for, and found.
    looked: bool,
    found: bool,
    /// Whether a part of the prompt was read in this pass.
    served: bool,
    /// Given back when the sequence is over.
    _place: Place<Ask>,
}

#[derive(Debug)]
enum Work {
    Write(Box<Writing>),
    Embed { hidden: Vec<f32>, answer: oneshot::Sender<Result<Vec<f32>, HostError>> },
}

#[derive(Debug)]
struct Writing {
    text: Continuation,
    is_chat: bool,
    events: mpsc::Sender<GenerationEvent>,
    /// Characters of the answer so far.
    characters: usize,
}

/// How a sequence ended.
enum End {
    /// As it should.
    Done(engine::FinishReason),
    /// Its client has left.
    Left,
    Failed(HostError),
}

impl Running {
    fn is_abandoned(&self) -> bool {
        match &self.work {
            Work::Write(writing) => writing.events.is_closed(),
            Work::Embed { answer, .. } => answer.is_closed(),
        }
    }

    fn is_embedding(&self) -> bool {
        matches!(self.work, Work::Embed { .. })
    }

    /// Takes the logits behind the last token that the row holds: chooses the next one and tells it. `full` when the row
    /// holds no token more.
    fn choose(&mut self, logits: &[f32], full: bool, tokenizer: &Tokenizer) -> Result<Option<End>, EngineError> {
        let Work::Write(writing) = &mut self.work else { return Ok(None) };
        self.read.get_or_insert_with(Instant::now);
        let id = writing.text.choose_from(logits)?;
        if writing.text.left() == 0 {
            return Ok(Some(End::Done(engine::FinishReason::Length)));
        }
        let Writing { text, is_chat, events, characters } = &mut **writing;
        let mut on_token = |token: TokenEvent<'_>| {
            let words = token.text.to_owned();
            let event = match token.logprobs {
                Some(of_token) => {
                    let scores = scores::of_token(tokenizer, *is_chat, token.id, *characters, of_token);
                    GenerationEvent::Scored(words, scores)
                }
                None => GenerationEvent::Text(words),
            };
            *characters += token.text.chars().count();
            // There is room for every token: where it cannot be sent, the client is gone.
            if events.try_send(event).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        Ok(match text.take(id, full, &mut on_token)? {
            Some(engine::FinishReason::Cancelled) => Some(End::Left),
            Some(finish) => Some(End::Done(finish)),
            None => {
                self.tokens.push(id);
                None
            }
        })
    }

    /// The last word to the client.
    fn tell(self, end: End) {
        let failed = |error| if let End::Failed(error) = error { error } else { HostError::ShuttingDown };
        match (self.work, end) {
            (_, End::Left) => {}
            (Work::Write(writing), End::Done(finish)) => {
                let read = self.read.unwrap_or_else(Instant::now);
                let finish = match finish {
                    engine::FinishReason::Stop => FinishReason::Stop,
                    engine::FinishReason::Length | engine::FinishReason::Cancelled => FinishReason::Length,
                };
                let summary = Summary {
                    finish,
                    prompt_tokens: self.prompt,
                    cached_tokens: Some(self.prompt.saturating_sub(self.computed)),
                    completion_tokens: writing.text.tokens(),
                    prefill_s: Some(read.duration_since(self.begun).as_secs_f64()),
                    decode_s: Some(read.elapsed().as_secs_f64()),
                };
                // Fails only when nobody listens any more.
                let _ = writing.events.try_send(GenerationEvent::Done(summary));
            }
            (Work::Write(writing), end) => {
                let _ = writing.events.try_send(GenerationEvent::Failed(failed(end)));
            }
            (Work::Embed { hidden, answer }, End::Done(_)) => {
                let _ = answer.send(Ok(hidden));
            }
            (Work::Embed { answer, .. }, end) => {
                let _ = answer.send(Err(failed(end)));
            }
        }
    }
}

/// What one pass computes.
#[derive(Debug, Default)]
struct Plan {
    /// Sequences by number, each with the tokens that it gets and whether it writes after them.
    spans: Vec<(usize, usize, bool)>,
    /// The one whose hidden states are computed, by itself, and of how many tokens.
    embedding: Option<(usize, usize)>,
}

/// What a row still holds of a sequence that is over, where it cannot be taken out, and the salt.
type Leftover = Option<(Option<String>, Vec<u32>)>;

/// The thread's own.
struct Worker {
    batch: Box<dyn Batch>,
    tokenizer: Tokenizer,
    prefixes: Prefixes,
    /// Those whose prompts are read stand in the order in which they get their turn.
    running: Vec<Running>,
    left_behind: Vec<Leftover>,
    tally: Arc<Mutex<Tally>>,
}

impl Worker {
    fn run(&mut self, queue: &Queue<Ask>) {
        loop {
            if self.running.is_empty() {
                let Some((ask, place)) = queue.take() else { return };
                self.admit(ask, place);
            }
            while self.running.len() < self.batch.rows() {
                let Some((ask, place)) = queue.take_now() else { break };
                self.admit(ask, place);
            }
            // A fault in here is nobody's in particular: all that run are told, and the next ones are served.
            if catch_unwind(AssertUnwindSafe(|| self.pass())).is_err() {
                let error = HostError::Engine("the computation broke off".into());
                while !self.running.is_empty() {
                    self.end(0, End::Failed(error.clone()));
                }
            }
        }
    }

    /// Gives an ask a row.
    fn admit(&mut self, ask: Ask, place: Place<Ask>) {
        // Whoever waited too long has left.
        if ask.is_abandoned() {
            return;
        }
        let Ask { tokens, salt, wish } = ask;
        let work = match wish {
            Wish::Embed { answer } => Work::Embed { hidden: Vec::new(), answer },
            Wish::Write { options, is_chat, events } => match Continuation::new(&self.tokenizer, &options, &tokens) {
                Ok(text) => Work::Write(Box::new(Writing { text, is_chat, events, characters: 0 })),
                Err(error) => {
                    let _ = events.try_send(GenerationEvent::Failed(error.into()));
                    return;
                }
            },
        };
        let before_last = tokens.len().saturating_sub(1);
        let is_embedding = matches!(work, Work::Embed { .. });
        let shared = |row: usize| match self.left_behind.get(row) {
            Some(Some((theirs, left))) if *theirs == salt && !is_embedding => common(left, &tokens).min(before_last),
            _ => 0,
        };
        let free = (0..self.batch.rows()).filter(|row| self.running.iter().all(|running| running.row != *row));
        let Some((row, shared)) = free.map(|row| (row, shared(row))).max_by_key(|(_, shared)| *shared) else { return };
        self.batch.truncate(row, shared);
        if let Some(left) = self.left_behind.get_mut(row) {
            *left = None;
        }
        self.running.push(Running {
            row,
            salt,
            prompt: tokens.len(),
            computed: 0,
            tokens,
            work,
            begun: Instant::now(),
            read: None,
            looked: false,
            found: false,
            served: false,
            _place: place,
        });
    }

    /// One pass, and what comes of it.
    fn pass(&mut self) {
        for number in (0..self.running.len()).rev() {
            if self.running.get(number).is_some_and(Running::is_abandoned) {
                self.end(number, End::Left);
            }
        }
        let plan = self.plan();
        let mut ends = self.compute(&plan.spans);
        if let Some((number, count)) = plan.embedding {
            ends.extend(self.embed(number, count).map(|end| (number, end)));
        }
        ends.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        for (number, end) in ends {
            self.end(number, end);
        }
        // Whoever got a part goes behind those who did not; the order stays otherwise.
        self.running.sort_by_key(|running| running.served);
        for running in &mut self.running {
            running.served = false;
        }
    }

    /// Who gets how many tokens in the next pass.
    fn plan(&mut self) -> Plan {
        let mut plan = Plan::default();
        let mut left = CHUNK;
        for number in 0..self.running.len() {
            let Some(one) = self.running.get(number) else { break };
            if self.batch.len(one.row) >= one.prompt {
                plan.spans.push((number, 1, true));
                continue;
            }
            let is_embedding = one.is_embedding();
            // Hidden states are computed apart, in place of all other prompts.
            if left == 0 || (is_embedding && left < CHUNK) {
                continue;
            }
            if !is_embedding {
                self.reuse(number);
            }
            let Some(one) = self.running.get_mut(number) else { break };
            let unread = one.prompt - self.batch.len(one.row);
            let count = unread.min(left);
            one.served = true;
            if is_embedding {
                plan.embedding = Some((number, count));
                left = 0;
            } else {
                plan.spans.push((number, count, count == unread));
                left -= count;
            }
        }
        plan
    }

    /// Copies what another sequence, running or kept, has in common with this one's prompt beyond what its row holds. The
    /// prompt's last token is always computed: its logits are what is asked for.
    fn reuse(&mut self, number: usize) {
        let Some(one) = self.running.get(number) else { return };
        let held = self.batch.len(one.row);
        let wanted = one.tokens.get(..one.prompt.saturating_sub(1)).unwrap_or_default();
        let others = self.running.iter().filter(|other| other.row != one.row && other.salt == one.salt);
        let of_row = |other: &Running| {
            let theirs = other.tokens.get(..self.batch.len(other.row)).unwrap_or_default();
            (other.row, common(theirs, wanted))
        };
        let from_row = others.map(of_row).max_by_key(|(_, shared)| *shared);
        let from_row = from_row.filter(|(_, shared)| *shared > held && *shared >= FEWEST);
        let least = from_row.map_or(held, |(_, shared)| shared);
        let row = one.row;
        // What cannot be shared is computed.
        let shared = match (self.prefixes.longest(one.salt.as_deref(), wanted, least), from_row) {
            (Some((kept, len)), _) => self.batch.extend(row, kept, len),
            (None, Some((from, len))) => self.batch.share(from, row, len),
            (None, None) => Ok(()),
        };
        let gained = if shared.is_ok() { self.batch.len(row) - held } else { 0 };
        let mut tally = lock(&self.tally);
        if let Some(one) = self.running.get_mut(number) {
            tally.progress.prefix_lookups += u64::from(!one.looked);
            tally.progress.prefix_hits += u64::from(!one.found && gained > 0);
            tally.progress.prefix_tokens += gained as u64;
            one.looked = true;
            one.found |= gained > 0;
        }
    }

    /// Computes the spans and hands out what comes after them. Returns who has ended, by number.
    fn compute(&mut self, plan: &[(usize, usize, bool)]) -> Vec<(usize, End)> {
        let Self { batch, running, tokenizer, tally, .. } = self;
        let mut spans = Vec::with_capacity(plan.len());
        for (number, count, logits) in plan {
            if let Some(one) = running.get(*number) {
                let held = batch.len(one.row);
                let tokens = one.tokens.get(held..held + count).unwrap_or_default();
                spans.push(Span { row: one.row, tokens, logits: *logits });
            }
        }
        if spans.is_empty() {
            return Vec::new();
        }
        // A pass is given up for somebody whose prompt it reads; those that write get their token from the next.
        let stop = || running.iter().any(|one| one.served && !one.is_embedding() && one.is_abandoned());
        let logits = match block_on(batch.append(&spans, &stop)) {
            Ok(logits) => logits,
            Err(EngineError::Stopped) => return Vec::new(),
            Err(error) => {
                let error = HostError::from(error);
                return plan.iter().map(|(number, ..)| (*number, End::Failed(error.clone()))).collect();
            }
        };
        for (number, count, _) in plan {
            if let Some(one) = running.get_mut(*number) {
                // Behind the prompt it is writing, a token a pass.
                let held = batch.len(one.row).saturating_sub(*count);
                one.computed += one.prompt.saturating_sub(held).min(*count);
            }
        }
        let mut ends = Vec::new();
        let writers = plan.iter().filter(|(_, _, logits)| *logits).map(|(number, ..)| *number);
        for (number, logits) in writers.zip(&logits) {
            let Some(one) = running.get_mut(number) else { continue };
            let full = batch.len(one.row) >= batch.capacity();
            match one.choose(logits, full, tokenizer) {
                Ok(None) => {}
                Ok(Some(end)) => ends.push((number, end)),
                Err(error) => ends.push((number, End::Failed(error.into()))),
            }
        }
        lock(tally).wrote(logits.len() as u64);
        ends
    }

    /// Computes hidden states of the next tokens of a sequence.
    fn embed(&mut self, number: usize, count: usize) -> Option<End> {
        let one = self.running.get_mut(number)?;
        let held = self.batch.len(one.row);
        let tokens = one.tokens.get(held..held + count).unwrap_or_default();
        let Work::Embed { hidden, .. } = &mut one.work else { return None };
        match block_on(self.batch.forward(one.row, tokens, OutputKind::Hidden)) {
            Ok(Output::Hidden(more)) => {
                hidden.extend(more);
                (held + count == one.prompt).then_some(End::Done(engine::FinishReason::Stop))
            }
            Ok(_) => Some(End::Failed(HostError::Engine("this model gives no hidden states".into()))),
            Err(error) => Some(End::Failed(error.into())),
        }
    }

    /// Takes a sequence out of its row, keeps what it has computed, and tells how it ended.
    fn end(&mut self, number: usize, end: End) {
        if number >= self.running.len() {
            return;
        }
        let mut one = self.running.remove(number);
        let held = self.batch.len(one.row);
        // What failed may hold anything.
        let keeps = !matches!(end, End::Failed(_)) && !one.is_embedding();
        let mut tokens = std::mem::take(&mut one.tokens);
        tokens.truncate(held);
        let salt = one.salt.take();
        match self.batch.take(one.row) {
            Ok(cache) if keeps => {
                self.prefixes.keep(salt, tokens, cache);
                lock(&self.tally).progress.prefix_bytes = self.prefixes.bytes();
            }
            Ok(_) => {}
            Err(_) if keeps => {
                if let Some(left) = self.left_behind.get_mut(one.row) {
                    *left = Some((salt, tokens));
                }
            }
            Err(_) => self.batch.truncate(one.row, 0),
        }
        one.tell(end);
    }
}
