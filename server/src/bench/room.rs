//! A hall of scripted phones in a live room: all join at once from one address, get a decision each slot, send their
//! measurements, and some are cut off again and again and come back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use client::protocol::rooms::RoomSettings;
use client::protocol::rooms::rest::{NewRoom, RoomMade};
use mec::world::nth_seed;
use reqwest::StatusCode;

use super::clients::client;
use super::room_phone::{Script, phone, presenter};
use super::room_report::{PhoneSeen, PresenterSeen, Report};
use super::serve::{LoadError, Server};

/// Between two looks at the server's memory.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What the hall does.
#[derive(Clone, Copy, Debug)]
pub struct Hall {
    /// Phones.
    pub phones: u16,
    /// Rooms that they are spread over.
    pub rooms: u16,
    /// How long they stay.
    pub time: Duration,
    /// Time from one slot to the next, seconds.
    pub period_s: f64,
    /// Share of the phones that is cut off in each interval.
    pub cut: f64,
    /// That interval.
    pub cut_every: Duration,
    /// When the server is killed and started again, if it is ours.
    pub kill_after: Option<Duration>,
    /// Seed of the room and of the cuts.
    pub seed: u64,
}

/// Where the hall meets.
#[derive(Debug)]
pub enum Place {
    /// At a server of its own.
    Own(Server),
    /// At another one.
    Url(String),
}

impl Place {
    fn url(&self) -> &str {
        match self {
            Self::Own(server) => server.url(),
            Self::Url(url) => url.trim_end_matches('/'),
        }
    }

    fn memory_mb(&self) -> f64 {
        match self {
            Self::Own(server) => server.memory_mb().unwrap_or(f64::NAN),
            Self::Url(_) => f64::NAN,
        }
    }
}

/// Lets a hall meet.
///
/// # Errors
/// There is no room to be had, or the server cannot be started again.
pub async fn meet(place: &mut Place, hall: &Hall) -> Result<Report, LoadError> {
    let url = format!("{}/api/rooms", place.url());
    let settings = RoomSettings { period_s: hall.period_s, ..RoomSettings::default() };
    let mut rooms = Vec::new();
    for n in 0..hall.rooms.max(1) {
        let request = NewRoom { seed: Some(hall.seed + u64::from(n)), settings: settings.clone() };
        let response = client()?.post(&url).json(&request).send().await?;
        let status = response.status();
        if status != StatusCode::CREATED {
            return Err(LoadError::Refused { url, status, answer: response.json().await.unwrap_or_default() });
        }
        rooms.push(Watched::begin(place, response.json().await?).await);
    }
    let before_mb = place.memory_mb();
    let began = Instant::now();
    let ends = began + hall.time;
    let phones: Vec<_> = (0..hall.phones)
        .map(|n| {
            let seed = nth_seed(hall.seed, u64::from(n));
            let Hall { cut, cut_every, .. } = *hall;
            let room = usize::from(n) % rooms.len();
            let url = rooms[room].url.clone();
            tokio::spawn(phone(Script { url, room, began, ends, cut, cut_every, seed }))
        })
        .collect();
    let mut kill_at = hall.kill_after.map(|after| began + after);
    let mut most_mb = before_mb;
    while Instant::now() < ends {
        tokio::time::sleep(LOOK_EVERY).await;
        most_mb = most_mb.max(place.memory_mb());
        if let (Place::Own(server), Some(_)) = (&mut *place, kill_at.take_if(|at| *at <= Instant::now())) {
            tokio::task::block_in_place(|| server.kill_and_restart())?;
        }
    }
    let mut seen = Vec::new();
    for phone in phones {
        seen.push(phone.await.unwrap_or_else(|error| PhoneSeen {
            refused: vec![format!("the script failed: {error}")],
            ..PhoneSeen::default()
        }));
    }
    let presenters = rooms.into_iter().map(Watched::end).collect();
    Ok(Report { period_s: hall.period_s, phones: seen, presenters, before_mb, most_mb })
}

/// A room with a presenter.
struct Watched {
    url: String,
    seen: Arc<Mutex<PresenterSeen>>,
    presenting: tokio::task::JoinHandle<()>,
}

impl Watched {
    async fn begin(place: &Place, room: RoomMade) -> Self {
        let url = format!("{}/ws/rooms/{}", place.url().replacen("http", "ws", 1), room.code);
        let (told, inside) = tokio::sync::oneshot::channel();
        let seen = Arc::new(Mutex::new(PresenterSeen::default()));
        let presenting = tokio::spawn(presenter(url.clone(), room.secret, Arc::clone(&seen), told));
        // Without a presenter there is only less to see.
        let _ = tokio::time::timeout(Duration::from_secs(20), inside).await;
        Self { url, seen, presenting }
    }

    fn end(self) -> PresenterSeen {
        self.presenting.abort();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
