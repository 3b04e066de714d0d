//! A simulated clock with its own executor, and scripted engines and servers, for the tests of this folder.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::ops::ControlFlow;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use async_trait::async_trait;
use futures::StreamExt;

use super::openai::{ChatPiece, ChatRequest, Decoded};
use super::ports::{
    ChatStream, Clock, Job, Jobs, LocalEngine, LocalError, Transport, TransportError, Written, answer_one,
};
use crate::protocol::engine::{Finish, Read, Turn};
use crate::protocol::sampling::MOST_TOKENS;
use crate::protocol::similarity::{SimilarityRequest, SimilarityResponse};
use crate::protocol::worker::AskOptions;

/// Time that moves only when everybody waits for it.
#[derive(Clone, Default)]
pub(crate) struct FakeClock(Rc<FakeTime>);

#[derive(Default)]
struct FakeTime {
    now_s: Cell<f64>,
    sleepers: RefCell<Vec<(f64, Waker)>>,
}

#[async_trait(?Send)]
impl Clock for FakeClock {
    fn now_s(&self) -> f64 {
        self.0.now_s.get()
    }

    async fn sleep(&self, seconds: f64) {
        let until_s = self.now_s() + seconds;
        poll_fn(|context| {
            if self.now_s() >= until_s {
                return Poll::Ready(());
            }
            self.0.sleepers.borrow_mut().push((until_s, context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl FakeClock {
    /// Runs a future to its end. It is polled only when woken; when it is not, time jumps to the next sleeper. A future
    /// that nothing will wake any more fails the test.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(woken.clone());
        loop {
            if woken.0.swap(false, Ordering::Relaxed) {
                if let Poll::Ready(result) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return result;
                }
                continue;
            }
            let next_s = self.0.sleepers.borrow().iter().map(|sleeper| sleeper.0).fold(f64::INFINITY, f64::min);
            assert!(next_s.is_finite(), "everybody waits and nobody sleeps: the run hangs");
            self.0.now_s.set(next_s.max(self.now_s()));
            let due: Vec<_> = {
                let mut sleepers = self.0.sleepers.borrow_mut();
                let (due, later) = sleepers.drain(..).partition(|sleeper| sleeper.0 <= next_s);
                *sleepers = later;
                due
            };
            due.into_iter().for_each(|(_, waker)| waker.wake());
        }
    }
}

/// An engine that answers every prompt with tokens `d0 d1 …`, one every `token_s`, until the answer has its length. A prefix
/// counts as many tokens as it has blanks.
pub(crate) struct FakeEngine {
    pub(crate) clock: FakeClock,
    pub(crate) token_s: f64,
    /// What it takes to read before the first token of a turn.
    pub(crate) read_s: f64,
    /// Tokens of every answer but those of `lengths`.
    pub(crate) length: usize,
    /// Tokens by prompt.
    pub(crate) lengths: Vec<(String, usize)>,
    /// Answers that it writes at the same time, all of them a token longer every `token_s`.
    pub(crate) rows: usize,
    /// Entropy by prompt; a missing one is an error.
    pub(crate) entropies: Vec<(&'static str, f32)>,
    /// Fails after this many tokens in all, that many times.
    pub(crate) fails_after: Option<usize>,
    pub(crate) recovers: bool,
    /// A prompt that it cannot answer.
    pub(crate) refuses: Option<&'static str>,
    pub(crate) written: usize,
    /// Every call: prompt, prefix, token limit.
    pub(crate) calls: Vec<(String, String, usize)>,
}

impl FakeEngine {
    pub(crate) fn new(clock: &FakeClock) -> Self {
        Self {
            clock: clock.clone(),
            token_s: 0.1,
            read_s: 0.0,
            length: 5,
            lengths: Vec::new(),
            rows: 1,
            entropies: Vec::new(),
            fails_after: None,
            recovers: false,
            refuses: None,
            written: 0,
            calls: Vec::new(),
        }
    }
}

/// Tokens of the answer to a prompt.
fn length_of(lengths: &[(String, usize)], prompt: &str, length: usize) -> usize {
    lengths.iter().find(|entry| entry.0 == prompt).map_or(length, |entry| entry.1)
}

#[async_trait(?Send)]
impl LocalEngine for FakeEngine {
    async fn entropy(&mut self, _earlier: &[Turn], prompt: &str) -> Result<f32, LocalError> {
        self.clock.sleep(0.01).await;
        let found = self.entropies.iter().find(|entry| entry.0 == prompt);
        found.map(|entry| entry.1).ok_or_else(|| LocalError::new("no entropy for this prompt"))
    }

    async fn generate(
        &mut self,
        prompt: &str,
        prefix: &str,
        max_tokens: usize,
        options: &AskOptions,
        on_token: &mut dyn for<'t> FnMut(&'t str) -> ControlFlow<()>,
    ) -> Result<Written, LocalError> {
        // A word is a token; of what was said earlier, the cache holds all.
        let words = |text: &str| text.split_whitespace().count();
        let cached = options.earlier.iter().map(|turn| words(&turn.content)).sum();
        let written = |finish| {
            let read = Read { tokens: cached + words(prompt) + words(prefix), cached };
            Ok(Written { finish, read })
        };
        self.calls.push((prompt.to_owned(), prefix.to_owned(), max_tokens));
        if self.refuses == Some(prompt) {
            return Err(LocalError::of_prompt("the prompt is too long for the model"));
        }
        let begun = prefix.matches(' ').count();
        self.clock.sleep(self.read_s).await;
        for position in begun..length_of(&self.lengths, prompt, self.length) {
            if position - begun == max_tokens {
                return written(Finish::Length);
            }
            self.clock.sleep(self.token_s).await;
            if self.fails_after == Some(self.written) {
                self.fails_after = None;
                return Err(LocalError::new("the GPU was lost"));
            }
            self.written += 1;
            if on_token(&format!("d{position} ")).is_break() {
                return written(Finish::Cancelled);
            }
        }
        written(Finish::Stop)
    }

    async fn answer_all(&mut self, jobs: &mut dyn Jobs, options: &AskOptions) -> Result<(), LocalError> {
        let mut rows: Vec<Job> = Vec::new();
        loop {
            while rows.len() < self.rows && self.rows > 1 {
                let Some(job) = jobs.next() else { break };
                self.clock.sleep(self.read_s).await;
                rows.push(job);
            }
            if self.rows == 1
                && let Some(job) = jobs.next()
            {
                answer_one(self, jobs, &job, options).await?;
                continue;
            }
            if rows.is_empty() {
                return Ok(());
            }
            self.clock.sleep(self.token_s).await;
            rows.retain_mut(|job| {
                let written = job.prefix.matches(' ').count();
                let finish = if written >= length_of(&self.lengths, &job.text, self.length) {
                    Finish::Stop
                } else if job.max_tokens == 0 {
                    Finish::Length
                } else if jobs.token(job.prompt, &format!("d{written} ")).is_break() {
                    Finish::Cancelled
                } else {
                    job.prefix.push_str("d ");
                    job.max_tokens -= 1;
                    return true;
                };
                jobs.done(job.prompt, Ok(finish));
                false
            });
        }
    }

    async fn recover(&mut self, error: &LocalError) -> Result<String, LocalError> {
        if self.recovers { Ok("Going on on the CPU.".to_owned()) } else { Err(error.clone()) }
    }
}

/// What the scripted server does with a request, in order.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Lets time pass.
    Wait(f64),
    /// Writes this many more tokens `s0 s1 …` after what is begun, one every `token_s`, but never more than was asked for.
    Tokens(usize),
    /// Ends the answer; its timings follow.
    End,
    /// Says how long the tokens took.
    Timings,
    /// Ends the request with an error.
    Fail(TransportError),
    /// Never says anything again.
    Hang,
    /// Closes the connection without an end.
    Cut,
}

/// A server that works through a script.
#[derive(Clone)]
pub(crate) struct FakeServer {
    pub(crate) clock: FakeClock,
    pub(crate) token_s: f64,
    /// From a request to the beginning of the reply.
    pub(crate) reply_s: f64,
    /// Tokens by prompt, where no script says more.
    pub(crate) lengths: Vec<(String, usize)>,
    /// By prompt; the others get the rest of 5 tokens and an end.
    pub(crate) scripts: Vec<(&'static str, Vec<Step>)>,
    /// Fails before a stream begins.
    pub(crate) refuses: Option<TransportError>,
    /// Writes on beyond the limit that it is given.
    pub(crate) heedless: bool,
    /// Every request: when, prompt, token limit.
    pub(crate) requests: Rc<RefCell<Vec<(f64, String, usize)>>>,
    /// What each of them said was said before.
    pub(crate) earlier: Rc<RefCell<Vec<Vec<Turn>>>>,
    /// Streams that are alive.
    pub(crate) alive: Rc<Cell<usize>>,
}

impl FakeServer {
    pub(crate) fn new(clock: &FakeClock) -> Self {
        Self {
            clock: clock.clone(),
            token_s: 0.05,
            reply_s: 0.02,
            lengths: Vec::new(),
            scripts: Vec::new(),
            refuses: None,
            heedless: false,
            requests: Rc::default(),
            earlier: Rc::default(),
            alive: Rc::default(),
        }
    }
}

struct Alive(Rc<Cell<usize>>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[async_trait(?Send)]
impl Transport for FakeServer {
    async fn chat(&self, request: &ChatRequest) -> Result<ChatStream, TransportError> {
        let asked = request.messages.iter().rposition(|turn| turn.role == "user").expect("a question");
        let prompt = request.messages[asked].content.clone();
        self.earlier.borrow_mut().push(request.messages[..asked].to_vec());
        let told = request.max_tokens.unwrap_or(MOST_TOKENS);
        self.requests.borrow_mut().push((self.clock.now_s(), prompt.clone(), told));
        let limit = request.max_tokens.filter(|_| !self.heedless).unwrap_or(usize::MAX);
        self.clock.sleep(self.reply_s).await;
        if let Some(error) = &self.refuses {
            return Err(error.clone());
        }
        let script = self.scripts.iter().find(|entry| entry.0 == prompt).map(|entry| entry.1.clone());
        let mut steps: Vec<Step> = Vec::new();
        let begun = request.messages.get(asked + 1).map_or(0, |answer| answer.content.matches(' ').count());
        let rest = length_of(&self.lengths, &prompt, 5).saturating_sub(begun);
        for step in script.unwrap_or_else(|| vec![Step::Tokens(rest), Step::End]) {
            match step {
                Step::Tokens(count) => steps.extend(std::iter::repeat_n(Step::Tokens(1), count)),
                Step::End => steps.extend([Step::End, Step::Timings]),
                step => steps.push(step),
            }
        }
        self.alive.set(self.alive.get() + 1);
        let (clock, alive, token_s) = (self.clock.clone(), Alive(self.alive.clone()), self.token_s);
        let state = (steps.into_iter(), 0, clock, alive);
        Ok(futures::stream::unfold(state, move |(mut steps, written, clock, alive)| async move {
            loop {
                let piece = match steps.next()? {
                    Step::Wait(seconds) => {
                        clock.sleep(seconds).await;
                        continue;
                    }
                    Step::Tokens(_) if written == limit => Ok(ChatPiece::Finish(Finish::Length)),
                    Step::Tokens(_) => {
                        clock.sleep(token_s).await;
                        let text = format!("s{} ", begun + written);
                        return Some((Ok(ChatPiece::Text(text)), (steps, written + 1, clock, alive)));
                    }
                    Step::End => Ok(ChatPiece::Finish(Finish::Stop)),
                    Step::Timings => {
                        Ok(ChatPiece::Decoded(Decoded { tokens: written, seconds: token_s * written as f64 }))
                    }
                    Step::Fail(error) => Err(error),
                    Step::Hang => std::future::pending().await,
                    Step::Cut => return None,
                };
                return Some((piece, (steps, written, clock, alive)));
            }
        })
        .boxed_local())
    }

    /// Words are tokens; equal ones have cosine 1, others 0.5.
    async fn similarity(&self, request: &SimilarityRequest) -> Result<SimilarityResponse, TransportError> {
        let (reference, candidate) = (request.reference.split_whitespace(), request.candidate.split_whitespace());
        let cosines: Vec<f64> = reference.zip(candidate).map(|(a, b)| if a == b { 1.0 } else { 0.5 }).collect();
        Ok(SimilarityResponse { accuracy: 0.0, hallucination: 0.0, cosines, encoder: "fake".to_owned() })
    }
}
