//! `tandem serve`: the page, the models and the API on one address.
//!
//! | file | holds |
//! | --- | --- |
//! | `args.rs` | what the command takes |
//! | `models.rs` | the models that the arguments name |
//! | `parts.rs` | what the server is made of, by its arguments |
//! | `announce.rs` | saying where the page is |
//! | `signal.rs` | Ctrl-C |
//! | `log.rs` | the log on standard error |

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, ToSocketAddrs as _};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use crate::cli::folders::data_folder;
use crate::http::{App, serve};
use crate::tls::{self, Identity};

/// A room's connections get this long to hear that the server goes down.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Most threads for work that blocks. Every thread keeps up to a megabyte of the allocator's memory, and a burst takes as many as
/// there may be: 200 followers of a run, or a hall that joins. What they do takes microseconds to milliseconds, but for loading a
/// model, so that a few dozen are enough for all.
const BLOCKING_THREADS: usize = 32;

mod announce;
mod args;
mod log;
mod models;
mod parts;
mod signal;

use announce::announce;
use parts::parts;
use signal::stopped;

pub use args::{Args, HubArgs, TrainingArgs};

/// Serves until Ctrl-C.
///
/// # Errors
/// When the address cannot be used, or a model, an encoder, a certificate or a folder cannot be read.
pub fn run(args: Args) -> anyhow::Result<()> {
    log::init();
    // The address first: a port that is taken should not cost the time to load a model.
    let listener = listen(&args)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().max_blocking_threads(BLOCKING_THREADS).build().context("the async runtime")?;
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
    let (runs, rooms) = (app.runs().clone(), app.rooms().clone());
    let (ending, closing) = (runs.clone(), rooms.clone());
    let stopped = async move {
        stopped().await;
        ending.begin_shutdown();
        closing.begin_shutdown();
    };
    // What happens between the line below and the first accepted connection waits in the socket's backlog.
    announce(address, identity.as_ref());
    serve::run(listener, identity, app, drain, stopped).await.context("the server stopped")?;
    rooms.finish_shutdown(LAST_WORDS).await;
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    #[derive(Debug, clap::Parser)]
    struct ServeArgs {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        ServeArgs::try_parse_from([&["serve"], words].concat()).unwrap().args
    }

    #[test]
    fn serve_is_the_default_command() {
        for words in [&["tandem"][..], &["tandem", "--listen", "127.0.0.1:0"], &["tandem", "serve", "--lan"]] {
            assert!(Cli::try_parse_from(words).is_ok(), "{words:?}");
        }
        // Ids that are used twice, requirements of options that do not exist: clap's own check.
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
        let options: Vec<clap::Arg> = <ServeArgs as clap::CommandFactory>::command().get_arguments().cloned().collect();
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
            let read = ServeArgs::try_parse_from([&["serve"][..], words.as_slice()].concat());
            assert!(read.is_ok(), "{words:?}: {}", read.unwrap_err());
        }
        // Two of them once shared an id: the hub's token was taken for the file of a private key.
        let both = args(&["--cert", "c", "--key", "k", "--hub", "h", "--hub-key", "token"]);
        assert_eq!((both.key.unwrap(), both.hub.hub_key.as_deref()), (PathBuf::from("k"), Some("token")));
        assert!(ServeArgs::try_parse_from(["serve", "--cert", "c", "--hub", "h", "--hub-key", "t"]).is_err());
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
