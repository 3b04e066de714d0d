//! `cargo xtask demo`: from a checkout to a page in one command.
//!
//! Page and server are compiled side by side, and the server starts when both are there. What a first visit can do without
//! follows behind it: the policy's module, in whose place the closed form decides, burn-wgpu's, whose switch the page offers
//! once it is there, the view of compact models, the chat's Markdown, a room's pages, the npm package, and the compressed
//! copies.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
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
    /// Models to start with, instead of those that ship: one for both sides, or DEVICE,SERVER; names of `tandem models list`,
    /// which are fetched where they are not here yet, or GGUF files.
    #[arg(long, value_name = "DEVICE[,SERVER]")]
    models: Option<Pair>,
    /// Further arguments of `tandem serve`.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// The models of both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    device: String,
    server: String,
}

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (device, server) = text.split_once(',').unwrap_or((text, text));
        let named = |name: &str| !name.trim().is_empty() && !name.contains(',');
        if !named(device) || !named(server) {
            return Err("one model, or two with a comma between them: DEVICE,SERVER".to_owned());
        }
        Ok(Self { device: device.trim().to_owned(), server: server.trim().to_owned() })
    }
}

impl Pair {
    /// Refuses files that are not there before anything is built, and makes sure that they are found from any folder.
    fn check(&self) -> Result<Self> {
        let whole = |name: &String| match is_path(name) {
            false => Ok(name.clone()),
            true => match fs::canonicalize(name) {
                Ok(path) => Ok(path.to_string_lossy().into_owned()),
                Err(error) => bail!("--models {name}: {error}"),
            },
        };
        Ok(Self { device: whole(&self.device)?, server: whole(&self.server)? })
    }

    /// Fetches those of them that have a name and are not on this machine yet.
    fn fetch(&self, tandem: &Path) -> Result<()> {
        let mut names: Vec<&String> = [&self.device, &self.server].into_iter().filter(|name| !is_path(name)).collect();
        names.dedup();
        if names.is_empty() {
            return Ok(());
        }
        step("Models; a download that is cut goes on the next time");
        let mut fetch = command(tandem, &["models", "fetch"]);
        let status = fetch.args(names).status().context("the models cannot be fetched")?;
        if !status.success() {
            bail!("without its models the demo does not start; without --models it runs with those that ship");
        }
        Ok(())
    }
}

/// As `tandem serve` tells paths from names.
fn is_path(name: &str) -> bool {
    name.contains(['/', '\\']) || name.ends_with(".gguf")
}

/// Refuses what `tandem serve` would refuse after all has been built: options that the demo gives it already.
fn check(rest: &[String]) -> Result<()> {
    if let Some(own) = ["--listen", "--lan", "--cert", "--key"].into_iter().find(|own| is_given(rest, own)) {
        bail!("{own} goes in front of the `--`: `cargo xtask demo {own} …`");
    }
    if is_given(rest, "--page") {
        bail!("the demo serves the page that it builds; `tandem serve --page` serves another");
    }
    Ok(())
}

/// Refuses a model that is named twice.
fn check_models(rest: &[String]) -> Result<()> {
    let twice = ["--model", "--device-model", "--upstream"].into_iter().find(|own| is_given(rest, own));
    match twice {
        Some(own) => bail!("--models names the models already; leave it or {own} away"),
        None => Ok(()),
    }
}

fn is_given(rest: &[String], own: &str) -> bool {
    rest.iter().any(|arg| arg.split('=').next() == Some(own))
}

/// Builds both halves, and runs the server until Ctrl-C.
pub fn run(args: &Args) -> Result<()> {
    check(&args.rest)?;
    let models = args.models.as_ref().map(Pair::check).transpose()?;
    if models.is_some() {
        check_models(&args.rest)?;
    }
    tools::require_node()?;
    let tandem = build_both()?;
    if let Some(models) = &models {
        models.fetch(&tandem)?;
    }
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
    if let Some(Pair { device, server }) = models {
        serve.extend(["--device-model".to_owned(), device, "--model".to_owned(), server]);
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
    step(
        "Behind the server: the policy's module, what else a first visit can do without, the npm package, compressed copies. \
         The page works meanwhile",
    );
    page::build(Part::Late)?;
    step("The page is whole: the policy on CPU and WebGPU, rooms, compact models, formatted answers");
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

    #[test]
    fn models_are_a_pair_of_names_or_paths() {
        let pair = |device: &str, server: &str| Pair { device: device.into(), server: server.into() };
        for (text, expect) in [
            ("smollm2", Some(pair("smollm2", "smollm2"))),
            ("qwen2.5-0.5b, qwen2.5-1.5b", Some(pair("qwen2.5-0.5b", "qwen2.5-1.5b"))),
            ("./a.gguf,full", Some(pair("./a.gguf", "full"))),
            ("a,b,c", None),
            ("a,", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Pair>().ok(), expect, "{text}");
        }
        assert_eq!(pair("smollm2", "full").check().unwrap(), pair("smollm2", "full"));
        assert!(pair("full", "none/such.gguf").check().unwrap_err().to_string().contains("none/such.gguf"));
        // Tests run in their crate's folder.
        let here = pair("./Cargo.toml", "full").check().unwrap().device;
        assert!(Path::new(&here).is_absolute(), "{here}");
        let check = |rest: &[&str]| check_models(&rest.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
        assert!(check(&["--model=x"]).is_err() && check(&["--slots", "2"]).is_ok());
    }
}
