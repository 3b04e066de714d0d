//! Clients that ask at the same time, for `tandem bench-serve`: what a server that speaks OpenAI's API gives them together,
//! and how long each of them waits. Knows nothing of whose server it is: llama.cpp's, vLLM's and ours are measured alike.

use std::time::{Duration, Instant};

use client::offload::openai::is_whole;
use client::offload::sse::{EventTooLong, SseParser};
use rand::{RngExt as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;
use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use serde_json::{Value, json};

/// Of which prompts are made.
const WORDS: [&str; 32] = [
    "river", "stone", "winter", "letter", "garden", "window", "market", "engine", "silver", "shadow", "island",
    "bridge", "copper", "meadow", "harbour", "lantern", "mountain", "ocean", "paper", "road", "salt", "tower",
    "valley", "wheel", "yellow", "zero", "amber", "basket", "candle", "dust", "east", "forest",
];

/// What is asked, and by how many.
#[derive(Clone, Debug)]
pub struct Asking {
    /// Bearer token for the server.
    pub api_key: Option<String>,
    /// Model to ask for; none is named where there is none.
    pub model: Option<String>,
    /// Clients that ask at the same time, one number after the other.
    pub clients: Vec<u16>,
    /// Questions that each client asks, one after the other.
    pub questions: u16,
    /// Words of a question; each is asked once.
    pub question_words: u16,
    /// Words of a system prompt that all questions have in common.
    pub system_words: u16,
    /// Longest answer, tokens.
    pub max_tokens: u16,
    /// Whether answers of exactly that length are asked for, which not every server knows.
    pub ignore_eos: bool,
    /// Seed of the questions.
    pub seed: u64,
    /// Longest time for a number of clients; what is not asked by then is not asked.
    pub longest: Duration,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The first question, which is not counted, was not answered.
    #[error("{url} gives no answers: {why}")]
    NoAnswers {
        /// Whose.
        url: String,
        /// What came instead.
        why: String,
    },
    /// There is no client to ask with.
    #[error(transparent)]
    Client(#[from] reqwest::Error),
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("the request: {0}")]
    Request(#[from] reqwest::Error),
    #[error("{status}: {answer}")]
    Refused { status: StatusCode, answer: String },
    #[error(transparent)]
    LongEvent(#[from] EventTooLong),
    #[error("an event of the answer is not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    #[error("in the answer: {0}")]
    Told(Value),
    #[error("an answer without a word")]
    Empty,
    #[error("it took too long")]
    TooLong,
}

impl Problem {
    /// In words, with what it comes from.
    fn told(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self).and_then(std::error::Error::source);
        while let Some(cause) = source {
            text += &format!(": {cause}");
            source = cause.source();
        }
        text
    }
}

/// One try: an answer, or when to come back.
type Tried = Result<Answer, Duration>;

/// What one answer took, seen from its client.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Answer {
    /// From the first try, refusals included, to the first text.
    ttft_s: f64,
    /// Between two tokens, on average.
    tpot_s: Option<f64>,
    prompt_tokens: u64,
    tokens: u64,
}

/// What clients saw together.
#[derive(Debug, Default)]
pub struct Answers {
    answers: Vec<Answer>,
    /// How often they were told to come back later.
    pub refused: usize,
    /// Questions without an answer.
    pub failed: usize,
    /// Why the first of those had none.
    pub first_problem: Option<String>,
    /// Time from the first question to the last answer, seconds.
    pub time_s: f64,
}

impl Answers {
    /// How many.
    pub fn count(&self) -> usize {
        self.answers.len()
    }

    /// Tokens of all answers together, a second.
    pub fn tokens_per_s(&self) -> f64 {
        self.answers.iter().map(|answer| answer.tokens).sum::<u64>() as f64 / self.time_s
    }

    /// Tokens of all prompts together, a second.
    pub fn prompt_tokens_per_s(&self) -> f64 {
        self.answers.iter().map(|answer| answer.prompt_tokens).sum::<u64>() as f64 / self.time_s
    }

    /// The time to the first token that this share of the answers does not pass, milliseconds; NaN where there is none.
    pub fn ttft_ms(&self, share: f64) -> f64 {
        let times: Vec<f64> = self.answers.iter().map(|answer| answer.ttft_s * 1e3).collect();
        quantile(&times, share)
    }

    /// The same for the time from token to token, of answers that have two.
    pub fn tpot_ms(&self, share: f64) -> f64 {
        let times: Vec<f64> =
            self.answers.iter().filter_map(|answer| answer.tpot_s).map(|time_s| time_s * 1e3).collect();
        quantile(&times, share)
    }

    fn add(&mut self, other: Self) {
        self.answers.extend(other.answers);
        self.refused += other.refused;
        self.failed += other.failed;
        self.first_problem = self.first_problem.take().or(other.first_problem);
    }
}

/// Asks with each number of clients. `show` gets what each number of them saw.
///
/// # Errors
/// When the server does not answer at all.
pub async fn measure(url: &str, asking: &Asking, show: &mut dyn FnMut(u16, &Answers)) -> Result<(), AskError> {
    crate::tls::install_provider();
    let asker = Asker { client: client()?, url: url.trim_end_matches('/'), asking };
    // What is done once (pages of the model's file, buffers) is not the first client's.
    let mut warm_up = Answers::default();
    asker.ask(&mut warm_up, u64::MAX, Instant::now() + asking.longest).await;
    if warm_up.answers.is_empty() {
        let why = warm_up.first_problem.unwrap_or_else(|| "no time left".into());
        return Err(AskError::NoAnswers { url: url.to_owned(), why });
    }
    for count in &asking.clients {
        let started = Instant::now();
        let deadline = started + asking.longest;
        let one = |number: u16| {
            let asker = &asker;
            async move {
                let mut seen = Answers::default();
                for question in 0..asking.questions {
                    let number = (u64::from(*count) << 32) | (u64::from(number) << 16) | u64::from(question);
                    asker.ask(&mut seen, number, deadline).await;
                }
                seen
            }
        };
        let mut all = Answers::default();
        for seen in futures::future::join_all((0..*count).map(one)).await {
            all.add(seen);
        }
        all.time_s = started.elapsed().as_secs_f64();
        show(*count, &all);
    }
    Ok(())
}

/// For servers on this machine and elsewhere.
pub(super) fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder().no_proxy().tls_certs_only(std::iter::empty()).build()
}

/// The value that this share of them does not pass; NaN where there is none.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

struct Asker<'a> {
    client: reqwest::Client,
    url: &'a str,
    asking: &'a Asking,
}

impl Asker<'_> {
    /// Asks until there is an answer, coming back as often and as late as the server says.
    async fn ask(&self, seen: &mut Answers, number: u64, deadline: Instant) {
        let started = Instant::now();
        while Instant::now() < deadline {
            match tokio::time::timeout_at(deadline.into(), self.once(number, started)).await {
                Ok(Ok(Ok(answer))) => return seen.answers.push(answer),
                Ok(Ok(Err(after))) => {
                    seen.refused += 1;
                    tokio::time::sleep(after.min(deadline.saturating_duration_since(Instant::now()))).await;
                }
                failed => {
                    seen.failed += 1;
                    let problem = match failed {
                        Ok(Err(problem)) => problem,
                        _ => Problem::TooLong,
                    };
                    seen.first_problem.get_or_insert_with(|| problem.told());
                    return;
                }
            }
        }
    }

    /// One try.
    async fn once(&self, number: u64, started: Instant) -> Result<Tried, Problem> {
        let body = body(self.asking, number);
        let mut request = self.client.post(format!("{}/v1/chat/completions", self.url)).json(&body);
        if let Some(key) = &self.asking.api_key {
            request = request.bearer_auth(key);
        }
        let mut response = request.send().await?;
        let status = response.status();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            let after_s = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            return Ok(Err(Duration::from_secs(after_s.unwrap_or(1))));
        }
        if !status.is_success() {
            let answer = response.text().await?.chars().take(300).collect();
            return Err(Problem::Refused { status, answer });
        }
        let mut pieces = Pieces::default();
        while let Some(bytes) = response.chunk().await? {
            pieces.take(&bytes, started.elapsed().as_secs_f64())?;
        }
        pieces.answer(started.elapsed().as_secs_f64()).map(Ok)
    }
}

/// The request of this number. All of them differ from their first word on, but for the system prompt.
fn body(asking: &Asking, number: u64) -> Value {
    let words = |seed: u64, count: u16| {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let word = |_| WORDS.get(random.random_range(0..WORDS.len())).copied().unwrap_or_default();
        (0..count).map(word).collect::<Vec<_>>().join(" ")
    };
    let mut messages = Vec::new();
    if asking.system_words > 0 {
        messages.push(json!({ "role": "system", "content": words(asking.seed, asking.system_words) }));
    }
    let question =
        words(asking.seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number, asking.question_words);
    messages.push(json!({ "role": "user", "content": format!("{number}: tell me about {question}.") }));
    let mut body = json!({
        "messages": messages, "max_tokens": asking.max_tokens, "temperature": 0, "stream": true,
        "stream_options": { "include_usage": true },
    });
    if let Some(model) = &asking.model {
        body["model"] = json!(model);
    }
    if asking.ignore_eos {
        body["ignore_eos"] = json!(true);
    }
    body
}

/// The events of an answer as they come.
#[derive(Debug, Default)]
struct Pieces {
    events: SseParser,
    first_s: Option<f64>,
    last_s: f64,
    pieces: u64,
    usage: Option<(u64, u64)>,
}

impl Pieces {
    /// Takes bytes that have come at this time.
    fn take(&mut self, bytes: &[u8], at_s: f64) -> Result<(), Problem> {
        self.events.push(bytes)?.into_iter().try_for_each(|event| self.event(&event.data, at_s))
    }

    fn event(&mut self, data: &str, at_s: f64) -> Result<(), Problem> {
        if data.trim() == "[DONE]" {
            return Ok(());
        }
        let event: Value = serde_json::from_str(data)?;
        if let Some(error) = event.get("error").filter(|error| !error.is_null()) {
            return Err(Problem::Told(error.clone()));
        }
        let delta = &event["choices"][0]["delta"];
        let has_text = ["content", "reasoning_content"]
            .iter()
            .any(|name| delta[*name].as_str().is_some_and(|text| !text.is_empty()));
        if has_text {
            self.first_s.get_or_insert(at_s);
            self.last_s = at_s;
            self.pieces += 1;
        }
        let count = |name: &str| event["usage"][name].as_u64();
        if let (Some(prompt), Some(tokens)) = (count("prompt_tokens"), count("completion_tokens")) {
            self.usage = Some((prompt, tokens));
        }
        Ok(())
    }

    /// What it was; the connection has ended at this time. Where the server does not count, a piece is a token.
    fn answer(mut self, at_s: f64) -> Result<Answer, Problem> {
        if let Some(last) = self.events.rest().filter(|last| is_whole(&last.data)) {
            self.event(&last.data, at_s)?;
        }
        let ttft_s = self.first_s.ok_or(Problem::Empty)?;
        let (prompt_tokens, tokens) = self.usage.unwrap_or((0, self.pieces));
        let tpot_s = (tokens > 1).then(|| (self.last_s - ttft_s) / (tokens - 1) as f64);
        Ok(Answer { ttft_s, tpot_s, prompt_tokens, tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking() -> Asking {
        Asking {
            api_key: None,
            model: None,
            clients: vec![1],
            questions: 1,
            question_words: 30,
            system_words: 5,
            max_tokens: 8,
            ignore_eos: true,
            seed: 1,
            longest: Duration::from_secs(1),
        }
    }

    #[test]
    fn questions_repeat_by_their_numbers_and_differ_from_the_first_word_on() {
        let asking = asking();
        let content = |number, at: usize| body(&asking, number)["messages"][at]["content"].as_str().unwrap().to_owned();
        assert_eq!((content(3, 0), content(3, 1)), (content(4, 0), content(3, 1)));
        assert_ne!(content(3, 1).split(' ').next(), content(4, 1).split(' ').next());
        assert_eq!(body(&asking, 1)["ignore_eos"], json!(true));
    }

    #[test]
    fn an_answer_is_timed_by_its_pieces_however_they_are_cut() {
        let event = |value: Value| format!("data: {value}\n\n");
        let piece = |text: &str| event(json!({ "choices": [{ "delta": { "content": text } }] }));
        let mut pieces = Pieces::default();
        pieces.take(piece("").as_bytes(), 0.1).unwrap();
        let (a, b) = (piece("a"), piece("b"));
        let (head, tail) = a.as_bytes().split_at(9);
        pieces.take(head, 0.2).unwrap();
        pieces.take(tail, 0.5).unwrap();
        pieces.take(b.as_bytes(), 1.5).unwrap();
        let usage = json!({ "choices": [], "usage": { "prompt_tokens": 7, "completion_tokens": 3 } });
        pieces.take((event(usage) + ": comment\n\ndata: [DONE]\n\n").as_bytes(), 9.0).unwrap();
        pieces.take(event(json!({ "choices": [], "error": null })).as_bytes(), 9.0).unwrap();
        let expect = Answer { ttft_s: 0.5, tpot_s: Some(0.5), prompt_tokens: 7, tokens: 3 };
        assert_eq!(pieces.answer(9.0).unwrap(), expect);
        let mut broken = Pieces::default();
        assert!(broken.take(event(json!({ "error": { "message": "x" } })).as_bytes(), 0.0).is_err());
        assert!(Pieces::default().answer(0.0).is_err());
        let mut unended = Pieces::default();
        unended.take(format!("{}{}", piece("a"), piece("b").trim_end()).as_bytes(), 1.0).unwrap();
        assert_eq!(
            unended.answer(3.0).unwrap(),
            Answer { ttft_s: 1.0, tpot_s: Some(2.0), prompt_tokens: 0, tokens: 2 }
        );
    }

    #[test]
    fn what_clients_saw_together() {
        let answer = |number: u64| Answer {
            ttft_s: number as f64,
            tpot_s: (number > 0).then_some(number as f64 / 10.0),
            prompt_tokens: 7,
            tokens: 3,
        };
        let one = |numbers: std::ops::Range<u64>, problem: Option<&str>| Answers {
            answers: numbers.rev().map(answer).collect(),
            failed: usize::from(problem.is_some()),
            first_problem: problem.map(str::to_owned),
            ..Answers::default()
        };
        let mut all = Answers { time_s: 2.0, ..Answers::default() };
        for seen in [one(0..40, None), one(40..90, Some("a")), one(90..100, Some("b"))] {
            all.add(seen);
        }
        assert_eq!((all.count(), all.failed, all.first_problem.as_deref()), (100, 2, Some("a")));
        assert_eq!((all.tokens_per_s(), all.prompt_tokens_per_s()), (150.0, 350.0));
        assert_eq!((all.ttft_ms(0.5), all.ttft_ms(0.95)), (50_000.0, 95_000.0));
        // The answer without a second token is not counted.
        assert_eq!(all.tpot_ms(0.5), 5_000.0);
        assert!(Answers::default().ttft_ms(0.5).is_nan());
    }
}
