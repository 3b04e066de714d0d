//! `cargo xtask demo`: from a checkout to a page in one command.

use anyhow::{Context, Result, bail};

use crate::build;
use crate::shell::{command, step};

/// Arguments of `cargo xtask demo`.
#[derive(clap::Args)]
#[command(
    after_help = "The first run takes tens of minutes on two cores (tools, page, server); the next ones seconds.\n\
                        Everything after `--` goes to `tandem serve`, for example `-- --model my-model.gguf`."
)]
pub struct Args {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: String,
    /// Listen on all addresses with TLS, so that phones on the same network can join, and print a QR code.
    #[arg(long)]
    lan: bool,
    /// TLS certificate in PEM instead of a self-signed one (with --lan).
    #[arg(long, requires = "key", requires = "lan")]
    cert: Option<String>,
    /// Private key in PEM that belongs to --cert.
    #[arg(long, requires = "cert")]
    key: Option<String>,
    /// Further arguments of `tandem serve`.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Builds both halves in release mode and runs the server until Ctrl-C.
pub fn run(args: &Args) -> Result<()> {
    build::page()?;
    build::compress()?;
    let tandem = build::server()?;
    step("Starting the server; Ctrl-C ends it");
    let mut serve = vec!["serve".to_owned(), "--page".into(), "dist".into()];
    if args.lan {
        serve.push("--lan".into());
    } else {
        serve.extend(["--listen".into(), args.listen.clone()]);
    }
    for (flag, value) in [("--cert", &args.cert), ("--key", &args.key)] {
        if let Some(value) = value {
            serve.extend([flag.to_owned(), value.clone()]);
        }
    }
    serve.extend(args.rest.iter().cloned());
    let mut server = command(&tandem, &serve);
    let status = server.status().with_context(|| format!("cannot start {}", tandem.display()))?;
    if !status.success() {
        bail!("the server ended with {status}");
    }
    Ok(())
}
