//! What the server is made of, by its arguments.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::args::Args;
use super::models::{self, Found};
use crate::cli::folders::{data_folder, hub_folder};
use crate::host::encoder::BertEncoder;
use crate::host::load::{self, LoadError};
use crate::host::local::{self, LocalConfig, LocalHost};
use crate::host::memory::Room;
use crate::host::swap::Swap;
use crate::host::upstream::{UpstreamConfig, UpstreamHost};
use crate::host::{Embedder, Host};
use crate::http::connections::ConnectionLimits;
use crate::http::files::Files;
use crate::http::files::source::Source;
use crate::http::guard::Hosts;
use crate::http::{Limits, Parts};
use crate::hub::{Hub, HubConfig};
use crate::rooms::{Rooms, RoomsConfig, ServerNow};
use crate::runs::{Runs, RunsConfig};

/// Slots of the model here, and of an engine upstream, which answers many at a time.
const LOCAL_SLOTS: u16 = 8;
const UPSTREAM_SLOTS: u16 = 16;
/// Files that stay free for the service itself: models, runs, logs, an engine upstream.
const RESERVED_FILES: u64 = 256;
/// Files that one connection may hold: itself, and a file that is sent or a connection to an engine.
const FILES_PER_CONNECTION: u64 = 2;
/// Longest silence of a model hub.
const HUB_SILENCE: Duration = Duration::from_secs(20);
/// The policy for any number of devices.
const SET_POLICY: &str = "policies/set.safetensors";
/// Where the page lies when `--page` is not given.
const DEFAULT_PAGE: &str = "dist";

/// All of it. Models are loaded, folders are opened, an upstream engine is asked what it has.
///
/// # Errors
/// Something that was asked for cannot be had; says which argument.
pub(super) async fn parts(args: &Args, listen: IpAddr) -> anyhow::Result<Parts> {
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
    let found = models::find(args, files.public())?;
    let mut switch = None;
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
            let context = args.context.map(|tokens| usize::try_from(tokens).unwrap_or(usize::MAX));
            let host = Arc::new(Swap::new(local_host(&found, files.public(), config, context)?));
            let switch_to = |key| models::switch(key, &host, &found, files.public(), config, context);
            switch = args.admin_key.as_deref().map(switch_to);
            let embedder: Arc<dyn Embedder> = Arc::<Swap>::clone(&host);
            (host, Some(embedder))
        }
    };
    let connections = ConnectionLimits::of(connections_for(args.max_connections));
    let limits = Limits { max_body_bytes: args.max_body, connections, ..Limits::default() };
    let runs = training_runs(args)?;
    let rooms = live_rooms(args, files.public(), &host)?;
    let hub = hub(args)?;
    // What is listened on by name is reached by that name.
    let listened = args.listen.rsplit_once(':').map(|(name, _)| name.to_owned());
    let names: Vec<String> = args.host.iter().cloned().chain(listened).collect();
    let hosts = Hosts::new(listen, &names);
    let cors_origins = args.cors_origin.clone();
    let offered = found.offered();
    let embedder = encoder.or(own);
    Ok(Parts { host, embedder, files, runs, rooms, hub, offered, switch, limits, hosts, cors_origins })
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
    let dir = hub_folder(args.hub.hub_cache.as_deref(), args.data.as_deref())?;
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

/// The live rooms. A folder that was asked for has to work; without the usual one the server does all but rooms.
fn live_rooms(args: &Args, public: &Source, host: &Arc<dyn Host>) -> anyhow::Result<Rooms> {
    let usual = || args.data.clone().or_else(data_folder).map(|data| data.join("rooms"));
    let Some(dir) = args.rooms.clone().or_else(usual) else {
        return Ok(Rooms::none("no data folder is known; name one with --rooms."));
    };
    let policy = match public.read(SET_POLICY) {
        Ok(bytes) => Some(bytes.to_vec()),
        Err(error) => {
            tracing::warn!(%error, "no {SET_POLICY}; the closed form decides in live rooms");
            None
        }
    };
    let host = Arc::clone(host);
    let server = move || {
        let load = host.load();
        let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
        let tokens_per_s = host.progress().map(|progress| progress.tokens_per_s);
        ServerNow { tokens_per_s, active: count(load.active), queue: count(load.waiting) }
    };
    match Rooms::open(RoomsConfig { dir, policy, server: Box::new(server) }) {
        Ok(rooms) => Ok(rooms),
        Err(error) if args.rooms.is_some() => Err(anyhow::Error::new(error).context("--rooms")),
        Err(error) => {
            tracing::warn!(%error, "no live rooms; --rooms DIR names another folder");
            Ok(Rooms::none(format!("{error}.")))
        }
    }
}

/// Threads that this machine runs at once.
fn system_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn local_host(
    found: &Found,
    public: &Source,
    config: LocalConfig,
    context: Option<usize>,
) -> anyhow::Result<LocalHost> {
    let (engine, card) = match &found.model {
        Some(model) => load::named(model, public, Room::now(context))?,
        None => load::shipped(public, load::SHIPPED)?,
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
    Ok(LocalHost::start(engine, card, config)?)
}

fn shipped_embedder(public: &Source) -> Option<Arc<dyn Embedder>> {
    let config = LocalConfig { slots: 1, queue: 64, prefix_bytes: 0 };
    let loaded = load::shipped(public, load::SHIPPED).and_then(|(engine, card)| {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_kept_in_reserve() {
        assert_eq!((fitting(4096, 1 << 20), fitting(4096, 1024), fitting(4096, 100), fitting(8, 9)), (4096, 384, 8, 8));
        assert!(connections_for(16) >= 8);
    }
}
