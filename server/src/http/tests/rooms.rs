//! Live rooms over real WebSockets.

use std::path::Path;
use std::time::Duration;

use client::protocol::rooms::down::{ServerMessage, Snapshot, Welcome};
use client::protocol::rooms::rest::{CSV_COLUMNS, RoomExport, RoomMade};
use client::protocol::rooms::up::{Command, Join, Telemetry};
use client::protocol::rooms::{ClientMessage, CloseReason, Part, ROOM_VERSION, RoomSettings};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::*;
use crate::rooms::state::MEMBERS;

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn open(server: &Server, code: &str) -> Self {
        let url = format!("{}/ws/rooms/{code}", server.url.replacen("http", "ws", 1));
        Self(connect_async(url).await.unwrap().0)
    }

    async fn join(server: &Server, code: &str, join: Join) -> (Self, Welcome, Snapshot) {
        let mut socket = Self::open(server, code).await;
        socket.say(&ClientMessage::Join(join)).await;
        let ServerMessage::Welcome(welcome) = socket.next().await else { panic!("no welcome") };
        let ServerMessage::Snapshot(snapshot) = socket.next().await else { panic!("no snapshot") };
        (socket, welcome, *snapshot)
    }

    async fn phone(server: &Server, code: &str) -> (Self, Welcome) {
        let (socket, welcome, _) = Self::join(server, code, Join::phone(None, None, Some(Part::Model))).await;
        (socket, welcome)
    }

    async fn presenter(server: &Server, room: &RoomMade) -> Self {
        Self::join(server, &room.code, Join::presenter(room.secret.clone())).await.0
    }

    async fn say(&mut self, message: &ClientMessage) {
        self.send(Message::text(serde_json::to_string(message).unwrap())).await;
    }

    async fn command(&mut self, command: Command) {
        self.say(&ClientMessage::Command(command)).await;
    }

    async fn send(&mut self, message: Message) {
        // Whoever is being cut off cannot say more; the close code tells.
        let _ = self.0.send(message).await;
    }

    /// The next message, or the close code.
    async fn hear(&mut self) -> Result<ServerMessage, u16> {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(10), self.0.next()).await.expect("nothing came");
            match next {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map_or(1000, |frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(1006),
            }
        }
    }

    async fn next(&mut self) -> ServerMessage {
        self.hear().await.unwrap()
    }

    /// The first message that fits.
    async fn wait<T>(&mut self, mut fits: impl FnMut(ServerMessage) -> Option<T>) -> T {
        for _ in 0..2000 {
            if let Some(found) = fits(self.next().await) {
                return found;
            }
        }
        panic!("it did not come");
    }

    async fn decision(&mut self) -> u64 {
        self.wait(|message| if let ServerMessage::Decision(decision) = message { Some(decision.slot) } else { None })
            .await
    }

    /// The close code, whatever comes before it.
    async fn end(&mut self) -> u16 {
        loop {
            if let Err(code) = self.hear().await {
                return code;
            }
        }
    }
}

fn with_rooms(folder: &Path) -> Server {
    Server::with(Setup { rooms: Some(folder.to_owned()), ..Setup::default() })
}

async fn make(server: &Server) -> RoomMade {
    let response =
        server.post("/api/rooms", &json!({ "seed": 7, "settings": { "period_s": 0.2 } })).send().await.unwrap();
    assert_eq!(response.status(), 201);
    response.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_has_a_close_code_and_nobody_else_notices() {
    let folder = tempfile::tempdir().unwrap();
    let server = with_rooms(folder.path());
    let room = make(&server).await;
    let (mut bystander, own) = Socket::phone(&server, &room.code).await;
    let first = bystander.decision().await;
    let text = |text: &str| vec![Message::text(text)];
    let join = |join: Join| text(&serde_json::to_string(&ClientMessage::Join(join)).unwrap());
    let joined = |then: Vec<Message>| [join(Join::phone(None, None, None)), then].concat();
    let resync = Message::text(r#"{"type":"resync"}"#);
    let code = room.code.as_str();
    let cases: Vec<(&str, &str, Vec<Message>, CloseReason)> = vec![
        ("no JSON", code, text("hello"), CloseReason::BadMessage),
        ("no join", code, text(r#"{"type":"leave"}"#), CloseReason::NoJoin),
        ("a version from the future", code, text(r#"{"type":"join","version":99,"new":{}}"#), CloseReason::Version),
        ("no such role", code, text(r#"{"type":"join","version":2,"role":"x"}"#), CloseReason::BadMessage),
        ("binary", code, vec![Message::binary(vec![1, 2, 3])], CloseReason::BadMessage),
        ("1 MB at once", code, text(&"x".repeat(1 << 20)), CloseReason::TooLarge),
        ("a code of no room", "222222", join(Join::phone(None, None, None)), CloseReason::NoRoom),
        ("a code that is none", "..%2f..", join(Join::phone(None, None, None)), CloseReason::NoRoom),
        ("a wrong secret", code, join(Join::presenter("guess".to_owned())), CloseReason::Forbidden),
        ("a code as secret", code, join(Join::presenter(room.code.clone())), CloseReason::Forbidden),
        ("an unknown token", code, join(Join::phone(Some("0".repeat(32)), None, None)), CloseReason::UnknownToken),
        (
            "a command without the secret",
            code,
            joined(text(r#"{"type":"command","do":"close"}"#)),
            CloseReason::Forbidden,
        ),
        ("wrong JSON later", code, joined(text("{")), CloseReason::BadMessage),
        ("an unknown message", code, joined(text(r#"{"type":"dance"}"#)), CloseReason::BadMessage),
        ("a wrong type", code, joined(text(r#"{"type":"place","x_m":"far","y_m":1}"#)), CloseReason::BadMessage),
        ("deep nesting", code, joined(text(&"[".repeat(10_000))), CloseReason::BadMessage),
        ("two joins", code, joined(join(Join::phone(None, None, None))), CloseReason::BadMessage),
        ("1 MB later", code, joined(text(&"x".repeat(1 << 20))), CloseReason::TooLarge),
        ("a flood", code, joined(vec![resync; 200]), CloseReason::Flood),
    ];
    for (what, code, messages, reason) in cases {
        let mut socket = Socket::open(&server, code).await;
        for message in messages {
            socket.send(message).await;
        }
        assert_eq!(CloseReason::of_code(socket.end().await), Some(reason), "{what}");
    }
    // Every slot meanwhile, none twice.
    for slot in first + 1..first + 20 {
        assert_eq!(bystander.decision().await, slot);
    }
    let known = server
        .get(&format!("/api/rooms/{}", room.code))
        .send()
        .await
        .unwrap()
        .json::<serde_json::Value>()
        .await
        .unwrap();
    assert_eq!(known["version"], ROOM_VERSION);
    assert_eq!(own.seat.unwrap().mlu, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_more_than_a_room_holds_is_told_so_and_nobody_else_notices() {
    let folder = tempfile::tempdir().unwrap();
    let server = with_rooms(folder.path());
    let room = make(&server).await;
    let mut presenter = Socket::presenter(&server, &room).await;
    let (mut first, welcome) = Socket::phone(&server, &room.code).await;
    let from = first.decision().await;
    presenter.command(Command::Rehearse { phones: MEMBERS as u32 - 2 }).await;
    // The presenter sees the rehearsal take its seats, and one more phone fits.
    let active = |message: ServerMessage, wanted: u32| match message {
        ServerMessage::Picture(picture) if picture.room.active == wanted => Some(()),
        _ => None,
    };
    presenter.wait(|message| active(message, MEMBERS as u32 - 1)).await;
    let (last, _) = Socket::phone(&server, &room.code).await;
    presenter.wait(|message| active(message, MEMBERS as u32)).await;
    for _ in 0..3 {
        let mut late = Socket::open(&server, &room.code).await;
        late.say(&ClientMessage::Join(Join::phone(None, None, None))).await;
        assert_eq!(CloseReason::of_code(late.end().await), Some(CloseReason::Full));
    }
    // Whoever has a seat comes back to it, however full the room is.
    let (mut again, back, _) = Socket::join(&server, &room.code, Join::phone(welcome.token, None, None)).await;
    assert_eq!((back.returned, back.seat.unwrap().mlu), (true, 1));
    assert_eq!(CloseReason::of_code(first.end().await), Some(CloseReason::Replaced));
    let since = again.decision().await;
    assert!(since > from);
    for slot in since + 1..since + 5 {
        assert_eq!(again.decision().await, slot, "no slot is left out");
    }
    // A seat that was given up is the next one's.
    let mut last = last;
    last.say(&ClientMessage::Leave).await;
    last.end().await;
    let (_next, next) = Socket::phone(&server, &room.code).await;
    assert!(!next.returned);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_knows_everyone() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = with_rooms(folder.path());
    let room = make(&server).await;
    let (mut first, welcome) = Socket::phone(&server, &room.code).await;
    let (_second, _) = Socket::phone(&server, &room.code).await;
    let mut presenter = Socket::presenter(&server, &room).await;
    first.say(&ClientMessage::Name { name: "Ada".to_owned() }).await;
    presenter.command(Command::StartRound { questions: vec!["Who?".to_owned()], seconds: 600 }).await;
    first.wait(|message| if let ServerMessage::Round(round) = message { Some(round) } else { None }).await;
    let before = first.decision().await + 2;
    while first.decision().await < before {}
    server.stop();
    assert_eq!(CloseReason::of_code(first.end().await), Some(CloseReason::GoingDown));
    assert_eq!(CloseReason::of_code(presenter.end().await), Some(CloseReason::GoingDown));
    server.rooms.finish_shutdown(Duration::from_secs(5)).await;
    server.task.await.unwrap().unwrap();

    let server = with_rooms(folder.path());
    let (mut first, again, snapshot) =
        Socket::join(&server, &room.code, Join::phone(welcome.token.clone(), None, None)).await;
    let (seat, old) = (again.seat.unwrap(), welcome.seat.unwrap());
    assert!(again.returned);
    assert_eq!((seat.mlu, seat.name.as_str(), seat.cell, seat.x_m), (old.mlu, "Ada", old.cell, old.x_m));
    let round = snapshot.round.unwrap();
    assert!(round.open && round.question_of(seat.mlu) == Some("Who?"));
    assert!(first.decision().await >= before, "slots go on");
    let (_, _, seen) = Socket::join(&server, &room.code, Join::presenter(room.secret.clone())).await;
    assert_eq!((seen.members.len(), seen.seed), (2, 7));
    // A new device is a new one.
    let (_third, third) = Socket::phone(&server, &room.code).await;
    assert_eq!((third.seat.unwrap().mlu, third.returned), (3, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_presenter_steers_and_the_phones_feel_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = with_rooms(folder.path());
    let room = make(&server).await;
    let mut presenter = Socket::presenter(&server, &room).await;
    let (mut phone, welcome) = Socket::phone(&server, &room.code).await;
    let joined =
        presenter.wait(|message| if let ServerMessage::Member(member) = message { Some(member) } else { None }).await;
    assert_eq!((joined.mlu, joined.name.as_str(), joined.cell), (1, "MLU 1", 1));
    let seat = |message| if let ServerMessage::Seat(seat) = message { Some(seat) } else { None };
    presenter.command(Command::Rename { mlu: 1, name: "Bob".to_owned() }).await;
    assert_eq!(phone.wait(seat).await.name, "Bob");
    presenter.command(Command::Move { mlu: 1, cell: 9 }).await;
    let why =
        presenter.wait(|message| if let ServerMessage::Refused { why } = message { Some(why) } else { None }).await;
    assert!(why.contains("no cell 9"), "{why}");
    phone.say(&ClientMessage::Telemetry(Telemetry { tokens_per_s: Some(12.5), ..Telemetry::default() })).await;
    let numbers = presenter
        .wait(|message| match message {
            ServerMessage::Picture(picture) if picture.room.phones_tokens_per_s > 0.0 => Some(picture.room),
            _ => None,
        })
        .await;
    assert_eq!((numbers.phones_tokens_per_s, numbers.server_tokens_per_s, numbers.active), (12.5, Some(50.0), 1));
    assert!(numbers.latency_median_s.is_some_and(|latency| latency > 0.0 && latency < 10.0));
    // Sliders are felt in the next slot: no bandwidth to speak of, and little is worth sending.
    let settings = RoomSettings { period_s: 0.2, locked: true, ..RoomSettings::default() };
    presenter.command(Command::Settings(settings.clone())).await;
    phone.wait(|message| matches!(message, ServerMessage::Settings(_)).then_some(())).await;
    let mut stranger = Socket::open(&server, &room.code).await;
    stranger.say(&ClientMessage::Join(Join::phone(None, None, None))).await;
    assert_eq!(CloseReason::of_code(stranger.end().await), Some(CloseReason::Locked));
    // Whoever is known comes back all the same, and takes its own place.
    let token = welcome.token.clone();
    let (mut again, back, _) = Socket::join(&server, &room.code, Join::phone(token.clone(), None, None)).await;
    assert_eq!(
        (back.seat.unwrap().name.as_str(), CloseReason::of_code(phone.end().await)),
        ("Bob", Some(CloseReason::Replaced))
    );
    again.decision().await;
    presenter.command(Command::Mute { mlu: 1, muted: true }).await;
    assert!(again.wait(seat).await.muted);
    presenter.command(Command::Remove { mlu: 1 }).await;
    assert_eq!(CloseReason::of_code(again.end().await), Some(CloseReason::Removed));
    let mut banned = Socket::open(&server, &room.code).await;
    banned.say(&ClientMessage::Join(Join::phone(token, None, None))).await;
    assert_eq!(CloseReason::of_code(banned.end().await), Some(CloseReason::Removed));
    presenter.command(Command::Close).await;
    assert_eq!(CloseReason::of_code(presenter.end().await), Some(CloseReason::RoomClosed));
    until("the room is gone", async || {
        server.get(&format!("/api/rooms/{}", room.code)).send().await.unwrap().status() == 404
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_are_exported_to_whoever_has_the_secret() {
    let folder = tempfile::tempdir().unwrap();
    let server = with_rooms(folder.path());
    let room = make(&server).await;
    let (mut phone, _) = Socket::phone(&server, &room.code).await;
    while phone.decision().await < 4 {}
    let address = |ending: &str| format!("/api/rooms/{}/slots.{ending}", room.code);
    for secret in ["", "Bearer guess", "Bearer", &room.secret] {
        let response = server.get(&address("csv")).header("authorization", secret).send().await.unwrap();
        assert_eq!(response.status(), 403, "{secret}");
    }
    let get = async |ending: &str| server.get(&address(ending)).bearer_auth(&room.secret).send().await.unwrap();
    // The last slot is written after it was sent.
    until("slots are written", async || get("csv").await.text().await.unwrap().lines().count() > 4).await;
    let csv = get("csv").await.text().await.unwrap();
    let mut lines = csv.lines();
    assert_eq!(lines.next().unwrap(), CSV_COLUMNS.join(","));
    for (slot, line) in lines.enumerate() {
        let fields: Vec<&str> = line.split(',').collect();
        assert_eq!(
            (fields.len(), fields[0].parse().ok(), fields[2]),
            (CSV_COLUMNS.len(), Some(slot), "policy"),
            "{line}"
        );
    }
    let response = get("json").await;
    assert_eq!(response.headers()["content-disposition"], format!("attachment; filename=\"room-{}.json\"", room.code));
    let export: RoomExport = response.json().await.unwrap();
    assert_eq!((export.seed, export.version, export.slots[3].slot), (7, ROOM_VERSION, 3));
    assert!(export.slots[3].cells[0].mlus[0].gain > 0.0);
    let deleted = server.client.delete(format!("{}/api/rooms/{}", server.url, room.code));
    assert_eq!(deleted.try_clone().unwrap().send().await.unwrap().status(), 403);
    assert_eq!(deleted.bearer_auth(&room.secret).send().await.unwrap().status(), 204);
    assert_eq!(CloseReason::of_code(phone.end().await), Some(CloseReason::RoomClosed));
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_for_own_pages_and_outlive_idle_connections() {
    let folder = tempfile::tempdir().unwrap();
    let mut limits = Setup::default().limits;
    limits.connections.idle = Duration::from_millis(300);
    let server = Server::with(Setup { rooms: Some(folder.path().to_owned()), limits, ..Setup::default() });
    let room = make(&server).await;
    let url = format!("{}/ws/rooms/{}", server.url.replacen("http", "ws", 1), room.code);
    let mut request = url.as_str().into_client_request().unwrap();
    request.headers_mut().insert("origin", "http://evil.example".parse().unwrap());
    let Err(Error::Http(refused)) = connect_async(request).await else { panic!("a foreign page was let in") };
    assert_eq!(refused.status(), 403);
    let mut request = url.as_str().into_client_request().unwrap();
    request.headers_mut().insert("origin", server.url.parse().unwrap());
    assert!(connect_async(request).await.is_ok());
    assert_eq!(server.get(&format!("/ws/rooms/{}", room.code)).send().await.unwrap().status(), 400);
    let (mut phone, _) = Socket::phone(&server, &room.code).await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    let first = phone.decision().await;
    let mut last = first;
    while last < first + 8 {
        last = phone.decision().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_room_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let server = with_rooms(folder.path());
    for (body, status, says) in [
        (json!({ "settings": { "period_s": 60 } }), 400, "slot period"),
        (json!({ "settings": { "values": { "users": 3 } } }), 400, "room's own"),
        (json!({ "seed": 1u64 << 53 }), 400, "2^53"),
        (json!({ "sead": 1 }), 400, "sead"),
    ] {
        let (got, answer) = server.answer("/api/rooms", &body).await;
        assert_eq!(got, status, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(says), "{answer}");
    }
    let none = Server::start();
    assert_eq!(none.answer("/api/rooms", &json!({})).await.0, 403);
    for _ in 0..crate::rooms::registry::ROOMS {
        assert_eq!(server.answer("/api/rooms", &json!({})).await.0, 201);
    }
    let (status, answer) = server.answer("/api/rooms", &json!({})).await;
    assert_eq!((status, answer["error"]["code"].as_str()), (503, Some("too_many_rooms")));
}
