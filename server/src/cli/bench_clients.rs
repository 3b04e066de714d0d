//! Clients that ask at the same time, for `tandem bench-serve`: what a server that speaks OpenAI's API gives them together,
//! and how long each of them waits. Knows nothing of whose server it is: llama.cpp's, vLLM's and ours are measured alike.

use std::time::{Duration, Instant};

use anyhow::Context as _;
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
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Clients that ask")]
pub struct ClientArgs {
    /// Measure the server at this address instead of one that is started for it: any that speaks OpenAI's API. Only clients
    /// that ask are measured then.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Bearer token for that server.
    #[arg(long, env = "TANDEM_BENCH_KEY", value_name = "TOKEN", hide_env_values = true, requires = "url")]
    pub api_key: Option<String>,
    /// Model to ask for. [default: none is named]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Clients that ask at the same time, one number after the other.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_values_t = [1, 4, 16, 64],
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub clients: Vec<u16>,
    /// Questions that each client asks, one after the other.
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub questions: u16,
    /// Words of a question; each is asked once.
    #[arg(long, value_name = "NUMBER", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    pub question_words: u16,
    /// Words of a system prompt that all questions have in common.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub system_words: u16,
    /// Longest answer, tokens.
    #[arg(long, value_name = "TOKENS", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_tokens: u16,
    /// Ask for answers of exactly that length, where the server knows the field (llama.cpp, vLLM, tandem).
    #[arg(long)]
    pub ignore_eos: bool,
    /// Seed of the questions.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Longest time for a number of clients, seconds; what is not asked by then is not asked.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub longest: u64,
}

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
struct Seen {
    answers: Vec<Answer>,
    refused: usize,
    failed: usize,
    first_problem: Option<String>,
}

/// Asks with each number of clients, and prints a line for each.
///
/// # Errors
/// When the server does not answer at all.
pub async fn measure(url: &str, args: &ClientArgs) -> anyhow::Result<()> {
    let client = super::bench_serve::client()?;
    let asker = Asker { client, url: url.trim_end_matches('/'), args };
    // What is done once (pages of the model's file, buffers) is not the first client's.
    let mut warm_up = Seen::default();
    asker.ask(&mut warm_up, u64::MAX, Instant::now() + Duration::from_secs(args.longest)).await;
    if warm_up.answers.is_empty() {
        anyhow::bail!("{url} gives no answers: {}", warm_up.first_problem.unwrap_or_else(|| "no time left".into()));
    }
    println!(
        "{:>7} {:>7} {:>7} {:>6} {:>9} {:>10} {:>18} {:>18}",
        "clients", "answers", "refused", "failed", "tokens/s", "prompt t/s", "TTFT ms p50 / p95", "TPOT ms p50 / p95"
    );
    for count in &args.clients {
        let started = Instant::now();
        let deadline = started + Duration::from_secs(args.longest);
        let one = |number: u16| {
            let asker = &asker;
            async move {
                let mut seen = Seen::default();
                for question in 0..args.questions {
                    let number = (u64::from(*count) << 32) | (u64::from(number) << 16) | u64::from(question);
                    asker.ask(&mut seen, number, deadline).await;
                }
                seen
            }
        };
        let all = futures::future::join_all((0..*count).map(one)).await;
        print_line(*count, &all, started.elapsed().as_secs_f64());
    }
    Ok(())
}

fn print_line(clients: u16, all: &[Seen], time_s: f64) {
    let answers: Vec<Answer> = all.iter().flat_map(|seen| seen.answers.iter().copied()).collect();
    let sum = |of: fn(&Answer) -> u64| answers.iter().map(of).sum::<u64>() as f64 / time_s;
    let pair = |values: Vec<f64>| {
        let [median, most] = [0.5, 0.95].map(|share| percentile(&values, share) * 1e3);
        format!("{median:.1} / {most:.1}")
    };
    let [refused, failed]: [usize; 2] =
        [all.iter().map(|seen| seen.refused).sum(), all.iter().map(|seen| seen.failed).sum()];
    println!(
        "{clients:>7} {:>7} {refused:>7} {failed:>6} {:>9.1} {:>10.1} {:>18} {:>18}",
        answers.len(),
        sum(|answer| answer.tokens),
        sum(|answer| answer.prompt_tokens),
        pair(answers.iter().map(|answer| answer.ttft_s).collect()),
        pair(answers.iter().filter_map(|answer| answer.tpot_s).collect()),
    );
    if let Some(problem) = all.iter().find_map(|seen| seen.first_problem.as_ref()) {
        println!("        the first that failed: {problem}");
    }
}

/// The value that this share of them does not pass; NaN where there is none.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

struct Asker<'a> {
    client: reqwest::Client,
    url: &'a str,
    args: &'a ClientArgs,
}

impl Asker<'_> {
    /// Asks until there is an answer, coming back as often and as late as the server says.
    async fn ask(&self, seen: &mut Seen, number: u64, deadline: Instant) {
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
                        Ok(Err(error)) => format!("{error:#}"),
                        _ => "it took too long".into(),
                    };
                    seen.first_problem.get_or_insert(problem);
                    return;
                }
            }
        }
    }

    /// One try: an answer, or when to come back.
    async fn once(&self, number: u64, started: Instant) -> anyhow::Result<Result<Answer, Duration>> {
        let mut request = self.client.post(format!("{}/v1/chat/completions", self.url)).json(&body(self.args, number));
        if let Some(key) = &self.args.api_key {
            request = request.bearer_auth(key);
        }
        let mut response = request.send().await?;
        let status = response.status();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            let after_s = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            return Ok(Err(Duration::from_secs(after_s.unwrap_or(1))));
        }
        if !status.is_success() {
            anyhow::bail!("{status}: {}", response.text().await?.chars().take(300).collect::<String>());
        }
        let mut pieces = Pieces::default();
        while let Some(bytes) = response.chunk().await? {
            pieces.take(&bytes, started.elapsed().as_secs_f64())?;
        }
        pieces.answer().map(Ok)
    }
}

/// The request of this number. All of them differ from their first word on, but for the system prompt.
fn body(args: &ClientArgs, number: u64) -> Value {
    let words = |seed: u64, count: u16| {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let word = |_| WORDS.get(random.random_range(0..WORDS.len())).copied().unwrap_or_default();
        (0..count).map(word).collect::<Vec<_>>().join(" ")
    };
    let mut messages = Vec::new();
    if args.system_words > 0 {
        messages.push(json!({ "role": "system", "content": words(args.seed, args.system_words) }));
    }
    let question = words(args.seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number, args.question_words);
    messages.push(json!({ "role": "user", "content": format!("{number}: tell me about {question}.") }));
    let mut body = json!({
        "messages": messages, "max_tokens": args.max_tokens, "temperature": 0, "stream": true,
        "stream_options": { "include_usage": true },
    });
    if let Some(model) = &args.model {
        body["model"] = json!(model);
    }
    if args.ignore_eos {
        body["ignore_eos"] = json!(true);
    }
    body
}

/// The events of an answer as they come.
#[derive(Debug, Default)]
struct Pieces {
    held: Vec<u8>,
    first_s: Option<f64>,
    last_s: f64,
    pieces: u64,
    usage: Option<(u64, u64)>,
}

impl Pieces {
    /// Takes bytes that have come at this time.
    fn take(&mut self, bytes: &[u8], at_s: f64) -> anyhow::Result<()> {
        self.held.extend_from_slice(bytes);
        anyhow::ensure!(self.held.len() < 16 << 20, "an event has more than 16 MiB");
        while let Some(end) = self.held.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.held.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let Some(data) = line.trim().strip_prefix("data:") else { continue };
            if data.trim() == "[DONE]" {
                continue;
            }
            let event: Value = serde_json::from_str(data).context("an event that is not JSON")?;
            if let Some(error) = event.get("error") {
                anyhow::bail!("in the answer: {error}");
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
        }
        Ok(())
    }

    /// Where the server does not count, a piece is a token.
    fn answer(self) -> anyhow::Result<Answer> {
        let ttft_s = self.first_s.context("an answer without a word")?;
        let (prompt_tokens, tokens) = self.usage.unwrap_or((0, self.pieces));
        let tpot_s = (tokens > 1).then(|| (self.last_s - ttft_s) / (tokens - 1) as f64);
        Ok(Answer { ttft_s, tpot_s, prompt_tokens, tokens })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Alone {
        #[command(flatten)]
        args: ClientArgs,
    }

    fn args(words: &[&str]) -> ClientArgs {
        Alone::try_parse_from([&["bench"], words].concat()).unwrap().args
    }

    #[test]
    fn questions_repeat_by_their_numbers_and_differ_from_the_first_word_on() {
        let args = args(&["--system-words", "5", "--ignore-eos"]);
        assert_eq!(args.clients, [1, 4, 16, 64]);
        let content = |number, at: usize| body(&args, number)["messages"][at]["content"].as_str().unwrap().to_owned();
        assert_eq!((content(3, 0), content(3, 1)), (content(4, 0), content(3, 1)));
        assert_ne!(content(3, 1).split(' ').next(), content(4, 1).split(' ').next());
        assert_eq!(body(&args, 1)["ignore_eos"], json!(true));
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
        let expect = Answer { ttft_s: 0.5, tpot_s: Some(0.5), prompt_tokens: 7, tokens: 3 };
        assert_eq!(pieces.answer().unwrap(), expect);
        let mut broken = Pieces::default();
        assert!(broken.take(event(json!({ "error": { "message": "x" } })).as_bytes(), 0.0).is_err());
        assert!(Pieces::default().answer().is_err());
    }

    #[test]
    fn percentiles() {
        let values: Vec<f64> = (0..100).rev().map(f64::from).collect();
        assert_eq!((percentile(&values, 0.5), percentile(&values, 0.95)), (50.0, 95.0));
        assert!(percentile(&[], 0.5).is_nan());
    }
}
