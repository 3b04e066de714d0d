//! `tandem serve` as a person starts it: with every option that it has.
// Clippy's leave for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    let binary = profile.join(format!("tandem{}", std::env::consts::EXE_SUFFIX));
    assert!(binary.is_file(), "{} is missing; `cargo test --no-run --workspace` builds it", binary.display());
    binary
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts it, waits for its first line, ends it; what it said on both outputs.
fn start(options: &[&str]) -> (String, String) {
    let mut child = Command::new(binary());
    child.arg("serve").args(options).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running(child.spawn().unwrap());
    let (sender, line) = mpsc::channel();
    let output = running.0.stdout.take().unwrap();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(output).read_line(&mut line);
        let _ = sender.send(line);
    });
    let first = line.recv_timeout(Duration::from_secs(120)).unwrap_or_default();
    let mut errors = running.0.stderr.take().unwrap();
    drop(running);
    let mut said = String::new();
    let _ = errors.read_to_string(&mut said);
    (first, said)
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_string_lossy().into_owned()
}

#[test]
fn it_starts_with_every_option() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| path(folder.path(), name);
    for name in ["page", "public"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../public/models/full.gguf");
    let compact = concat!(env!("CARGO_MANIFEST_DIR"), "/../public/models/compact.gguf");
    let list = at("catalogue.json");
    std::fs::write(&list, r#"{"version": 1, "models": []}"#).unwrap();
    let (data, cert, key) = (at("data"), at("data/tls/cert.pem"), at("data/tls/key.pem"));
    let (page, public, runs, cache) = (at("page"), at("public"), at("runs"), at("hub"));
    let rooms = at("rooms");
    let starts: [&[&str]; 4] = [
        &["--listen", "127.0.0.1:0", "--lan", "--data", &data, "--drain", "1", "--no-training"],
        &["--listen", "127.0.0.1:0", "--cert", &cert, "--key", &key, "--data", &data, "--max-body", "1000"],
        &[
            "--listen=127.0.0.1:0",
            "--model",
            model,
            "--device-model",
            compact,
            "--catalogue",
            &list,
            "--admin-key",
            "the-admins-token",
            "--page",
            &page,
            "--rooms",
            &rooms,
            "--public",
            &public,
            "--context",
            "256",
            "--slots",
            "1",
            "--queue",
            "5",
            "--threads",
            "1",
            "--prefix-cache",
            "1000000",
            "--max-connections",
            "64",
            "--host",
            "tandem.example",
            "--cors-origin",
            "https://page.example",
            "--runs",
            &runs,
            "--train-concurrent",
            "1",
            "--train-threads",
            "1",
            "--train-queue",
            "1",
            "--train-kept",
            "9",
            "--train-max-steps",
            "1000",
            "--train-max-envs",
            "8",
            "--train-max-users",
            "3",
            "--train-max-minutes",
            "1",
            "--hub",
            "http://127.0.0.1:9",
            "--hub-host",
            "storage.example",
            "--hub-key",
            "the-hubs-token",
            "--hub-cache",
            &cache,
            "--hub-max-file",
            "1000",
            "--hub-max-cache",
            "2000",
        ],
        &[
            "--listen=127.0.0.1:0",
            "--upstream",
            "http://127.0.0.1:9",
            "--upstream-model",
            "m",
            "--upstream-key",
            "the-engines-token",
            "--upstream-timeout",
            "1",
            "--data",
            &data,
            "--no-training",
        ],
    ];
    let mut tried = BTreeSet::new();
    for options in starts {
        let (first, errors) = start(options);
        assert!(first.starts_with("Tandem is ready at http"), "{options:?}: {first}{errors}");
        assert!(!errors.contains("-token"), "a secret is told: {errors}");
        tried.extend(
            options
                .iter()
                .filter(|word| word.starts_with("--"))
                .map(|word| word.split('=').next().unwrap_or(word).trim_start_matches('-').to_owned()),
        );
    }
    // A folder that is no encoder is an error that names it.
    let (first, errors) = start(&["--listen=127.0.0.1:0", "--encoder", &page]);
    assert!(first.is_empty() && errors.contains(&page), "{first}{errors}");
    tried.insert("encoder".to_owned());

    let help = Command::new(binary()).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let known: BTreeSet<String> = lines
        .filter_map(|line| line.split([' ', ',', '=']).find(|word| word.starts_with("--")))
        // A line of a wrapped explanation may begin with an option too.
        .map(|word| word.trim_start_matches('-').trim_end_matches(']').to_owned())
        .filter(|name| name != "help" && name != "version")
        .collect();
    assert!(known.len() > 30, "{known:?}");
    let missing: Vec<_> = known.difference(&tried).collect();
    assert!(missing.is_empty(), "never tried: {missing:?}");
}

#[test]
fn a_model_that_is_not_here_says_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(folder.path(), "data");
    for (flag, model, said) in [
        ("--model", "smollm2", "tandem models fetch smollm2-135m"),
        ("--device-model", "qwen3", "tandem models fetch qwen3-0.6b"),
        ("--model", "nonesuch", "tandem models list"),
        ("--device-model", "Cargo.toml", "--device-model"),
    ] {
        let (first, errors) = start(&["--listen=127.0.0.1:0", "--data", &data, "--no-training", flag, model]);
        assert!(first.is_empty() && errors.contains(said) && errors.contains(flag), "{model}: {first}{errors}");
    }
}

#[test]
fn a_secret_that_is_in_the_wrong_place_is_not_told() {
    // It was taken for the path of a private key, and printed with the error.
    let (first, errors) = start(&["--cert", "nowhere.pem", "--hub", "http://127.0.0.1:9", "--hub-key", "the-token"]);
    assert!(first.is_empty() && errors.contains("--key") && !errors.contains("the-token"), "{first}{errors}");
}
