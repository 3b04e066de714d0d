//! What `tandem serve` takes.

use std::path::PathBuf;

use client::protocol::runs::RunLimits;

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

    /// Full model: a name of the catalogue (`tandem models list`), a GGUF file, or a folder with a Hugging Face checkpoint, of
    /// the Llama, Mistral, Qwen or Gemma families. [default: the one that ships with this program]
    #[arg(long, env = "TANDEM_MODEL", value_name = "NAME|PATH", conflicts_with = "upstream")]
    pub model: Option<String>,

    /// Model that pages load by themselves: a name of the catalogue, or a GGUF file. [default: the one that ships with this
    /// program]
    #[arg(long, env = "TANDEM_DEVICE_MODEL", value_name = "NAME|PATH")]
    pub device_model: Option<String>,

    /// A catalogue of your own that adds models to the one that ships; may be given several times. [default: catalogue.json in
    /// the data folder]
    #[arg(long, env = "TANDEM_CATALOGUE", value_name = "FILE", value_delimiter = ',')]
    pub catalogue: Vec<PathBuf>,

    /// Key with which the full model may be changed while the server runs, by POST /api/model; better given in the environment
    /// than on the command line. [default: nobody may]
    #[arg(long, env = "TANDEM_ADMIN_KEY", value_name = "KEY", hide_env_values = true,
        value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub admin_key: Option<String>,

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

    /// Answers written at the same time; each pass over the model's weights makes all of them longer. [default: 8; 16 with
    /// --upstream]
    #[arg(long, env = "TANDEM_SLOTS", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub slots: Option<u16>,

    /// Longest conversation, prompt and answer, in tokens, for which there has to be memory. [default: the model's own, or what
    /// memory there is for]
    #[arg(long, env = "TANDEM_CONTEXT", value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..),
        conflicts_with = "upstream")]
    pub context: Option<u32>,

    /// Threads that compute a model's pass together. [default: as many as this machine runs at once]
    #[arg(long, env = "TANDEM_THREADS", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,

    /// Requests that may wait for a slot before the server answers 503.
    #[arg(long, env = "TANDEM_QUEUE", default_value_t = 256, value_parser = clap::value_parser!(u16).range(0..=10_000))]
    pub queue: u16,

    /// Memory for what was computed of conversations that are over, in bytes: requests that begin alike go on from there. 0
    /// keeps nothing.
    #[arg(long, env = "TANDEM_PREFIX_CACHE", default_value_t = 128 << 20, value_name = "BYTES")]
    pub prefix_cache: usize,

    /// Connections at the same time; at most three quarters of them from one address. Where all are taken, the one that has
    /// been idle for longest is closed.
    #[arg(long, env = "TANDEM_MAX_CONNECTIONS", default_value_t = 4096, value_name = "CONNECTIONS",
        value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    pub max_connections: u32,

    /// Largest body of a request, in bytes.
    #[arg(long, env = "TANDEM_MAX_BODY", default_value_t = 1 << 20, value_name = "BYTES")]
    pub max_body: usize,

    /// Another name that this server is reached by, beside localhost and numeric addresses; may be given several times; *
    /// for all. A page on a name that is not known here could be anybody's (DNS rebinding).
    #[arg(long, env = "TANDEM_HOST", value_name = "NAME", value_delimiter = ',')]
    pub host: Vec<String>,

    /// Origin of a page on another server that may use the API; may be given several times; * for all.
    #[arg(long, env = "TANDEM_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub cors_origin: Vec<String>,

    /// Folder for what the server keeps: its certificate, training runs and live rooms. [default: tandem in the user's data
    /// folder]
    #[arg(long, env = "TANDEM_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Folder of the live rooms. [default: rooms in the data folder, see --data]
    #[arg(long, env = "TANDEM_ROOMS", value_name = "DIR")]
    pub rooms: Option<PathBuf>,

    /// Training runs over HTTP.
    #[command(flatten)]
    pub training: Box<TrainingArgs>,

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
// Flattened arguments share one space of ids with all others: each bears its option's name.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Model hub")]
pub struct HubArgs {
    /// Pass a model hub's files on to pages, as /models/hub/ORGANISATION/REPOSITORY/FILE; asked for as
    /// ORGANISATION/REPOSITORY/resolve/main/FILE under this address. [default: none]
    #[arg(long, env = "TANDEM_HUB", value_name = "URL")]
    pub hub: Option<String>,

    /// Another host that the hub may redirect to; may be given several times.
    #[arg(long, env = "TANDEM_HUB_HOST", value_name = "HOST", value_delimiter = ',', requires = "hub")]
    pub hub_host: Vec<String>,

    /// Bearer token for the hub; better given in the environment than on the command line.
    #[arg(long, env = "TANDEM_HUB_KEY", value_name = "TOKEN", hide_env_values = true, requires = "hub")]
    pub hub_key: Option<String>,

    /// Folder where the hub's files are kept. [default: hub in the data folder, see --data]
    #[arg(long, env = "TANDEM_HUB_CACHE", value_name = "DIR")]
    pub hub_cache: Option<PathBuf>,

    /// Largest file that is passed on, in bytes.
    #[arg(long, env = "TANDEM_HUB_MAX_FILE", value_name = "BYTES", default_value_t = 8_000_000_000)]
    pub hub_max_file: u64,

    /// Largest size of the folder, in bytes; beyond it, files that were asked for longest ago are removed.
    #[arg(long, env = "TANDEM_HUB_MAX_CACHE", value_name = "BYTES", default_value_t = 64_000_000_000)]
    pub hub_max_cache: u64,
}

impl TrainingArgs {
    /// What is refused.
    #[must_use]
    pub fn limits(&self) -> RunLimits {
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
