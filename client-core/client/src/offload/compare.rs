//! After an ask: what would the server have said? Eq. 26–28 on real answers.
//!
//! The server answers once more what this device wrote a part of, whole and by itself; that is r^MEC of eq. 25. The two
//! texts are embedded and aligned by the server (`POST /api/similarity`). Of a prompt that both sides wrote, only the device's
//! positions count towards A_k and H_k, and eq. 28 brings the server's part in by α; what an answer lacks at its end counts
//! for the side that ended it. The server's tokens are counted in its own vocabulary; an encoder with another one shifts
//! the borders by a token or so.

use futures::StreamExt;

use super::openai::{ChatPiece, ChatRequest};
use super::ports::{Clock, Transport, TransportError};
use super::qos::Quality;
use super::run::{Answer, Ask, SILENCE_LIMIT_S, within};
use crate::protocol::similarity::SimilarityRequest;
use crate::protocol::worker::{Event, Origin, PromptQuality};

/// Compares the answers to an ask with the server's; `alpha` is the share of the task that the server wrote.
/// The caller drops the future to cancel.
///
/// # Errors
/// The server did not answer: there is nothing to compare with.
pub async fn compare<T: Transport, C: Clock>(
    ask: &Ask,
    answers: &[Answer],
    alpha: f64,
    transport: &T,
    clock: &C,
) -> Result<Event, TransportError> {
    let threshold = ask.options.threshold;
    let mut prompts = Vec::with_capacity(answers.len());
    let mut local_cosines = Vec::new();
    for (prompt, answer) in ask.prompts.iter().zip(answers) {
        if answer.device_tokens == 0 {
            prompts.push(None);
            continue;
        }
        let reference = reference(prompt, ask, transport, clock).await?;
        if reference.trim().is_empty() && answer.text.trim().is_empty() {
            prompts.push(None);
            continue;
        }
        let request = SimilarityRequest { reference, candidate: answer.text.clone(), threshold };
        let response = within(clock, SILENCE_LIMIT_S, transport.similarity(&request)).await.ok_or_else(silent)??;
        let by = answer.by.iter().chain(std::iter::repeat(answer.by.last().unwrap_or(&Origin::Device)));
        let of_device = response.cosines.iter().zip(by).filter(|(_, by)| **by == Origin::Device);
        let cosines: Vec<f64> = of_device.map(|(&cosine, _)| cosine).collect();
        prompts.push(Quality::from_cosines(&cosines, threshold).map(|quality| PromptQuality {
            reference: request.reference,
            accuracy: quality.accuracy,
            hallucination: quality.hallucination,
        }));
        local_cosines.extend(cosines);
    }
    let server = Quality::of_server();
    let local = Quality::from_cosines(&local_cosines, threshold);
    // Where the device wrote nothing that could be compared, all there is is the server's.
    let mixed = local.map_or(server, |local| Quality::effective(alpha, server, local));
    Ok(Event::Compared { ask: ask.id, prompts, accuracy: mixed.accuracy, hallucination: mixed.hallucination })
}

fn silent() -> TransportError {
    TransportError::Silent(SILENCE_LIMIT_S as u32)
}

async fn reference<T: Transport, C: Clock>(
    prompt: &str,
    ask: &Ask,
    transport: &T,
    clock: &C,
) -> Result<String, TransportError> {
    let request = ChatRequest::of_question(&ask.options.earlier, prompt, "", &ask.options.sampling);
    let mut stream = within(clock, SILENCE_LIMIT_S, transport.chat(&request)).await.ok_or_else(silent)??;
    let mut text = String::new();
    loop {
        match within(clock, SILENCE_LIMIT_S, stream.next()).await.ok_or_else(silent)? {
            Some(Ok(ChatPiece::Text(piece))) => text.push_str(&piece),
            Some(Ok(ChatPiece::Finish(_))) => return Ok(text),
            Some(Ok(ChatPiece::Decoded(_) | ChatPiece::Read(_))) => {}
            Some(Err(error)) => return Err(error),
            None => return Err(TransportError::Broken("the answer has no end".to_owned())),
        }
    }
}
