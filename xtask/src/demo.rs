//! `cargo xtask demo`: from a checkout to a page in one command.
//!
//! Page and server are compiled side by side, and the server starts when both are there. What a first visit does without
//! follows behind it: burn-wgpu's policy module, whose switch the page offers once it is there, the npm package, and the
//! compressed copies.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use crate::beside::{Build, What};
use crate::build;
use crate::npm;
use crate::page::{self, Part, sizes};
use crate::shell::{self, command, step};
use crate::tools;

/// Arguments of `cargo xtask demo`.
#[derive(clap::Args)]
#[command(
    after_help = "The first run compiles several hundred crates before it prints the URL, and some more behind the running\n\
                  server; the next ones take seconds.\n\
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

/// Refuses what `tandem serve` would refuse after all has been built: options that the demo gives it already.
fn check(rest: &[String]) -> Result<()> {
    let is_given = |own: &str| rest.iter().any(|arg| arg.split('=').next() == Some(own));
    if let Some(own) = ["--listen", "--lan", "--cert", "--key"].into_iter().find(|own| is_given(own)) {
        bail!("{own} goes in front of the `--`: `cargo xtask demo {own} …`");
    }
    if is_given("--page") {
        bail!("the demo serves the page that it builds; `tandem serve --page` serves another");
    }
    Ok(())
}

/// Builds both halves, and runs the server until Ctrl-C.
pub fn run(args: &Args) -> Result<()> {
    check(&args.rest)?;
    tools::require_node()?;
    let tandem = build_both()?;
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
    let mut server = server.spawn().with_context(|| format!("cannot start {}", tandem.display()))?;
    // Ends when this function returns.
    let behind = Build::start(What::Late)?;
    if behind.is_none() {
        late()?;
    }
    let status = server.wait().context("the server cannot be waited for")?;
    drop(behind);
    if !status.success() {
        bail!("the server ended with {status}");
    }
    Ok(())
}

/// The page's first part and the server, side by side; where the server is.
fn build_both() -> Result<PathBuf> {
    // Before both lanes would ask for it.
    shell::target_folder()?;
    shell::share_cores()?;
    let tandem = OnceLock::new();
    shell::lanes(vec![
        ("server", Box::new(|| build::demo_server().map(|program| drop(tandem.set(program))))),
        ("page", Box::new(|| page::build(Part::First))),
    ])?;
    tandem.into_inner().context("the server was not built")
}

/// What follows behind the running server.
pub fn late() -> Result<()> {
    shell::enter_lane("behind");
    step("Behind the server: the policy on WebGPU, the npm package, compressed copies. The page works meanwhile");
    page::build(Part::Late)?;
    step("The page offers the policy on WebGPU now");
    npm::package()?;
    sizes::compress()?;
    step("All is built");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_refused_later_is_refused_first() {
        let check = |rest: &[&str]| check(&rest.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
        for (rest, said) in [
            (["--listen", "[::]:80"], "in front of"),
            (["--key=k.pem", "--slots=2"], "--key"),
            (["--slots=2", "--page"], "that it builds"),
        ] {
            assert!(check(&rest).unwrap_err().to_string().contains(said), "{rest:?}");
        }
        assert!(check(&["--model", "--listening.gguf"]).is_ok() && check(&[]).is_ok());
    }
}
