//! Connections: how many there may be, and for how long one may do nothing.
//!
//! A connection is **busy** while a request of it is being answered or a WebSocket is open, and idle otherwise: between two requests, while a
//! request's head arrives, before the first byte. An idle one is closed after [`ConnectionLimits::idle`]; a busy one when
//! its client takes no byte for [`ConnectionLimits::stall`], or nothing of an answer that is ready for several times as long
//! (over HTTP/2 it can keep the bytes of pings moving and its window shut). Where all places are taken, a new connection gets the place of
//! the one that has been idle for longest, so that connections that do nothing keep nobody out.
//!
//! Deliberately absent: a request's own time. Reading its body is timed in [`super::json`]; an answer may take as long as
//! a model needs.

use std::collections::HashMap;
use std::future::{Ready, ready};
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::middleware::{AddExtension, Next};
use axum::response::Response;
use axum_server::accept::Accept;
use futures::task::AtomicWaker;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tower::Layer as _;

use super::guard::visitor;

/// So many times [`ConnectionLimits::stall`] may pass without a client asking for more of an answer: what it has of it is at most
/// 64 kB and a window.
const UNTAKEN_STALLS: u32 = 4;

/// How many connections there may be, and for how long one may do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Open at the same time.
    pub total: usize,
    /// Of those, from one address: a hall of people may share one.
    pub per_address: usize,
    /// Longest time without a request.
    pub idle: Duration,
    /// Longest time for a request's head.
    pub head: Duration,
    /// Longest time in which a client takes nothing of its answer.
    pub stall: Duration,
}

impl ConnectionLimits {
    /// The usual times, for so many connections.
    #[must_use]
    pub fn of(total: usize) -> Self {
        let second = Duration::from_secs;
        // One address never takes everything.
        let per_address = (total - total / 4).max(1);
        Self { total, per_address, idle: second(30), head: second(15), stall: second(30) }
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self::of(4096)
    }
}

/// One open connection.
#[derive(Debug)]
pub struct OpenConnection {
    visitor: IpAddr,
    /// Requests being answered, and when that last changed.
    use_: Mutex<(usize, Instant)>,
    /// Of each answer that waits for its client to take some of it: since when.
    untaken: Mutex<HashMap<u64, Instant>>,
    evicted: AtomicBool,
    waker: AtomicWaker,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OpenConnection {
    /// Since when it has done nothing; `None` while it is busy.
    fn idle_since(&self) -> Option<Instant> {
        let (requests, since) = *lock(&self.use_);
        (requests == 0).then_some(since)
    }

    /// For how long the client has taken nothing of some answer.
    fn untaken_for(&self) -> Option<Duration> {
        lock(&self.untaken).values().min().map(Instant::elapsed)
    }

    fn evict(&self) {
        self.evicted.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// All open connections.
#[derive(Clone, Debug)]
pub struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: ConnectionLimits,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    lines: HashMap<u64, Arc<OpenConnection>>,
    next: u64,
}

impl Connections {
    /// None yet.
    #[must_use]
    pub fn new(limits: ConnectionLimits) -> Self {
        Self(Arc::new(Inner { limits, open: Mutex::default() }))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.0.open).lines.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A place for a new connection; `None` where all are busy.
    fn place(&self, address: IpAddr) -> Option<(Arc<OpenConnection>, Place)> {
        let visitor = visitor(address);
        let mut open = lock(&self.0.open);
        let limits = self.0.limits;
        let of_visitor = open.lines.values().filter(|line| line.visitor == visitor).count();
        let only_own = of_visitor >= limits.per_address;
        if only_own || open.lines.len() >= limits.total {
            let (_, oldest) = open
                .lines
                .iter()
                .filter(|(_, line)| !only_own || line.visitor == visitor)
                .filter_map(|(id, line)| Some((line.idle_since()?, *id)))
                .min()?;
            open.lines.remove(&oldest)?.evict();
        }
        let line = Arc::new(OpenConnection {
            visitor,
            use_: Mutex::new((0, Instant::now())),
            untaken: Mutex::default(),
            evicted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        let id = open.next;
        open.next += 1;
        open.lines.insert(id, Arc::clone(&line));
        Some((line, Place { id, connections: self.clone() }))
    }
}

/// Gives the place back.
#[derive(Debug)]
struct Place {
    id: u64,
    connections: Connections,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.connections.0.open).lines.remove(&self.id);
    }
}

impl<S> Accept<TcpStream, S> for Connections {
    type Stream = Watched<TcpStream>;
    type Service = AddExtension<S, Arc<OpenConnection>>;
    type Future = Ready<Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        // Tokens are small: without this each would wait for the last one's receipt.
        let place = stream.set_nodelay(true).and_then(|()| stream.peer_addr()).map(|peer| self.place(peer.ip()));
        ready(match place {
            Ok(Some((line, place))) => {
                let service = axum::Extension(Arc::clone(&line)).layer(service);
                Ok((Watched::new(stream, line, place, self.0.limits), service))
            }
            Ok(None) => Err(Error::from(ErrorKind::ConnectionRefused)),
            Err(error) => Err(error),
        })
    }
}

/// A stream that ends by itself when nothing happens on it.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    line: Arc<OpenConnection>,
    idle: Duration,
    stall: Duration,
    idle_timer: Pin<Box<Sleep>>,
    stall_timer: Option<Pin<Box<Sleep>>>,
    _place: Place,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Watched<S> {
    fn new(stream: S, line: Arc<OpenConnection>, place: Place, limits: ConnectionLimits) -> Self {
        let idle_timer = Box::pin(tokio::time::sleep(limits.idle));
        let (idle, stall) = (limits.idle, limits.stall);
        Self { stream, line, idle, stall, idle_timer, stall_timer: None, _place: place }
    }

    /// Passes the outcome of a write on, unless nothing could be written for too long.
    fn timed<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<Result<T>>) -> Poll<Result<T>> {
        if outcome.is_ready() {
            self.stall_timer = None;
            return outcome;
        }
        let stall = self.stall;
        let timer = self.stall_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client takes nothing"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        this.line.waker.register(cx.waker());
        if this.line.evicted.load(Ordering::Acquire) {
            return Poll::Ready(Err(Error::new(ErrorKind::ConnectionAborted, "its place was needed")));
        }
        if let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(cx, buf) {
            return Poll::Ready(read);
        }
        while this.idle_timer.as_mut().poll(cx).is_ready() {
            let left = match this.line.idle_since().map(|since| since.elapsed()) {
                Some(idle) if idle >= this.idle => {
                    return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "nothing was asked")));
                }
                Some(idle) => this.idle - idle,
                None => match this.line.untaken_for() {
                    Some(untaken) if untaken >= UNTAKEN_STALLS * this.stall => {
                        return Poll::Ready(Err(Error::new(
                            ErrorKind::TimedOut,
                            "the client takes nothing of its answer",
                        )));
                    }
                    Some(untaken) => (UNTAKEN_STALLS * this.stall - untaken).min(this.idle),
                    None => this.idle,
                },
            };
            this.idle_timer.as_mut().reset(tokio::time::Instant::now() + left);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.timed(cx, outcome)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.timed(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_flush(cx);
        this.timed(cx, outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.timed(cx, outcome)
    }
}

/// Held while a request is answered, or a WebSocket is open.
pub(super) struct Busy(Arc<OpenConnection>);

impl Busy {
    pub(super) fn begin(line: Arc<OpenConnection>) -> Self {
        let mut use_ = lock(&line.use_);
        *use_ = (use_.0 + 1, Instant::now());
        drop(use_);
        Self(line)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut use_ = lock(&self.0.use_);
        *use_ = (use_.0.saturating_sub(1), Instant::now());
    }
}

/// Marks the request's connection as busy until its answer has been sent.
pub async fn mark(request: Request, next: Next) -> Response {
    let Some(line) = request.extensions().get::<Arc<OpenConnection>>().cloned() else { return next.run(request).await };
    let busy = Busy::begin(line);
    next.run(request).await.map(|body| Body::new(Counted::new(body, busy)))
}

/// An answer on its way. It waits for its client from when some of it is ready until more is asked for, and for us while more
/// is asked for and nothing is ready.
struct Counted {
    body: Body,
    busy: Busy,
    number: u64,
}

impl Counted {
    fn new(body: Body, busy: Busy) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let counted = Self { body, busy, number: NEXT.fetch_add(1, Ordering::Relaxed) };
        counted.wait_for_client(true);
        counted
    }

    fn wait_for_client(&self, waits: bool) {
        let mut untaken = lock(&self.busy.0.untaken);
        match waits {
            true => drop(untaken.insert(self.number, Instant::now())),
            false => drop(untaken.remove(&self.number)),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.wait_for_client(false);
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.wait_for_client(frame.is_ready());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_connection_takes_the_place_of_the_one_that_was_idle_longest() {
        let limits = ConnectionLimits { total: 3, per_address: 2, ..ConnectionLimits::default() };
        let connections = Connections::new(limits);
        let place = |last: u8| connections.place(IpAddr::from([10, 0, 0, last]));
        let (first, _first) = place(1).unwrap();
        let (second, _second) = place(1).unwrap();
        // A third of the same address.
        let (third, third_place) = place(1).unwrap();
        assert!(first.evicted.load(Ordering::Acquire) && !second.evicted.load(Ordering::Acquire));
        let (_fourth, _kept) = place(2).unwrap();
        let busy = [&second, &third].map(|line| Busy::begin(Arc::clone(line)));
        assert!(place(1).is_none(), "both of that address are busy");
        let (_fifth, _also) = place(3).unwrap();
        assert_eq!(connections.len(), 3, "the idle one of another address made room");
        drop(busy);
        drop(third_place);
        assert_eq!(connections.len(), 2);
    }

    #[tokio::test]
    async fn an_answer_waits_for_its_client_or_for_us() {
        let connections = Connections::new(ConnectionLimits::default());
        let (line, _place) = connections.place(IpAddr::from([10, 0, 0, 1])).unwrap();
        let (sender, receiver) = futures::channel::mpsc::unbounded::<Result<Bytes>>();
        let mut answer = Counted::new(Body::from_stream(receiver), Busy::begin(Arc::clone(&line)));
        let mut ask = || {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            Pin::new(&mut answer).poll_frame(&mut cx).is_ready()
        };
        assert!(line.untaken_for().is_some(), "nobody has asked for any of it");
        assert!(!ask() && line.untaken_for().is_none(), "more is asked for than there is");
        sender.unbounded_send(Ok(Bytes::from_static(b"a"))).unwrap();
        assert!(ask() && line.untaken_for().is_some(), "some of it is ready");
        assert!(!ask() && line.untaken_for().is_none());
        drop(answer);
        assert!(line.untaken_for().is_none() && line.idle_since().is_some());
    }
}
