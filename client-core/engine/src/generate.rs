//! The types that generation takes and returns, and the filter for stop texts.

use super::sampler::{SamplerParams, Shaping, TokenLogprobs};

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`, or what else the model's template knows.
    pub role: String,
    /// The text.
    pub content: String,
}

/// How long and how freely to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingOptions {
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// 0 takes the likeliest token; larger is freer.
    pub temperature: f32,
    /// Only the k likeliest tokens; 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens whose probabilities add up to this; 1 for all.
    pub top_p: f32,
    /// What the logits of tokens that are in the prompt or the answer are divided by where they are positive and
    /// multiplied with where they are negative; 1 for no penalty.
    pub repetition_penalty: f32,
    /// Only tokens at least this share as likely as the likeliest, 0 to 1; 0 for all.
    pub min_p: f32,
    /// What the logits of tokens that are in the answer lose; 0 for nothing, negative to favour them.
    pub presence_penalty: f32,
    /// What they lose for each time that they are in the answer.
    pub frequency_penalty: f32,
    /// What is added to the logits of tokens; minus infinity rules a token out. Ids outside the vocabulary change nothing.
    pub logit_bias: Vec<(u32, f32)>,
    /// How many of the likeliest tokens are told with each token; `None` for no log-probabilities, not even the token's.
    pub top_logprobs: Option<usize>,
    /// Seed of the choice.
    pub seed: u64,
    /// Texts that end the answer; they are not part of it. The text of a control token counts when that token is chosen.
    pub stop: Vec<String>,
    /// Tokens that end the answer besides those of the model.
    pub stop_tokens: Vec<u32>,
    /// Whether the model's own end of an answer is a token like any other, for benches that ask for a number of tokens.
    pub ignore_eos: bool,
}

impl SamplingOptions {
    /// What a device that chooses by itself can be told.
    pub fn params(&self) -> SamplerParams {
        SamplerParams {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        }
    }

    /// The rest of what a choice depends on.
    pub fn shaping(&self) -> Shaping {
        Shaping {
            min_p: self.min_p,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: self.logit_bias.clone(),
            top_logprobs: self.top_logprobs,
        }
    }
}

impl Default for SamplingOptions {
    /// 128 tokens, greedy.
    fn default() -> Self {
        Self {
            max_tokens: 128,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            repetition_penalty: 1.0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            top_logprobs: None,
            seed: 0,
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            ignore_eos: false,
        }
    }
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its answer, or a stop text came up.
    Stop,
    /// `max_tokens` were generated, or the context is full.
    Length,
    /// The caller stopped it.
    Cancelled,
}

/// A generated token. An answer that ends while text is still held back (it could have become a stop text) brings one
/// more event, with the ending token's id and the same index as the number of tokens so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenEvent<'a> {
    /// The token.
    pub id: u32,
    /// Text that has become complete with it: empty in the middle of a character or of a possible stop text.
    pub text: &'a str,
    /// 0 for the first generated token.
    pub index: usize,
    /// How likely the model held it, and which others, where [`SamplingOptions::top_logprobs`] asks; not with an event that
    /// brings only text that was held back.
    pub logprobs: Option<&'a TokenLogprobs>,
}

/// What generation took, by the caller's clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GenerationStats {
    /// Tokens of the prompt, whether or not they were in the cache.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that the KV cache still held from before.
    pub cached_tokens: usize,
    /// Tokens that were generated, the ending token not counted.
    pub generated_tokens: usize,
    /// From the call to the end of the prompt's pass, s.
    pub prefill_s: f64,
    /// From there to the end, s.
    pub decode_s: f64,
    /// From the call to the first token, s: TTFT.
    pub ttft_s: f64,
    /// Why it ended.
    pub finish: FinishReason,
}

/// Holds text back while it could be the beginning of a stop text.
#[derive(Debug)]
pub(super) struct StopFilter {
    stops: Vec<String>,
    held: String,
}

impl StopFilter {
    pub(super) fn new(stops: &[String]) -> Self {
        Self { stops: stops.to_vec(), held: String::new() }
    }

    /// Adds text; returns what may be shown, and whether a stop text has come up.
    pub(super) fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let stops = self.stops.iter().filter(|stop| !stop.is_empty());
        if let Some(at) = stops.clone().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        // The earliest place from which everything to the end begins some stop text.
        let keep_from = self
            .held
            .char_indices()
            .map(|(at, _)| at)
            .find(|&at| self.held.get(at..).is_some_and(|tail| stops.clone().any(|stop| stop.starts_with(tail))))
            .unwrap_or(self.held.len());
        let tail = self.held.split_off(keep_from);
        (std::mem::replace(&mut self.held, tail), false)
    }

    /// What may be shown if the text of a control token, which itself is never shown, completes a stop text with what is
    /// held back.
    pub(super) fn control(&mut self, text: &str) -> Option<String> {
        let whole = format!("{}{text}", self.held);
        // One that began and ended before it would have been found.
        let at =
            self.stops.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| whole.find(stop.as_str())).min()?;
        let shown = self.held.get(..at).unwrap_or(&self.held).to_owned();
        self.held.clear();
        Some(shown)
    }

    /// What was held back and turns out not to be a stop text.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_texts_across_tokens() {
        let stops = ["\n\n".to_owned(), "END".to_owned(), String::new()];
        for (pieces, expect, hit) in [
            (vec!["a", "b"], "ab", false),
            (vec!["a\n", "\nb"], "a", true),
            (vec!["a\n", "b"], "a\nb", false),
            (vec!["xE", "N", "E", "N", "D", "y"], "xEN", true),
            (vec!["E", "N"], "EN", false),
            (vec!["grün E"], "grün E", false),
            (vec!["END"], "", true),
        ] {
            let mut filter = StopFilter::new(&stops);
            let mut shown = String::new();
            let mut stopped = false;
            for piece in &pieces {
                let (text, now) = filter.push(piece);
                shown.push_str(&text);
                stopped = now;
                if now {
                    break;
                }
            }
            if !stopped {
                shown.push_str(&filter.finish());
            }
            assert_eq!((shown.as_str(), stopped), (expect, hit), "{pieces:?}");
        }
    }

    #[test]
    fn stop_texts_with_control_tokens() {
        let stops = ["<|im_end|>".to_owned(), "\n<|user|>".to_owned(), "<|a|>b".to_owned()];
        for (before, control, expect) in [
            ("a", "<|im_end|>", Some("")),
            ("a", "<|user|>", None),
            ("a\n", "<|user|>", Some("")),
            ("a\n", "<|im_end|>", Some("\n")),
            ("a", "<|a|>", None),
            ("a", "", None),
        ] {
            let mut filter = StopFilter::new(&stops);
            let (_, hit) = filter.push(before);
            assert!(!hit);
            assert_eq!(filter.control(control).as_deref(), expect, "{before:?} {control}");
        }
    }
}
