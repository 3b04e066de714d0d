//! The server's side of a run: one streamed request after the other.

use futures::StreamExt;

use super::board::{Board, ServerTurn};
use super::{SILENCE_LIMIT_S, unless_stopped, within};
use crate::offload::openai::{ChatPiece, ChatRequest};
use crate::offload::ports::{ChatStream, Clock, Transport, TransportError};
use crate::protocol::engine::Finish;
use crate::protocol::sampling::{MOST_TOKENS, Sampling};
use crate::protocol::worker::Origin;

/// How long the end of a stream is waited for when the answer is already whole.
const LAST_WORDS_S: f64 = 0.25;

/// How a turn ended.
enum Ended {
    /// The answer is over.
    Over(Finish),
    /// The server has written its part for now.
    Paused,
    /// Its turn was too short for a whole character.
    Nothing,
}

/// Has the server write its part until there is nothing left for it to do.
pub(super) async fn answer<T: Transport, C: Clock>(board: &Board<'_>, transport: &T, clock: &C) {
    while let Some(turn) = board.next_server_turn(clock).await {
        // Dropping the work on a stop drops the stream, which cancels the request.
        let Some(result) = unless_stopped(board.stop, one(board, &turn, transport, clock)).await else {
            return;
        };
        match result {
            Ok(Ended::Paused) => board.put_back(turn.prompt),
            Ok(Ended::Nothing) => board.leave_to_device(turn.prompt),
            Ok(Ended::Over(finish)) => board.finish(turn.prompt, finish),
            Err(error) => board.server_failed(turn.prompt, &error),
        }
    }
}

async fn one<T: Transport, C: Clock>(
    board: &Board<'_>,
    turn: &ServerTurn,
    transport: &T,
    clock: &C,
) -> Result<Ended, TransportError> {
    board.begin(Origin::Server, clock.now_s());
    let result = stream(board, turn, transport, clock).await;
    board.end(Origin::Server, clock.now_s());
    let (ended, rest) = result?;
    // The answer is whole: what follows only goes into the record, and it does not matter if it fails.
    if let Some(mut rest) = rest {
        let last_words = async {
            while let Some(Ok(piece)) = rest.next().await {
                match piece {
                    ChatPiece::Decoded(decoded) => board.server_decoded(decoded),
                    ChatPiece::Read(read) => board.read(Origin::Server, read),
                    ChatPiece::Text(_) | ChatPiece::Finish(_) => {}
                }
            }
        };
        let _ = within(clock, LAST_WORDS_S, last_words).await;
    }
    Ok(ended)
}

/// How the turn ended, and the stream where it has more to tell.
async fn stream<T: Transport, C: Clock>(
    board: &Board<'_>,
    turn: &ServerTurn,
    transport: &T,
    clock: &C,
) -> Result<(Ended, Option<ChatStream>), TransportError> {
    let silent = || TransportError::Silent(SILENCE_LIMIT_S as u32);
    let begun_s = clock.now_s();
    let whole = turn.max_tokens == turn.left;
    // A server is named no limit where the ask has none: engines refuse more than their context holds.
    let unlimited = whole && board.ask.options.sampling.limit().is_none();
    let max_tokens = if unlimited { MOST_TOKENS } else { turn.max_tokens };
    let sampling = Sampling { max_tokens, ..board.ask.options.sampling.clone() };
    let (earlier, prompt) = (&board.ask.options.earlier, &board.ask.prompts[turn.prompt]);
    let request = ChatRequest::of_question(earlier, prompt, &turn.begun, &sampling);
    let mut stream = within(clock, SILENCE_LIMIT_S, transport.chat(&request)).await.ok_or_else(silent)??;
    board.add_reply_time(clock.now_s() - begun_s);
    let mut pieces = 0;
    loop {
        match within(clock, SILENCE_LIMIT_S, stream.next()).await.ok_or_else(silent)? {
            // Leaving the stream ends the answer there. A server that does not heed its limit, or was named none, is left
            // where the answer is full.
            Some(Ok(ChatPiece::Text(_))) if pieces >= turn.left => return Ok((Ended::Over(Finish::Length), None)),
            Some(Ok(ChatPiece::Text(_))) if pieces > 0 && !board.may_go_on(Origin::Server, turn.prompt) => {
                return Ok((Ended::Paused, None));
            }
            Some(Ok(ChatPiece::Text(text))) => {
                board.token(turn.prompt, Origin::Server, &text, clock.now_s());
                pieces += 1;
            }
            Some(Ok(ChatPiece::Decoded(decoded))) => board.server_decoded(decoded),
            Some(Ok(ChatPiece::Read(read))) => board.read(Origin::Server, read),
            Some(Ok(ChatPiece::Finish(Finish::Length))) if !whole => {
                let ended = if pieces > 0 { Ended::Paused } else { Ended::Nothing };
                return Ok((ended, Some(stream)));
            }
            Some(Ok(ChatPiece::Finish(finish))) => return Ok((Ended::Over(finish), Some(stream))),
            Some(Err(error)) => return Err(error),
            None => return Err(TransportError::Broken("the answer has no end".to_owned())),
        }
    }
}
