//! `GET /metrics`: counts and times in Prometheus' text format.
//!
//! The recorder belongs to one server, not to the process, so that servers in one test do not count for each other.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::App;

const META: Metadata<'static> = Metadata::new("tandem", Level::INFO, None);
/// Upper edges of the time buckets, seconds: a tiny model on a CPU answers within milliseconds, a large one in seconds.
const TIME_BUCKETS_S: [f64; 12] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 10.0, 60.0];

/// The server's own measurements.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    prompt_tokens: Counter,
    completion_tokens: Counter,
    cancelled: Counter,
    ttft: Histogram,
    duration: Histogram,
    active: Gauge,
    waiting: Gauge,
    tokens_per_s: Gauge,
    prefix_lookups: Counter,
    prefix_hits: Counter,
    prefix_tokens: Counter,
    prefix_bytes: Gauge,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let names = [TTFT, DURATION].map(|name| Matcher::Full(name.to_owned()));
        let builder = names.into_iter().fold(PrometheusBuilder::new(), |builder, name| {
            // The only error is an empty list of buckets.
            builder.set_buckets_for_metric(name, &TIME_BUCKETS_S).unwrap_or_default()
        });
        let recorder = builder.build_recorder();
        let counter = |name: &'static str, text: &'static str| {
            recorder.describe_counter(KeyName::from_const_str(name), None, text.into());
            recorder.register_counter(&Key::from_static_name(name), &META)
        };
        let gauge = |name: &'static str, text: &'static str| {
            recorder.describe_gauge(KeyName::from_const_str(name), None, text.into());
            recorder.register_gauge(&Key::from_static_name(name), &META)
        };
        let histogram = |name: &'static str, text: &'static str| {
            recorder.describe_histogram(KeyName::from_const_str(name), Some(Unit::Seconds), text.into());
            recorder.register_histogram(&Key::from_static_name(name), &META)
        };
        recorder.describe_counter(
            KeyName::from_const_str(REQUESTS),
            None,
            "Answered requests by route and status.".into(),
        );
        let inner = Inner {
            handle: recorder.handle(),
            prompt_tokens: counter("tandem_prompt_tokens_total", "Tokens read."),
            completion_tokens: counter("tandem_completion_tokens_total", "Tokens written."),
            cancelled: counter("tandem_cancelled_generations_total", "Answers whose client left before the end."),
            ttft: histogram(TTFT, "Time from the request to the first token, the queue included."),
            duration: histogram(DURATION, "Time from the request to the last token."),
            active: gauge("tandem_active_generations", "Answers being written."),
            waiting: gauge("tandem_queue_depth", "Requests waiting for a slot."),
            tokens_per_s: gauge("tandem_tokens_per_second", "Tokens written a second, over the last ten seconds."),
            prefix_lookups: counter("tandem_prefix_lookups_total", "Prompts whose beginnings were looked for."),
            prefix_hits: counter("tandem_prefix_hits_total", "Prompts whose beginnings had been computed before."),
            prefix_tokens: counter("tandem_prefix_tokens_total", "Tokens of prompts that were not computed again."),
            prefix_bytes: gauge("tandem_prefix_bytes", "Memory of the beginnings that are kept."),
            recorder,
        };
        Self(Arc::new(inner))
    }

    /// A request was answered. `route` is the pattern, never the path: paths are endless.
    pub fn request(&self, route: &str, status: u16) {
        let labels = vec![Label::new("route", route.to_owned()), Label::new("status", status.to_string())];
        self.0.recorder.register_counter(&Key::from_parts(REQUESTS, labels), &META).increment(1);
    }

    /// The first token of an answer came this long after its request.
    pub fn first_token(&self, after: Duration) {
        self.0.ttft.record(after);
    }

    /// An answer was completed.
    pub fn completed(&self, after: Duration, prompt_tokens: usize, completion_tokens: usize) {
        self.0.duration.record(after);
        self.0.prompt_tokens.increment(prompt_tokens as u64);
        self.0.completion_tokens.increment(completion_tokens as u64);
    }

    /// A client left in the middle of an answer, after this many tokens.
    pub fn cancelled(&self, completion_tokens: usize) {
        self.0.cancelled.increment(1);
        self.0.completion_tokens.increment(completion_tokens as u64);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

const REQUESTS: &str = "tandem_requests_total";
const TTFT: &str = "tandem_time_to_first_token_seconds";
const DURATION: &str = "tandem_generation_seconds";

/// `GET /metrics`
pub async fn get(State(app): State<App>) -> Response {
    let inner = &app.metrics().0;
    let load = app.host().load();
    inner.active.set(load.active as f64);
    inner.waiting.set(load.waiting as f64);
    if let Some(progress) = app.host().progress() {
        inner.tokens_per_s.set(progress.tokens_per_s);
        inner.prefix_lookups.absolute(progress.prefix_lookups);
        inner.prefix_hits.absolute(progress.prefix_hits);
        inner.prefix_tokens.absolute(progress.prefix_tokens);
        inner.prefix_bytes.set(progress.prefix_bytes as f64);
    }
    inner.handle.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], inner.handle.render()).into_response()
}
