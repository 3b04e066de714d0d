//! `/ws/rooms/{code}`: a room's WebSockets. What is said over them is in [`client::protocol::rooms`].
//!
//! One task a connection. While it sends it does not read, and the other way round: a client that takes nothing is not
//! listened to either. Whatever ends a connection from this side has a close code of [`CloseReason`]; an address without a
//! room, too, since a browser tells its page nothing of an HTTP status.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use client::protocol::rooms::{CloseReason, JOIN_SECONDS, MESSAGE_BYTES, PING_SECONDS};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite;

use super::address::Address;
use super::connections::{self, OpenConnection};
use super::error::ApiError;
use super::{App, Phase};
use crate::rooms::outbox::Next;
use crate::rooms::session::{Flow, Session, read_join};

/// Both buffers of a connection: a hall's worth of them should stay small.
const BUFFER_BYTES: usize = 4 << 10;
/// Most that waits to be written to one client: a presenter's picture of a full room, several times.
const UNWRITTEN_BYTES: usize = 4 << 20;
/// After so long without a word, not even a pong, a client is gone.
const SILENCE: Duration = Duration::from_secs(3 * PING_SECONDS);
/// Joins that are carried out at once. A hall that comes in together would else make a thread for each, and every one of those
/// threads keeps memory of its own.
static JOINS: Semaphore = Semaphore::const_new(2);
/// A close code gets this long to arrive.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// `GET /ws/rooms/{code}`
///
/// # Errors
/// The request is no WebSocket's.
pub async fn get(
    State(app): State<App>,
    Address(code): Address<String>,
    line: Option<Extension<Arc<OpenConnection>>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|error| ApiError::invalid(format!("This address takes WebSockets: {error}.")))?;
    let upgrade = upgrade
        .max_message_size(MESSAGE_BYTES)
        .max_frame_size(MESSAGE_BYTES)
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_write_buffer_size(UNWRITTEN_BYTES);
    Ok(upgrade.on_upgrade(move |socket| async move {
        // A connection is in use for as long as the socket is.
        let _busy = line.map(|Extension(line)| connections::Busy::begin(line));
        serve(socket, &app, &code).await;
    }))
}

async fn serve(mut socket: WebSocket, app: &App, code: &str) {
    let reason = match begin(&mut socket, app, code).await {
        Ok(session) => talk(&mut socket, app, session).await,
        Err(reason) => reason,
    };
    if let Some(reason) = reason {
        close(&mut socket, reason).await;
    }
}

/// Says why, and lets that arrive: what the client still sends is taken and thrown away until it has answered.
async fn close(socket: &mut WebSocket, reason: CloseReason) {
    let frame = CloseFrame { code: reason.code(), reason: Utf8Bytes::from_static(reason.text()) };
    let last_words = async {
        if socket.send(Message::Close(Some(frame))).await.is_err() {
            return;
        }
        loop {
            match socket.recv().await {
                Some(Ok(Message::Close(_))) => return,
                Some(Ok(_)) => {}
                // Nothing more can be read after a message that is too large or broken, and dropping the socket now would
                // take the close code away from the client.
                Some(Err(_)) | None => std::future::pending().await,
            }
        }
    };
    let _ = timeout(LAST_WORDS, last_words).await;
}

/// Waits for the join; `Err(None)` when the client has gone.
async fn begin(socket: &mut WebSocket, app: &App, code: &str) -> Result<Session, Option<CloseReason>> {
    let first = timeout(Duration::from_secs(JOIN_SECONDS), read_text(socket));
    let text = first.await.map_err(|_| Some(CloseReason::NoJoin))??;
    let join = read_join(&text).map_err(Some)?;
    if app.rooms().is_going_down() {
        return Err(Some(CloseReason::GoingDown));
    }
    let room = app.rooms().get(code).map_err(|_| Some(CloseReason::NoRoom))?;
    let _turn = JOINS.acquire().await.map_err(|_| Some(CloseReason::ServerError))?;
    let joining = tokio::task::spawn_blocking(move || Session::begin(room, join));
    joining.await.map_err(|_| Some(CloseReason::ServerError))?.map_err(Some)
}

async fn read_text(socket: &mut WebSocket) -> Result<Utf8Bytes, Option<CloseReason>> {
    loop {
        match socket.recv().await {
            Some(Ok(Message::Text(text))) => return Ok(text),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Binary(_))) => return Err(Some(CloseReason::BadMessage)),
            Some(Ok(Message::Close(_))) | None => return Err(None),
            Some(Err(error)) => return Err(broken(&error)),
        }
    }
}

/// Why a connection ends that could not be read; `None` when there is nobody left to tell.
fn broken(error: &axum::Error) -> Option<CloseReason> {
    let cause = std::error::Error::source(error)?.downcast_ref::<tungstenite::Error>()?;
    match cause {
        tungstenite::Error::Capacity(_) => Some(CloseReason::TooLarge),
        tungstenite::Error::Utf8(_) | tungstenite::Error::Protocol(_) => Some(CloseReason::BadMessage),
        _ => None,
    }
}

/// Sends and receives until either side ends it; `None` when the client did.
async fn talk(socket: &mut WebSocket, app: &App, mut session: Session) -> Option<CloseReason> {
    let outbox = Arc::clone(session.outbox());
    let mut phase = app.phase();
    let mut ping =
        tokio::time::interval_at(Instant::now() + Duration::from_secs(PING_SECONDS), Duration::from_secs(PING_SECONDS));
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            next = outbox.next() => match next {
                Next::Text(text) => {
                    let message = Message::Text(Utf8Bytes::from(text.as_ref()));
                    tokio::select! {
                        sent = socket.send(message) => sent.ok()?,
                        // It takes nothing, and its outbox has filled up.
                        () = outbox.given_up() => return Some(CloseReason::TooSlow),
                    }
                }
                Next::Close(reason) => return Some(reason),
            },
            message = socket.recv() => {
                heard = Instant::now();
                let message = match message {
                    Some(Ok(message)) => message,
                    Some(Err(error)) => return broken(&error),
                    None => return None,
                };
                if let Err(reason) = session.count() {
                    return Some(reason);
                }
                match message {
                    Message::Text(text) => match session.receive(&text) {
                        Ok(Flow::On) => {}
                        Ok(Flow::Left) => {
                            let _ = timeout(LAST_WORDS, socket.send(Message::Close(None))).await;
                            return None;
                        }
                        Err(reason) => return Some(reason),
                    },
                    Message::Binary(_) => return Some(CloseReason::BadMessage),
                    Message::Ping(_) | Message::Pong(_) => {}
                    Message::Close(_) => return None,
                }
            }
            _ = ping.tick() => {
                if heard.elapsed() > SILENCE {
                    return None;
                }
                socket.send(Message::Ping(Vec::new().into())).await.ok()?;
            }
            // The rooms say so too; this is for a server whose rooms were told first.
            () = async { drop(phase.wait_for(|phase| *phase > Phase::Running).await) } => {
                return Some(CloseReason::GoingDown);
            }
        }
    }
}
