//! Accepts connections until told to stop, then finishes what has begun.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tower::make::Shared;

use super::connections::{ConnectionLimits, Connections};
use super::router::service;
use super::{App, Phase};
use crate::tls::Identity;

/// After the streams have been cut off, connections get this long to carry the last words.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What is kept of an answer for a client that takes it slowly, and the longest head of a request.
const BUFFER_BYTES: usize = 64 << 10;
/// Requests at the same time on one connection of HTTP/2.
const STREAMS: u32 = 64;

/// Serves on `listener` until `shutdown` resolves; then takes no new connection and no new generation, gives what is
/// being written at most `drain`, cuts off the rest and returns.
///
/// # Errors
/// When the socket fails or the certificate cannot be used.
pub async fn run(
    listener: TcpListener,
    identity: Option<Identity>,
    app: App,
    drain: Duration,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let handle = Handle::<SocketAddr>::new();
    let limits = app.limits().connections;
    let connections = Connections::new(limits);
    let service = Shared::new(service(app.clone()));
    let server = axum_server::from_tcp(listener)?.handle(handle.clone());
    match identity {
        None => {
            let mut server = server.acceptor(connections);
            bound(server.http_builder(), limits);
            until_drained(server.serve(service), &handle, &app, drain, shutdown).await
        }
        Some(identity) => {
            crate::tls::install_provider();
            let config = RustlsConfig::from_pem(identity.cert_pem, identity.key_pem).await?;
            let mut server = server.acceptor(RustlsAcceptor::new(config).acceptor(connections));
            bound(server.http_builder(), limits);
            until_drained(server.serve(service), &handle, &app, drain, shutdown).await
        }
    }
}

/// Without a timer hyper's own limits do nothing.
fn bound(builder: &mut Builder<TokioExecutor>, limits: ConnectionLimits) {
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.idle)
        .keep_alive_timeout(limits.stall)
        .max_concurrent_streams(STREAMS)
        .max_send_buf_size(BUFFER_BYTES)
        .max_header_list_size(BUFFER_BYTES as u32);
}

async fn until_drained(
    serve: impl Future<Output = io::Result<()>>,
    handle: &Handle<SocketAddr>,
    app: &App,
    drain: Duration,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    tokio::pin!(serve);
    tokio::select! {
        result = &mut serve => return result,
        () = shutdown => {}
    }
    app.enter(Phase::Draining);
    handle.graceful_shutdown(Some(drain + LAST_WORDS));
    tokio::select! {
        result = &mut serve => result,
        () = tokio::time::sleep(drain) => {
            app.enter(Phase::Cut);
            serve.await
        }
    }
}
