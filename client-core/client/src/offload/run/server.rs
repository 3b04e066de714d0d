//! The server's side of a run: one streamed request after the other.

use futures::StreamExt;

use super::board::{Board, ServerJob};
use super::{SILENCE_LIMIT_S, unless_stopped, within};
use crate::offload::openai::{ChatPiece, ChatRequest};
use crate::offload::ports::{ChatStream, Clock, Transport, TransportError};
use crate::protocol::engine::Finish;
use crate::protocol::sampling::Sampling;
use crate::protocol::worker::Origin;

/// How long the end of a stream is waited for when the answer is already whole.
const LAST_WORDS_S: f64 = 0.25;

/// Has the server answer its prompts until there are none left for it.
pub(super) async fn answer<T: Transport, C: Clock>(board: &Board<'_>, transport: &T, clock: &C) {
    while let Some(job) = board.next_server_job().await {
        let wait_s = job.arrival_s - clock.now_s();
        if wait_s > 0.0 && unless_stopped(board.stop, clock.sleep(wait_s)).await.is_none() {
            return;
        }
        // Dropping the work on a stop drops the stream, which cancels the request.
        let Some(result) = unless_stopped(board.stop, one(board, &job, transport, clock)).await else {
            return;
        };
        match result {
            Ok(Finish::Length) if job.max_tokens < board.most_tokens() => board.give_to_device(job.prompt),
            Ok(finish) => board.finish(job.prompt, finish),
            Err(error) => board.server_failed(&job, &error),
        }
    }
}

async fn one<T: Transport, C: Clock>(
    board: &Board<'_>,
    job: &ServerJob,
    transport: &T,
    clock: &C,
) -> Result<Finish, TransportError> {
    board.begin(Origin::Server, clock.now_s());
    let result = stream(board, job, transport, clock).await;
    board.end(Origin::Server, clock.now_s());
    let (finish, rest) = result?;
    // The answer is whole: what follows only goes into the record, and it does not matter if it fails.
    if let Some(mut rest) = rest {
        let last_words = async {
            while let Some(Ok(piece)) = rest.next().await {
                if let ChatPiece::Decoded(decoded) = piece {
                    board.server_decoded(decoded);
                }
            }
        };
        let _ = within(clock, LAST_WORDS_S, last_words).await;
    }
    Ok(finish)
}

/// Why the answer ended, and the stream where it has more to tell.
async fn stream<T: Transport, C: Clock>(
    board: &Board<'_>,
    job: &ServerJob,
    transport: &T,
    clock: &C,
) -> Result<(Finish, Option<ChatStream>), TransportError> {
    let silent = || TransportError::Silent(SILENCE_LIMIT_S as u32);
    let begun_s = clock.now_s();
    let sampling = Sampling { max_tokens: job.max_tokens, ..board.ask.options.sampling.clone() };
    let request = ChatRequest::of_question(&board.ask.prompts[job.prompt], board.ask.begun(job.prompt), &sampling);
    let mut stream = within(clock, SILENCE_LIMIT_S, transport.chat(&request)).await.ok_or_else(silent)??;
    board.add_reply_time(clock.now_s() - begun_s);
    let mut pieces = 0;
    loop {
        match within(clock, SILENCE_LIMIT_S, stream.next()).await.ok_or_else(silent)? {
            // A server that was named no limit, or does not heed it: leaving the stream ends the answer there.
            Some(Ok(ChatPiece::Text(_))) if pieces >= job.max_tokens => return Ok((Finish::Length, None)),
            Some(Ok(ChatPiece::Text(text))) => {
                pieces += 1;
                board.token(job.prompt, Origin::Server, &text, clock.now_s());
            }
            Some(Ok(ChatPiece::Decoded(decoded))) => board.server_decoded(decoded),
            Some(Ok(ChatPiece::Finish(finish))) => return Ok((finish, Some(stream))),
            Some(Err(error)) => return Err(error),
            None => return Err(TransportError::Broken("the answer has no end".to_owned())),
        }
    }
}
