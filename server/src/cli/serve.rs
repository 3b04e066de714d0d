//! `tandem serve`: the page, the models and the API on one address.

use std::io::{ErrorKind, IsTerminal as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use client::protocol::runs::RunLimits;
use fast_qr::qr::QRBuilder;

use crate::host::encoder::BertEncoder;
use crate::host::load::{self, LoadError};
use crate::host::local::{self, LocalHost};
use crate::host::upstream::{UpstreamConfig, UpstreamHost};
use crate::host::{Embedder, Host};
use crate::http::files::Files;
use crate::http::files::source::Source;
use crate::http::{App, Limits, Parts, serve};
use crate::hub::{Hub, HubConfig};
use crate::runs::{Runs, RunsConfig};
use crate::tls::{self, Identity};

/// Where the page lies when `--page` is not given.
const DEFAULT_PAGE: &str = "dist";

/// What `tandem serve` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address and port to listen on; port 0 picks a free one.
    #[arg(long, env = "TANDEM_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    pub listen: String,

    /// Listen on all addresses with TLS, so that phones on this network get WebGPU; prints a QR code.
    #[arg(long, env = "TANDEM_LAN", value_parser = clap::builder::FalseyValueParser::new())]
    pub lan: bool,

    /// Certificate chain (PEM) for TLS, instead of a self-signed one.
    #[arg(long, env = "TANDEM_CERT", value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,

    /// Private key (PEM) of the certificate.
    #[arg(long, env = "TANDEM_KEY", value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,

    /// Full model: a GGUF file or a folder with a Hugging Face checkpoint, of the Llama architecture. [default: the one
    /// that ships with this program]
    #[arg(long, env = "TANDEM_MODEL", value_name = "PATH", conflicts_with = "upstream")]
    pub model: Option<PathBuf>,

    /// Hand generation to this OpenAI-compatible engine (vLLM, llama.cpp server …) instead.
    #[arg(long, env = "TANDEM_UPSTREAM", value_name = "URL")]
    pub upstream: Option<String>,

    /// Model to ask the upstream engine for. [default: the first that it lists]
    #[arg(long, env = "TANDEM_UPSTREAM_MODEL", value_name = "NAME", requires = "upstream")]
    pub upstream_model: Option<String>,

    /// Bearer token for the upstream engine; better given in the environment than on the command line.
    #[arg(long, env = "TANDEM_UPSTREAM_KEY", value_name = "TOKEN", hide_env_values = true, requires = "upstream")]
    pub upstream_key: Option<String>,

    /// Longest silence of the upstream engine, in seconds.
    #[arg(long, env = "TANDEM_UPSTREAM_TIMEOUT", value_name = "SECONDS", default_value_t = 60)]
    pub upstream_timeout: u64,

    /// Folder of a BERT (config.json, tokenizer.json, model.safetensors) for embeddings and similarity. [default: the
    /// full model's own hidden states]
    #[arg(long, env = "TANDEM_ENCODER", value_name = "DIR")]
    pub encoder: Option<PathBuf>,

    /// Folder of the built page. [default: dist]
    #[arg(long, env = "TANDEM_PAGE", value_name = "DIR")]
    pub page: Option<PathBuf>,

    /// Folder with models, policies and reports, instead of those that ship with this program.
    #[arg(long, env = "TANDEM_PUBLIC", value_name = "DIR")]
    pub public: Option<PathBuf>,

    /// Answers written at the same time.
    #[arg(long, env = "TANDEM_SLOTS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub slots: u16,

    /// Threads that compute a model's pass together; answers that are written at the same time share them. [default: as many
    /// as this machine runs at once]
    #[arg(long, env = "TANDEM_THREADS", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,

    /// Requests that may wait for a slot before the server answers 503.
    #[arg(long, env = "TANDEM_QUEUE", default_value_t = 32, value_parser = clap::value_parser!(u16).range(0..=10_000))]
    pub queue: u16,

    /// Largest body of a request, in bytes.
    #[arg(long, env = "TANDEM_MAX_BODY", default_value_t = 1 << 20, value_name = "BYTES")]
    pub max_body: usize,

    /// Origin of a page on another server that may use the API; may be given several times; * for all.
    #[arg(long, env = "TANDEM_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub cors_origin: Vec<String>,

    /// Folder for what the server keeps: its certificate, and the training runs. [default: tandem in the user's data folder]
    #[arg(long, env = "TANDEM_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Training runs over HTTP.
    #[command(flatten)]
    pub training: TrainingArgs,

    /// A model hub's files for pages.
    #[command(flatten)]
    pub hub: Box<HubArgs>,

    /// Longest time that answers get to end after Ctrl-C, in seconds.
    #[arg(long, env = "TANDEM_DRAIN", default_value_t = 10, value_name = "SECONDS")]
    pub drain: u64,
}

/// Training runs over HTTP.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Training")]
pub struct TrainingArgs {
    /// Take no training runs; those that are there are still shown.
    #[arg(long, env = "TANDEM_NO_TRAINING", value_parser = clap::builder::FalseyValueParser::new())]
    pub no_training: bool,

    /// Folder of the training runs and of their list. [default: runs in the data folder, see --data]
    #[arg(long, env = "TANDEM_RUNS", value_name = "DIR")]
    pub runs: Option<PathBuf>,

    /// Training runs that learn at the same time; others wait.
    #[arg(long, env = "TANDEM_TRAIN_CONCURRENT", value_name = "RUNS", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=64))]
    pub train_concurrent: u16,

    /// Threads of a training run. One is the fastest for the small networks here, and gives the same curve every time.
    #[arg(long, env = "TANDEM_TRAIN_THREADS", value_name = "THREADS", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=256))]
    pub train_threads: u16,

    /// Training runs that may wait before the server answers 503.
    #[arg(long, env = "TANDEM_TRAIN_QUEUE", value_name = "RUNS", default_value_t = 16)]
    pub train_queue: u16,

    /// Training runs that are kept; a new one is refused until one is deleted.
    #[arg(long, env = "TANDEM_TRAIN_KEPT", value_name = "RUNS", default_value_t = 200)]
    pub train_kept: u16,

    /// Most environment steps of a run.
    #[arg(long, env = "TANDEM_TRAIN_MAX_STEPS", value_name = "STEPS", default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u64).range(1..))]
    pub train_max_steps: u64,

    /// Most cells that a run simulates side by side.
    #[arg(long, env = "TANDEM_TRAIN_MAX_ENVS", value_name = "CELLS", default_value_t = 256,
        value_parser = clap::value_parser!(u16).range(1..))]
    pub train_max_envs: u16,

    /// Most users K of a run.
    #[arg(long, env = "TANDEM_TRAIN_MAX_USERS", value_name = "K", default_value_t = 10,
        value_parser = clap::value_parser!(u16).range(1..=10))]
    pub train_max_users: u16,

    /// Longest time that a run learns before it is stopped; it can be resumed.
    #[arg(long, env = "TANDEM_TRAIN_MAX_MINUTES", value_name = "MINUTES", default_value_t = 120,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub train_max_minutes: u32,
}

/// A model hub's files for pages.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Model hub")]
pub struct HubArgs {
    /// Pass a model hub's files on to pages, as /models/hub/ORGANISATION/REPOSITORY/FILE; asked for as
    /// ORGANISATION/REPOSITORY/resolve/main/FILE under this address. [default: none]
    #[arg(long = "hub", env = "TANDEM_HUB", value_name = "URL")]
    pub base: Option<String>,

    /// Another host that the hub may redirect to; may be given several times.
    #[arg(long = "hub-host", env = "TANDEM_HUB_HOST", value_name = "HOST", value_delimiter = ',', requires = "base")]
    pub hosts: Vec<String>,

    /// Bearer token for the hub; better given in the environment than on the command line.
    #[arg(long = "hub-key", env = "TANDEM_HUB_KEY", value_name = "TOKEN", hide_env_values = true, requires = "base")]
    pub key: Option<String>,

    /// Folder where the hub's files are kept. [default: hub in the data folder, see --data]
    #[arg(long = "hub-cache", env = "TANDEM_HUB_CACHE", value_name = "DIR")]
    pub cache: Option<PathBuf>,

    /// Largest file that is passed on, in bytes.
    #[arg(long = "hub-max-file", env = "TANDEM_HUB_MAX_FILE", value_name = "BYTES", default_value_t = 8_000_000_000)]
    pub max_file: u64,

    /// Largest size of the folder, in bytes; beyond it, files that were asked for longest ago are removed.
    #[arg(
        long = "hub-max-cache",
        env = "TANDEM_HUB_MAX_CACHE",
        value_name = "BYTES",
        default_value_t = 64_000_000_000
    )]
    pub max_cache: u64,
}

impl TrainingArgs {
    fn limits(&self) -> RunLimits {
        RunLimits {
            users: self.train_max_users.into(),
            steps: self.train_max_steps,
            envs: self.train_max_envs.into(),
            minutes: self.train_max_minutes.into(),
            concurrent: self.train_concurrent.into(),
            queue: self.train_queue.into(),
            kept: self.train_kept.into(),
        }
    }
}

/// Serves until Ctrl-C.
///
/// # Errors
/// When the address cannot be used, or a model, an encoder, a certificate or a folder cannot be read.
pub fn run(args: Args) -> anyhow::Result<()> {
    init_log();
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
    let app = App::new(parts(&args).await?);
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

fn init_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TANDEM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,tandem=info"));
    // The only error is that a log was set up before, which is fine.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
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

async fn parts(args: &Args) -> anyhow::Result<Parts> {
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
            let host = local_host(args.model.as_deref(), files.public(), args.slots, args.queue)?;
            let embedder = local::as_embedder(&host);
            (host, Some(embedder))
        }
    };
    let limits = Limits { max_body_bytes: args.max_body, ..Limits::default() };
    let runs = training_runs(args)?;
    let hub = hub(args)?;
    Ok(Parts { host, embedder: encoder.or(own), files, runs, hub, limits, cors_origins: args.cors_origin.clone() })
}

/// The hub, where one is named.
fn hub(args: &Args) -> anyhow::Result<Option<Hub>> {
    let Some(base) = args.hub.base.clone() else { return Ok(None) };
    let usual = || args.data.clone().or_else(data_folder).map(|data| data.join("hub"));
    let dir = args.hub.cache.clone().or_else(usual).context("no data folder is known; name one with --hub-cache")?;
    let config = HubConfig {
        base,
        hosts: args.hub.hosts.clone(),
        token: args.hub.key.clone(),
        dir,
        max_file_bytes: args.hub.max_file,
        max_cache_bytes: args.hub.max_cache,
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

fn local_host(model: Option<&Path>, public: &Source, slots: u16, queue: u16) -> anyhow::Result<Arc<LocalHost>> {
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
        slots,
        queue,
        "the full model is loaded"
    );
    Ok(Arc::new(LocalHost::start(engine, card, slots.into(), queue.into())?))
}

fn shipped_embedder(public: &Source) -> Option<Arc<dyn Embedder>> {
    let loaded = load::shipped(public).and_then(|(engine, card)| {
        LocalHost::start(engine, card, 1, 64).map_err(|error| LoadError::NotShipped { why: error.to_string() })
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
        for words in [
            &["tandem", "--slots", "0"][..],
            &["tandem", "--cert", "c"],
            &["tandem", "--model", "m", "--upstream", "u"],
        ] {
            assert!(Cli::try_parse_from(words).is_err(), "{words:?}");
        }
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
