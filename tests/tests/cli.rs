//! The `tandem` binary as a black box: what a person at a terminal sees.
// Clippy's leave for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The binary that cargo built beside this test.
fn tandem() -> Command {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    let binary: PathBuf = profile.join(format!("tandem{}", std::env::consts::EXE_SUFFIX));
    assert!(binary.is_file(), "{} is missing; `cargo test --no-run --workspace` builds it", binary.display());
    Command::new(binary)
}

fn run(args: &[&str], input: &str) -> Output {
    let mut child = tandem()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tandem starts");
    // A program that refuses its arguments closes its input early.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_names_every_command() {
    let output = run(&["--help"], "");
    assert!(output.status.success());
    let help = text(&output.stdout);
    for command in ["serve", "corpus", "train-lm", "distil", "eval", "mec-slot", "train", "oracle"] {
        assert!(help.contains(command), "{command} is not in:\n{help}");
    }
}

#[test]
fn every_command_has_help() {
    for command in ["serve", "corpus", "train-lm", "distil", "eval", "mec-slot", "train", "oracle"] {
        let output = run(&[command, "--help"], "");
        assert!(output.status.success(), "{command}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains("Usage: tandem"), "{command}");
    }
}

/// `mec-slot` through its pipe agrees with the reference to 1e-9 relative, field by field.
#[test]
fn mec_slot_agrees_with_the_reference() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../client-core/tests/data/mec.json")).unwrap();
    let slots = vectors["slots"].as_array().unwrap();
    let mut input = String::new();
    for slot in slots {
        let mut line = slot["inputs"].clone();
        line["K"] = slot["K"].clone();
        line["f_mode"] = slot["f_mode"].clone();
        input += &format!("{line}\n");
    }
    let output = run(&["mec-slot"], &input);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), slots.len());
    for (line, slot) in lines.iter().zip(slots) {
        let got: serde_json::Value = serde_json::from_str(line).unwrap();
        for (field, want) in slot["expect"].as_object().unwrap() {
            let want: Vec<f64> = numbers(want);
            let got: Vec<f64> = numbers(&got[field]);
            assert_eq!(got.len(), want.len(), "{field}");
            for (got, want) in got.iter().zip(&want) {
                let tolerance = 1e-9 * want.abs().max(1e-12);
                assert!((got - want).abs() <= tolerance, "{field}: {got} instead of {want}");
            }
        }
    }
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    match value {
        serde_json::Value::Array(values) => values.iter().filter_map(serde_json::Value::as_f64).collect(),
        value => value.as_f64().into_iter().collect(),
    }
}

#[test]
fn bad_input_is_named_and_fails() {
    for (args, input, wanted) in [
        (vec!["mec-slot"], "{\"K\": 0}\n", "line 1"),
        (vec!["mec-slot"], "no json\n", "line 1"),
        (vec!["oracle", "--users", "0"], "", "users"),
        (vec!["eval", "--model", "no-such-file.gguf"], "", "no-such-file.gguf"),
        (vec!["serve", "--listen", "nowhere"], "", "nowhere"),
        (vec!["serve", "--model", "no-such-file.gguf", "--listen", "127.0.0.1:0"], "", "no-such-file.gguf"),
        (vec!["train", "--algo", "magic"], "", "magic"),
    ] {
        let output = run(&args, input);
        assert!(!output.status.success(), "{args:?} succeeded");
        let message = text(&output.stderr);
        assert!(message.contains(wanted), "{args:?} says:\n{message}");
        assert!(!message.contains("panicked"), "{args:?} says:\n{message}");
    }
}
