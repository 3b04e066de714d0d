//! Connections that do nothing, or too little, or are too many.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Server, Setup, chat, streamed, until};
use crate::host::Host as _;
use crate::http::Limits;
use crate::http::connections::ConnectionLimits;

fn server(change: impl FnOnce(&mut ConnectionLimits)) -> Server {
    let short = Duration::from_millis(300);
    let mut connections = ConnectionLimits { idle: short, head: short, stall: short, ..ConnectionLimits::of(64) };
    change(&mut connections);
    let limits = Limits { max_body_bytes: 4096, body_time: short, connections, ..Limits::default() };
    Server::with(Setup { limits, ..Setup::default() })
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// Reads until the server closes the connection.
async fn until_closed(mut socket: TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut answer)).await;
    let _ = read.expect("the connection stays open");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn connections_that_say_nothing_or_never_finish_are_closed() {
    let server = server(|_| {});
    for begun in [
        "",
        "PRI * HTTP/2",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /health HT",
        "GET /health HTTP/1.1\r\nhost: localhost\r\n",
        "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ] {
        let mut socket = connect(&server).await;
        socket.write_all(begun.as_bytes()).await.unwrap();
        until_closed(socket).await;
    }
    // A body that does not come.
    let mut socket = connect(&server).await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{";
    socket.write_all(head.as_bytes()).await.unwrap();
    let answer = until_closed(socket).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");
}

#[tokio::test]
async fn a_head_that_comes_letter_by_letter_is_not_waited_for() {
    let server = server(|_| {});
    let (mut read, mut write) = connect(&server).await.into_split();
    let drip = async {
        for letter in "GET /health HTTP/1.1\r\nx: ".bytes().chain(std::iter::repeat(b'x')) {
            if write.write_all(&[letter]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = drip => {}
        _ = read.read_to_end(&mut answer) => {}
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("it is still waited for"),
    }
}

#[tokio::test]
async fn an_answer_that_takes_longer_is_no_idle_connection() {
    let server = server(|_| {});
    let mut response = server.post("/v1/chat/completions", &streamed("forever")).send().await.unwrap();
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(1200) {
        assert!(response.chunk().await.unwrap().is_some());
    }
    drop(response);
    until("the generation has stopped", async || server.host.load().active == 0).await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_loses_its_connection() {
    let server = server(|_| {});
    server.write("public/models/big.gguf", vec![7; 64 << 20]);
    let mut socket = connect(&server).await;
    socket.write_all(b"GET /models/big.gguf HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut got = 0;
    let mut piece = vec![0; 1 << 16];
    while let Ok(read @ 1..) = socket.read(&mut piece).await {
        got += read;
    }
    assert!(got < 64 << 20, "what was in the sockets, and no more: {got}");
}

#[tokio::test]
async fn idle_connections_make_room_for_those_that_ask() {
    let server = server(|limits| *limits = ConnectionLimits { total: 8, per_address: 8, ..ConnectionLimits::of(8) });
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(connect(&server).await);
    }
    assert_eq!(server.answer("/v1/chat/completions", &chat("count 1")).await.0, 200);
    // Where all are busy, one more is turned away, and those go on.
    let mut busy = Vec::new();
    for _ in 0..8 {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/v1/chat/completions", server.url);
        let mut response = client.post(url).json(&streamed("forever")).send().await.unwrap();
        response.chunk().await.unwrap().unwrap();
        busy.push(response);
    }
    let other = reqwest::Client::builder().no_proxy().build().unwrap();
    assert!(other.get(format!("{}/health", server.url)).send().await.is_err());
    for response in &mut busy {
        assert!(response.chunk().await.unwrap().is_some());
    }
    drop(busy);
    let url = format!("{}/health", server.url);
    until("there is room again", async || other.get(&url).send().await.is_ok()).await;
}
