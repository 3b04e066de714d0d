//! One scripted phone of a hall, and the presenter: real WebSockets.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use client::protocol::rooms::down::ServerMessage;
use client::protocol::rooms::up::{Join, Telemetry};
use client::protocol::rooms::{ClientMessage, CloseReason, Part};
use client::protocol::tier::Tier;
use futures::{SinkExt as _, StreamExt as _};
use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::room_report::{PhoneSeen, PresenterSeen, missing};

/// Longest time for a connection and its welcome.
const WELCOME: Duration = Duration::from_secs(30);
/// Longest time without a word from the server.
const SILENCE: Duration = Duration::from_secs(30);
/// Between two tries to come back, and how much it grows.
const AGAIN: (Duration, u32) = (Duration::from_millis(200), 2);
/// Longest time between two tries.
const AGAIN_MOST: Duration = Duration::from_secs(2);

/// What a phone does.
#[derive(Clone, Debug)]
pub struct Script {
    /// The room's WebSocket.
    pub url: String,
    /// Which of the hall's rooms that is.
    pub room: usize,
    /// When the hall began.
    pub began: Instant,
    /// When it ends.
    pub ends: Instant,
    /// Share of the phones that is cut off in each interval.
    pub cut: f64,
    /// That interval.
    pub cut_every: Duration,
    /// Seed of this phone's cuts.
    pub seed: u64,
}

impl Script {
    /// When the phone is cut off next, counted from the interval in which `now` lies.
    fn next_cut(&self, now: Instant, rng: &mut impl Rng) -> Option<Instant> {
        let length = self.cut_every.as_secs_f64();
        let first = ((now - self.began).as_secs_f64() / length) as u32 + 1;
        let last = ((self.ends - self.began).as_secs_f64() / length) as u32;
        let interval = (first..last).find(|_| rng.random_bool(self.cut))?;
        Some(self.began + self.cut_every.mul_f64(f64::from(interval) + rng.random::<f64>()))
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why a phone is outside.
#[derive(Debug)]
enum Outside {
    /// It should try again by itself.
    Again,
    /// It was turned away.
    Refused(String),
}

/// A welcome: token, number, and the last slot that the snapshot tells of, where there was one.
struct In {
    socket: Socket,
    token: Option<String>,
    mlu: Option<u32>,
    returned: bool,
    slot: Option<u64>,
}

/// What the server's next message is; close codes in words.
async fn hear(socket: &mut Socket) -> Result<ServerMessage, Outside> {
    loop {
        let next = timeout(SILENCE, socket.next()).await.map_err(|_| Outside::Again)?;
        match next {
            Some(Ok(Message::Text(text))) => {
                let read = serde_json::from_str(&text);
                return read.map_err(|error| Outside::Refused(format!("a message of the server's: {error}")));
            }
            Some(Ok(Message::Close(frame))) => {
                let code = frame.map_or(1006, |frame| u16::from(frame.code));
                return Err(match CloseReason::of_code(code) {
                    Some(reason) if !reason.comes_back() => Outside::Refused(format!("{reason:?}")),
                    _ => Outside::Again,
                });
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(Outside::Again),
        }
    }
}

async fn enter(url: &str, join: Join) -> Result<In, Outside> {
    let entering = async {
        let (mut socket, _) = connect_async(url).await.map_err(|_| Outside::Again)?;
        let join = serde_json::to_string(&ClientMessage::Join(join)).unwrap_or_default();
        socket.send(Message::text(join)).await.map_err(|_| Outside::Again)?;
        let (mut token, mut mlu, mut returned) = (None, None, false);
        loop {
            match hear(&mut socket).await? {
                ServerMessage::Welcome(welcome) => {
                    (token, mlu, returned) = (welcome.token, welcome.seat.map(|seat| seat.mlu), welcome.returned);
                }
                ServerMessage::Snapshot(snapshot) => {
                    // A room that has had no slot yet has an empty picture.
                    let slot = (!snapshot.picture.cells.is_empty()).then_some(snapshot.picture.slot);
                    return Ok(In { socket, token, mlu, returned, slot });
                }
                _ => {}
            }
        }
    };
    timeout(WELCOME, entering).await.map_err(|_| Outside::Again)?
}

/// A phone, from the hall's beginning to its end.
pub async fn phone(script: Script) -> PhoneSeen {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(script.seed);
    let mut seen = PhoneSeen { room: script.room, ..PhoneSeen::default() };
    let mut own: Option<(String, u32)> = None;
    let mut pause = AGAIN.0;
    let mut cut_at: Option<Instant> = None;
    while Instant::now() < script.ends {
        let join = Join::phone(own.as_ref().map(|(token, _)| token.clone()), None, Some(Part::Model));
        let In { mut socket, token, mlu, returned, slot } = match enter(&script.url, join).await {
            Ok(inside) => inside,
            Err(Outside::Refused(why)) => {
                seen.refused.push(why);
                return seen;
            }
            Err(Outside::Again) => {
                tokio::time::sleep(pause).await;
                pause = (pause * AGAIN.1).min(AGAIN_MOST);
                continue;
            }
        };
        pause = AGAIN.0;
        let now = Instant::now();
        seen.joined_ms.get_or_insert((now - script.began).as_secs_f64() * 1e3);
        if let Some(cut_at) = cut_at.take() {
            seen.back_ms.push((now - cut_at).as_secs_f64() * 1e3);
        }
        let (Some(token), Some(mlu)) = (token, mlu) else {
            seen.refused.push("a welcome without a seat".to_owned());
            return seen;
        };
        match &own {
            Some((_, before)) if *before == mlu && returned => seen.returns += 1,
            Some(_) => seen.strangers += 1,
            None => {}
        }
        own = Some((token, mlu));
        let cut = script.next_cut(now, &mut rng);
        let end = cut.unwrap_or(script.ends).min(script.ends);
        let refused = stay(&mut socket, slot, end, &mut seen, &mut rng).await;
        if let Some(why) = refused {
            seen.refused.push(why);
            return seen;
        }
        if Instant::now() >= script.ends {
            break;
        }
        seen.cuts += 1;
        // Without a word of farewell, as a network that is gone.
        drop(socket);
        if cut.is_some() {
            tokio::time::sleep(Duration::from_millis(rng.random_range(200..2000))).await;
        }
        cut_at = Some(Instant::now());
    }
    seen
}

/// Listens and measures until `end`; why it was turned away, if it was.
async fn stay(
    socket: &mut Socket,
    joined_after: Option<u64>,
    end: Instant,
    seen: &mut PhoneSeen,
    rng: &mut impl Rng,
) -> Option<String> {
    let mut slots = Vec::new();
    let mut refused = None;
    while let Ok(heard) = tokio::time::timeout_at(end.into(), hear(socket)).await {
        match heard {
            Ok(ServerMessage::Decision(decision)) => {
                slots.push(decision.slot);
                seen.decisions.push((decision.slot, Instant::now()));
                let telemetry = Telemetry {
                    tokens_per_s: Some(rng.random_range(5.0..30.0)),
                    tier: Some(Tier::Cpu),
                    visible: Some(true),
                    queue: Some(0),
                    ..Telemetry::default()
                };
                let text = serde_json::to_string(&ClientMessage::Telemetry(telemetry)).unwrap_or_default();
                if socket.send(Message::text(text)).await.is_err() {
                    break;
                }
            }
            Ok(_) => {}
            Err(Outside::Refused(why)) => {
                refused = Some(why);
                break;
            }
            Err(Outside::Again) => break,
        }
    }
    seen.lost += missing(joined_after, &slots);
    refused
}

/// The presenter, for ever. `inside` is told once it is in.
pub async fn presenter(url: String, secret: String, seen: Arc<Mutex<PresenterSeen>>, inside: oneshot::Sender<()>) {
    let mut inside = Some(inside);
    loop {
        let Ok(In { mut socket, .. }) = enter(&url, Join::presenter(secret.clone())).await else {
            tokio::time::sleep(AGAIN.0).await;
            continue;
        };
        if let Some(inside) = inside.take() {
            let _ = inside.send(());
        }
        while let Ok(message) = hear(&mut socket).await {
            if let ServerMessage::Picture(picture) = message {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.late_ms.push(picture.late_ms);
                seen.most_active = seen.most_active.max(picture.room.active);
            }
        }
    }
}
