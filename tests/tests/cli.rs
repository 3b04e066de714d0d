//! The `tandem` binary as a black box: what a person at a terminal sees.
// Clippy's leave for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

use tests::{run, text};

/// Every command there is, in the order of the help.
const COMMANDS: [&str; 18] = [
    "serve",
    "models",
    "corpus",
    "train-lm",
    "mec-slot",
    "oracle",
    "decide",
    "figures",
    "train",
    "distil",
    "ecld",
    "export-lm",
    "bench-engine",
    "bench-nearness",
    "bench-tokens",
    "bench-serve",
    "bench-room",
    "eval",
];

/// The help's list is this file's list, so that a new command is tested as the others are; the readme has a row for each.
#[test]
fn help_names_every_command() {
    let output = run(&["--help"], "");
    assert!(output.status.success());
    let help = text(&output.stdout);
    let listed = help.split_once("Commands:\n").and_then(|(_, rest)| rest.split("\n\n").next()).unwrap();
    // Longer explanations go on in lines that begin further to the right.
    let names = listed.lines().filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    let names: Vec<&str> =
        names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    assert_eq!(names, COMMANDS, "{help}");
    let readme = include_str!("../../README.md");
    for command in COMMANDS {
        assert!(readme.contains(&format!("`{command}`")), "{command} is not in the readme");
    }
}

#[test]
fn every_command_has_help() {
    for command in COMMANDS {
        let output = run(&[command, "--help"], "");
        assert!(output.status.success(), "{command}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains("Usage: tandem"), "{command}");
    }
}

/// `mec-slot` through its pipe agrees with the reference to 1e-9 relative, field by field.
#[test]
fn mec_slot_agrees_with_the_reference() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../client-core/mec/tests/data/mec.json")).unwrap();
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
        (vec!["oracle", "--size-mbit", "huge"], "", "mixed"),
        (vec!["decide", "--policy", "no-such-file"], "", "no-such-file"),
        (vec!["decide", "--policy", "oracle"], "{\"K\": 0}\n", "line 1"),
        (vec!["decide", "--policy", "oracle"], "\n\nno json\n", "line 3"),
        (vec!["figures", "--runs", "no-such-folder"], "", "no-such-folder"),
        (vec!["figures", "--policies", "no-such-folder"], "", "no-such-folder"),
        (vec!["eval", "--model", "no-such-file.gguf"], "", "no-such-file.gguf"),
        (vec!["serve", "--listen", "nowhere"], "", "nowhere"),
        (vec!["serve", "--model", "no-such-file.gguf", "--listen", "127.0.0.1:0"], "", "no-such-file.gguf"),
        (vec!["ecld", "case", "--vectors", "no-such-file"], "", "no-such-file"),
        (vec!["ecld", "score", "no-such-model", "--out", "x.json"], "", "no-such-model"),
        (vec!["ecld", "prune", "no-such-model", "--out", "x.gguf", "--neurons", "0.5"], "", "no-such-model"),
        (vec!["ecld", "quantise", "no-such-model", "x.gguf", "Q9_0"], "", "Q9_0"),
        (vec!["train", "--algo", "magic"], "", "magic"),
        (vec!["train", "--users", "0"], "", "users"),
        (vec!["train", "--hyper", "gae_lambda=-0.5"], "", "gae_lambda"),
        (vec!["train", "--algo", "wm-ppo", "--hyper", "lambda=-0.5"], "", "lambda"),
    ] {
        let output = run(&args, input);
        assert!(!output.status.success(), "{args:?} succeeded");
        let message = text(&output.stderr);
        assert!(message.contains(wanted), "{args:?} says:\n{message}");
        assert!(!message.contains("panicked"), "{args:?} says:\n{message}");
    }
}

/// What `decide` answers is judged by `mec-slot`, as anyone may judge it with a simulator of their own.
#[test]
fn decisions_are_worth_what_their_policy_promises() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../client-core/mec/tests/data/mec.json")).unwrap();
    let lines = vectors["slots"].as_array().unwrap().iter().map(|slot| {
        let mut line = serde_json::json!({ "K": slot["K"], "f_mode": slot["f_mode"], "inputs": slot["inputs"] });
        let inputs = line["inputs"].as_object_mut().unwrap();
        inputs.remove("alpha");
        inputs.remove("p");
        format!("{line}\n")
    });
    let slots: String = lines.collect();
    let rewards = |policy: &str| -> Vec<f64> {
        let decided = run(&["decide", "--policy", policy, "--merge"], &slots);
        assert!(decided.status.success(), "{policy}: {}", text(&decided.stderr));
        let judged = run(&["mec-slot"], &text(&decided.stdout));
        assert!(judged.status.success(), "{policy}: {}", text(&judged.stderr));
        let reward = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["reward"].as_f64().unwrap();
        text(&judged.stdout).lines().map(reward).collect()
    };
    let mean = |rewards: &[f64]| rewards.iter().sum::<f64>() / rewards.len() as f64;
    let oracle = rewards("oracle");
    assert_eq!(oracle.len(), vectors["slots"].as_array().unwrap().len());
    let closed_form = rewards("closed-form");
    for policy in ["closed-form", "closed-form-exact-qos", "always-local", "always-offload", "random"] {
        let others = rewards(policy);
        for (n, (best, other)) in oracle.iter().zip(&others).enumerate() {
            assert!(*best >= other * (1.0 - 1e-9), "slot {n}: {policy} gets {other}, the optimum {best}");
        }
        if !policy.starts_with("closed-form") {
            assert!(mean(&closed_form) > 1.1 * mean(&others), "{policy}: {others:?}, closed form: {closed_form:?}");
        }
    }
    assert!(mean(&closed_form) > 0.9 * mean(&oracle), "{closed_form:?} of {oracle:?}");
    // Without --merge a line holds the decision alone.
    let plain = run(&["decide", "--policy", "always-offload"], &slots);
    let first: serde_json::Value = serde_json::from_str(text(&plain.stdout).lines().next().unwrap()).unwrap();
    assert_eq!(first.as_object().unwrap().keys().collect::<Vec<_>>(), ["alpha", "p"]);
}

/// Every variant with every way of sharing the server, K up to 10 among them (each K with each: see the server's tests).
#[test]
fn every_system_can_be_judged() {
    // More users than four take long where the search or a plan has to be thorough.
    let systems = [
        ("paper", [1, 2, 3]),
        ("iid", [10, 6, 1]),
        ("delayed", [9, 5, 2]),
        ("backlog", [3, 2, 1]),
        ("mobile", [7, 8, 4]),
    ];
    let shares = ["full", "equal", "load"];
    let systems = systems.iter().flat_map(|(variant, users)| {
        shares.iter().zip(users).map(move |(share, users)| (*variant, *share, users.to_string()))
    });
    for (variant, share, users) in systems {
        let args = ["oracle", "--users", &users, "--variant", variant, "--f-mode", share, "--draws", "2", "--json"];
        let output = run(&[&args[..], &["--set", "horizon=3"]].concat(), "");
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        let report: serde_json::Value = serde_json::from_str(&text(&output.stdout)).unwrap();
        let scores = report["scores"].as_array().unwrap();
        let reward = |name: &str| {
            scores.iter().find(|score| score["name"] == name).and_then(|score| score["reward"].as_f64()).unwrap()
        };
        let best = if variant == "backlog" { "myopic-optimum" } else { "optimum" };
        assert!(reward(best) >= 0.5 * reward("closed-form") && reward("always-local") > 0.0, "{args:?}: {scores:?}");
        assert_eq!(report["params"]["variant"], variant);
    }
}

#[test]
fn figures_are_drawn_with_the_data_behind_them() {
    let dir = tempfile::tempdir().unwrap();
    let policies = concat!(env!("CARGO_MANIFEST_DIR"), "/../public/policies");
    let out = dir.path().to_str().unwrap();
    let output = run(&["figures", "--out", out, "--policies", policies, "--draws", "50"], "");
    assert!(output.status.success(), "{}", text(&output.stderr));
    for name in ["fig9a", "fig9b", "fig10"] {
        let svg = std::fs::read_to_string(dir.path().join(format!("{name}.svg"))).unwrap();
        assert!(svg.contains("optimum") && svg.contains("closed-form") && svg.contains("set-ascent"), "{name}");
        let data = std::fs::read_to_string(dir.path().join(format!("{name}.json"))).unwrap();
        let data: serde_json::Value = serde_json::from_str(&data).unwrap();
        assert_eq!(data["draws"], 50, "{name}");
    }
}
