//! `tandem serve`: the page, the models and the API on one address.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use fast_qr::qr::QRBuilder;

use crate::host::encoder::BertEncoder;
use crate::host::load::{self, LoadError};
use crate::host::local::{self, LocalConfig, LocalHost};
use crate::host::upstream::{UpstreamConfig, UpstreamHost};
use crate::host::{Embedder, Host};
use crate::http::connections::ConnectionLimits;
use crate::http::files::Files;
use crate::http::files::source::Source;
use crate::http::guard::Hosts;
use crate::http::{App, Limits, Parts, serve};
use crate::hub::{Hub, HubConfig};
use crate::runs::{Runs, RunsConfig};
use crate::tls::{self, Identity};

mod args;
mod log;

pub use args::{Args, HubArgs, TrainingArgs};

/// Slots of the model here, and of an engine upstream, which answers many at a time.
const LOCAL_SLOTS: u16 = 8;
const UPSTREAM_SLOTS: u16 = 16;
/// Files that stay free for the service itself: models, runs, logs, an engine upstream.
const RESERVED_FILES: u64 = 256;
/// Files that one connection may hold: itself, and a file that is sent or a connection to an engine.
const FILES_PER_CONNECTION: u64 = 2;
/// Longest silence of a model hub.
const HUB_SILENCE: Duration = Duration::from_secs(20);
/// Where the page lies when `--page` is not given.
const DEFAULT_PAGE: &str = "dist";

/// Serves until Ctrl-C.
///
/// # Errors
/// When the address cannot be used, or a model, an encoder, a certificate or a folder cannot be read.
pub fn run(args: Args) -> anyhow::Result<()> {
    log::init();
    // The address first: a port that is taken should not cost the time to load a model.
    let listener = listen(&args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the async runtime")?;
    let result = runtime.block_on(serve_on(listener, args));
    // A file that is still being compressed is nobody's loss: it must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn serve_on(listener: TcpListener, args: Args) -> anyhow::Result<()> {
    let address = listener.local_addr().context("the listening address")?;
    let identity = identity(&args)?;
    let drain = Duration::from_secs(args.drain);
    let app = App::new(parts(&args, address.ip()).await?);
    let files = app.files().clone();
    tokio::spawn(async move { files.warm().await });
    let runs = app.runs().clone();
    let ending = runs.clone();
    let stopped = async move {
        stopped().await;
        ending.begin_shutdown();
    };
    // What happens between the line below and the first accepted connection waits in the socket's backlog.
    announce(address, identity.as_ref());
    serve::run(listener, identity, app, drain, stopped).await.context("the server stopped")?;
    tokio::task::spawn_blocking(move || runs.finish_shutdown(drain)).await.context("the training runs")?;
    tracing::info!("stopped");
    Ok(())
}

fn listen(args: &Args) -> anyhow::Result<TcpListener> {
    let wrong = || format!("--listen {}: an address and a port are needed, such as 127.0.0.1:8080", args.listen);
    let mut address = args.listen.to_socket_addrs().with_context(wrong)?.next().with_context(wrong)?;
    if args.lan && address.ip().is_loopback() {
        address.set_ip(Ipv4Addr::UNSPECIFIED.into());
    }
    TcpListener::bind(address).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => anyhow::anyhow!(
            "port {} is in use; stop the program that uses it, or choose another one: --listen {}:0 takes a free one",
            address.port(),
            address.ip()
        ),
        ErrorKind::PermissionDenied => {
            anyhow::anyhow!("port {} is for administrators only; choose one above 1023 with --listen", address.port())
        }
        ErrorKind::AddrNotAvailable => anyhow::anyhow!("{} is not an address of this machine", address.ip()),
        _ => anyhow::Error::new(error).context(format!("cannot listen on {address}")),
    })
}

fn identity(args: &Args) -> anyhow::Result<Option<Identity>> {
    if let (Some(cert), Some(key)) = (&args.cert, &args.key) {
        return Ok(Some(Identity::from_files(cert, key)?));
    }
    if !args.lan {
        return Ok(None);
    }
    let folder = args.data.clone().or_else(data_folder).context("no data folder is known; name one with --data")?;
    Ok(Some(Identity::kept_or_new(&folder.join("tls"), &tls::lan_addresses(), SystemTime::now())?))
}

/// The user's data folder, by the customs of the system.
fn data_folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = variable("XDG_DATA_HOME").or_else(|| variable("LOCALAPPDATA")).or_else(|| {
        Some(variable("HOME")?.join(if cfg!(target_os = "macos") {
            "Library/Application Support"
        } else {
            ".local/share"
        }))
    });
    Some(base?.join("tandem"))
}

async fn parts(args: &Args, listen: IpAddr) -> anyhow::Result<Parts> {
    for (flag, folder) in [("--page", &args.page), ("--public", &args.public)] {
        if let Some(folder) = folder
            && !folder.is_dir()
        {
            anyhow::bail!("{flag} {}: there is no such folder", folder.display());
        }
    }
    let page = args.page.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_PAGE));
    if !page.join("index.html").is_file() {
        tracing::warn!("{} holds no page yet; / says how to build one", page.display());
    }
    let files = Files::new(Some(page), args.public.clone());
    let encoder: Option<Arc<dyn Embedder>> = match &args.encoder {
        Some(folder) => Some(Arc::new(BertEncoder::open(folder)?)),
        None => None,
    };
    let (host, own): (Arc<dyn Host>, _) = match &args.upstream {
        Some(url) => {
            let host = upstream(url, args).await?;
            // The upstream engine gives no token-by-token embeddings; the shipped model does, where there is one.
            let own = if encoder.is_some() { None } else { shipped_embedder(files.public()) };
            (host, own)
        }
        None => {
            let threads = args.threads.map_or_else(system_threads, usize::from);
            let threads = engine::cpu::set_threads(threads);
            tracing::debug!(threads, "a pass is computed together");
            let config = LocalConfig {
                slots: args.slots.unwrap_or(LOCAL_SLOTS).into(),
                queue: args.queue.into(),
                prefix_bytes: args.prefix_cache,
            };
            let host = local_host(args.model.as_deref(), files.public(), config)?;
            let embedder = local::as_embedder(&host);
            (host, Some(embedder))
        }
    };
    let connections = ConnectionLimits::of(connections_for(args.max_connections));
    let limits = Limits { max_body_bytes: args.max_body, connections, ..Limits::default() };
    let runs = training_runs(args)?;
    let hub = hub(args)?;
    // What is listened on by name is reached by that name.
    let listened = args.listen.rsplit_once(':').map(|(name, _)| name.to_owned());
    let names: Vec<String> = args.host.iter().cloned().chain(listened).collect();
    let hosts = Hosts::new(listen, &names);
    let cors_origins = args.cors_origin.clone();
    Ok(Parts { host, embedder: encoder.or(own), files, runs, hub, limits, hosts, cors_origins })
}

/// Raises the limit of open files for so many connections; where the system allows fewer, fewer connections are taken, so
/// that the service itself never runs out.
fn connections_for(wanted: u32) -> usize {
    let needed = u64::from(wanted) * FILES_PER_CONNECTION + RESERVED_FILES;
    // Where the limit is not known there is none.
    let allowed = rlimit::increase_nofile_limit(needed).unwrap_or(needed);
    let connections = fitting(u64::from(wanted), allowed);
    if connections < u64::from(wanted) {
        tracing::warn!(allowed, connections, "few files may be open (ulimit -n); fewer connections are taken");
    }
    usize::try_from(connections).unwrap_or(usize::MAX)
}

fn fitting(wanted: u64, files: u64) -> u64 {
    // However few there are, somebody has to be let in.
    (files.saturating_sub(RESERVED_FILES) / FILES_PER_CONNECTION).clamp(8, wanted.max(8))
}

/// The hub, where one is named.
fn hub(args: &Args) -> anyhow::Result<Option<Hub>> {
    let Some(base) = args.hub.hub.clone() else { return Ok(None) };
    let usual = || args.data.clone().or_else(data_folder).map(|data| data.join("hub"));
    let dir =
        args.hub.hub_cache.clone().or_else(usual).context("no data folder is known; name one with --hub-cache")?;
    let config = HubConfig {
        base,
        hosts: args.hub.hub_host.clone(),
        token: args.hub.hub_key.clone(),
        dir,
        max_file_bytes: args.hub.hub_max_file,
        max_cache_bytes: args.hub.hub_max_cache,
        silence: HUB_SILENCE,
    };
    Ok(Some(Hub::new(config).context("--hub")?))
}

/// The training runs. A folder that was asked for has to work; without the usual one the server does all but train.
fn training_runs(args: &Args) -> anyhow::Result<Runs> {
    let training = &args.training;
    let usual = || args.data.clone().or_else(data_folder).map(|data| data.join("runs"));
    let Some(dir) = training.runs.clone().or_else(usual) else {
        return Ok(Runs::none("no data folder is known; name one with --runs."));
    };
    let off = training.no_training.then(|| "it was started with --no-training.".to_owned());
    let config = RunsConfig { dir, limits: training.limits(), threads: training.train_threads.into(), off };
    match Runs::open(config) {
        Ok(runs) => Ok(runs),
        Err(error) if training.runs.is_some() => Err(anyhow::Error::new(error).context("--runs")),
        Err(error) => {
            tracing::warn!(%error, "no training runs; --runs DIR names another folder");
            Ok(Runs::none(format!("{error}.")))
        }
    }
}

/// Threads that this machine runs at once.
fn system_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn local_host(model: Option<&Path>, public: &Source, config: LocalConfig) -> anyhow::Result<Arc<LocalHost>> {
    let (engine, card) = match model {
        Some(path) => load::from_path(path)?,
        None => load::shipped(public)?,
    };
    let info = engine.info();
    tracing::info!(
        model = card.name,
        parameters = info.parameters,
        quantisation = info.quantisation,
        context = info.context,
        slots = config.slots,
        queue = config.queue,
        "the full model is loaded"
    );
    Ok(Arc::new(LocalHost::start(engine, card, config)?))
}

fn shipped_embedder(public: &Source) -> Option<Arc<dyn Embedder>> {
    let config = LocalConfig { slots: 1, queue: 64, prefix_bytes: 0 };
    let loaded = load::shipped(public).and_then(|(engine, card)| {
        LocalHost::start(engine, card, config).map_err(|error| LoadError::NotShipped { why: error.to_string() })
    });
    match loaded {
        Ok(host) => Some(local::as_embedder(&Arc::new(host))),
        Err(error) => {
            tracing::warn!(%error, "no embeddings and no similarity; --encoder DIR provides them");
            None
        }
    }
}

async fn upstream(url: &str, args: &Args) -> anyhow::Result<Arc<dyn Host>> {
    let host = UpstreamHost::new(UpstreamConfig {
        url: url.to_owned(),
        model: args.upstream_model.clone(),
        api_key: args.upstream_key.clone(),
        connect_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(args.upstream_timeout.max(1)),
        slots: args.slots.unwrap_or(UPSTREAM_SLOTS).into(),
        queue: args.queue.into(),
    })?;
    match host.discover().await {
        Ok(card) => tracing::info!(model = card.id, "the upstream engine answers"),
        // It may be started later.
        Err(error) => tracing::warn!(%error, "the upstream engine does not answer yet"),
    }
    Ok(Arc::new(host))
}

/// Says where the page is. Other programs read the first line.
fn announce(address: SocketAddr, identity: Option<&Identity>) {
    let urls = urls(address, identity.is_some(), &tls::lan_addresses());
    if let Some(first) = urls.first() {
        println!("Tandem is ready at {first}");
    }
    for url in urls.iter().skip(1) {
        println!("                or {url}");
    }
    let Some(identity) = identity else { return };
    if let Some(fingerprint) = &identity.fingerprint {
        println!("The certificate is self-signed; browsers warn once. Its SHA-256 fingerprint:\n  {fingerprint}");
    }
    // The last URL that another device can open is the one for the phone.
    let reachable = urls.iter().find(|url| !url.contains("//127.0.0.1:") && !url.contains("//[::1]:"));
    if let Some(url) = reachable
        && let Ok(code) = QRBuilder::new(url.as_str()).build()
    {
        println!("\n{}\n{url}", code.to_str());
    }
}

/// The addresses to print: the one for this machine first, then those for others.
fn urls(address: SocketAddr, has_tls: bool, lan: &[IpAddr]) -> Vec<String> {
    let scheme = if has_tls { "https" } else { "http" };
    let port = address.port();
    let url = |ip: IpAddr| format!("{scheme}://{}/", SocketAddr::new(ip, port));
    if !address.ip().is_unspecified() {
        return vec![url(address.ip())];
    }
    let is_reachable = |ip: &&IpAddr| ip.is_ipv4() || address.is_ipv6();
    std::iter::once(Ipv4Addr::LOCALHOST.into()).chain(lan.iter().filter(is_reachable).copied()).map(url).collect()
}

/// Resolves at the first Ctrl-C (or SIGTERM); the second one ends the process at once.
async fn stopped() {
    signal().await;
    eprintln!("Finishing what has begun; press Ctrl-C again to stop at once.");
    tokio::spawn(async {
        signal().await;
        std::process::exit(130);
    });
}

async fn signal() {
    let interrupt = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "Ctrl-C cannot be heard");
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut terminated) => {
                terminated.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    #[derive(Debug, clap::Parser)]
    struct Alone {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        Alone::try_parse_from([&["serve"], words].concat()).unwrap().args
    }

    #[test]
    fn serve_is_the_default_command() {
        for words in [&["tandem"][..], &["tandem", "--listen", "127.0.0.1:0"], &["tandem", "serve", "--lan"]] {
            assert!(Cli::try_parse_from(words).is_ok(), "{words:?}");
        }
        // Ids that are used twice, requirements of options that are none: clap's own check.
        <Cli as clap::CommandFactory>::command().debug_assert();
        for words in [
            &["tandem", "--slots", "0"][..],
            &["tandem", "--cert", "c"],
            &["tandem", "--model", "m", "--upstream", "u"],
        ] {
            assert!(Cli::try_parse_from(words).is_err(), "{words:?}");
        }
    }

    /// Every option with a value that it takes, and those that it needs.
    #[test]
    fn every_option_is_taken_and_says_its_own() {
        let options: Vec<clap::Arg> = <Alone as clap::CommandFactory>::command().get_arguments().cloned().collect();
        assert!(options.len() > 30, "{}", options.len());
        for option in options {
            let Some(name) = option.get_long().filter(|name| *name != "help") else { continue };
            let value = match name {
                "listen" => "127.0.0.1:0",
                _ if option.get_action().takes_values() => "9",
                _ => "",
            };
            let flag = format!("--{name}");
            let mut words = vec![flag.as_str()];
            words.extend((!value.is_empty()).then_some(value));
            match name {
                "cert" => words.extend(["--key", "k"]),
                "key" => words.extend(["--cert", "c"]),
                "upstream-model" | "upstream-key" => words.extend(["--upstream", "u"]),
                "hub-host" | "hub-key" => words.extend(["--hub", "h"]),
                _ => {}
            }
            let read = Alone::try_parse_from([&["serve"][..], words.as_slice()].concat());
            assert!(read.is_ok(), "{words:?}: {}", read.unwrap_err());
        }
        // Two of them once shared an id: the hub's token was taken for the file of a private key.
        let both = args(&["--cert", "c", "--key", "k", "--hub", "h", "--hub-key", "token"]);
        assert_eq!((both.key.unwrap(), both.hub.hub_key.as_deref()), (PathBuf::from("k"), Some("token")));
        assert!(Alone::try_parse_from(["serve", "--cert", "c", "--hub", "h", "--hub-key", "t"]).is_err());
    }

    #[test]
    fn files_are_kept_in_reserve() {
        assert_eq!((fitting(4096, 1 << 20), fitting(4096, 1024), fitting(4096, 100), fitting(8, 9)), (4096, 384, 8, 8));
        assert!(connections_for(16) >= 8);
    }

    #[test]
    fn urls_for_this_machine_and_for_others() {
        let lan: [IpAddr; 2] = ["192.168.1.5".parse().unwrap(), "2001:db8::5".parse().unwrap()];
        for (address, has_tls, expect) in [
            ("127.0.0.1:8080", false, &["http://127.0.0.1:8080/"][..]),
            ("[::1]:80", false, &["http://[::1]:80/"]),
            ("0.0.0.0:8080", true, &["https://127.0.0.1:8080/", "https://192.168.1.5:8080/"]),
            ("[::]:1", true, &["https://127.0.0.1:1/", "https://192.168.1.5:1/", "https://[2001:db8::5]:1/"]),
        ] {
            assert_eq!(urls(address.parse().unwrap(), has_tls, &lan), expect, "{address}");
        }
    }

    #[test]
    fn a_taken_port_is_explained() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = listen(&args(&["--listen", &address])).unwrap_err().to_string();
        assert!(error.contains("is in use") && error.contains("--listen"), "{error}");
        let error = listen(&args(&["--listen", "nowhere"])).unwrap_err().to_string();
        assert!(error.contains("127.0.0.1:8080"), "{error}");
    }

    #[test]
    fn lan_means_all_addresses() {
        let listener = listen(&args(&["--lan", "--listen", "127.0.0.1:0"])).unwrap();
        assert!(listener.local_addr().unwrap().ip().is_unspecified());
    }
}
