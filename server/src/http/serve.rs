//! Accepts connections until told to stop, then finishes what has begun.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;

use super::router::router;
use super::{App, Phase};
use crate::tls::Identity;

/// After the streams have been cut off, connections get this long to carry the last words.
const LAST_WORDS: Duration = Duration::from_secs(1);

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
    let service = router(app.clone()).into_make_service();
    match identity {
        None => {
            let server = axum_server::from_tcp(listener)?.handle(handle.clone());
            until_drained(server.serve(service), &handle, &app, drain, shutdown).await
        }
        Some(identity) => {
            crate::tls::install_provider();
            let config = RustlsConfig::from_pem(identity.cert_pem, identity.key_pem).await?;
            let server = axum_server::from_tcp_rustls(listener, config)?.handle(handle.clone());
            until_drained(server.serve(service), &handle, &app, drain, shutdown).await
        }
    }
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
