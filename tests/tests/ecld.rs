//! `tandem ecld` as a black box: the cases of a reference, and a shipped model cut and quantised.
// Clippy's leave for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use serde_json::Value;
use tests::{run, text};

/// Cases of an independent reference in double precision.
const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/ecld/cases.json");
/// The compact model that ships.
const COMPACT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../public/models/compact.gguf");

/// Whether `found` has everything that `want` has, numbers to 1e-10.
fn same(path: &str, found: &Value, want: &Value) {
    match (found, want) {
        (Value::Number(found), Value::Number(want)) => {
            let (found, want) = (found.as_f64().unwrap(), want.as_f64().unwrap());
            assert!((found - want).abs() <= 1e-10 * want.abs() + 1e-12, "{path}: {found} instead of {want}");
        }
        (Value::Array(found), Value::Array(want)) => {
            assert_eq!(found.len(), want.len(), "{path}");
            for (i, (found, want)) in found.iter().zip(want).enumerate() {
                same(&format!("{path}/{i}"), found, want);
            }
        }
        (Value::Object(found), Value::Object(want)) => {
            for (key, want) in want {
                same(&format!("{path}/{key}"), found.get(key).unwrap_or(&Value::Null), want);
            }
        }
        (found, want) => assert_eq!(found, want, "{path}"),
    }
}

#[test]
fn cases_agree_with_the_reference() {
    let output = run(&["ecld", "case", "--vectors", CASES], "");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    let results: BTreeMap<String, Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| (line["id"].as_str().unwrap().to_owned(), line["result"].clone()))
        .collect();
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(CASES).unwrap()).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!((results.len(), lines.lines().count()), (cases.len(), cases.len()));
    for case in cases {
        let (id, expect) = (case["id"].as_str().unwrap(), &case["expect"]);
        let result = &results[id];
        match case["kind"].as_str().unwrap() {
            // Another local minimum may be as good: there are bounds instead of values.
            "quantise_minimised" => {
                same(id, &result["sse_min_max"], &expect["sse_min_max"]);
                same(id, &result["sse_global_minimum"], &expect["sse_global_minimum"]);
                let (sse, least) = (result["sse"].as_f64().unwrap(), expect["sse_global_minimum"].as_f64());
                assert!(sse <= expect["sse_accept"].as_f64().unwrap(), "{id}: {sse}");
                assert!(least.is_none_or(|least| sse >= least * (1.0 - 1e-10)), "{id}: {sse}");
            }
            _ => same(id, result, expect),
        }
    }
}

#[test]
fn a_case_that_cannot_be_computed_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cases.json");
    let config = r#"{"vocab":2,"dim":2,"layers":1,"heads":1,"kv_heads":1,"head_dim":2,"ffn":1,"rope_theta":1e4,
        "rms_eps":1e-5,"rope":"half","tied":true}"#;
    for (kind, input, wanted) in [
        ("magic", "{}", "magic"),
        ("logits", r#"{"model":"none","tokens":[1]}"#, "none"),
        ("logits", r#"{"model":"m","tokens":[1]}"#, "token_embd"),
        ("quantise_min_max", r#"{"w":[1,"NaN"],"q":4}"#, "NaN"),
        ("quantise_min_max", r#"{"w":[1,2],"q":40}"#, "40 bits"),
        ("quantise_matrix", r#"{"w":[[1,2]],"q":4,"group":0}"#, "group"),
        ("quantise_min_max", r#"{"q":4}"#, "`w`"),
        ("keep_ratio", r#"{"scores":[1,"NaN"],"ratio":0.5}"#, "NaN"),
        ("keep_ratio", r#"{"scores":[1,2],"ratio":1}"#, "ratio"),
        ("keep_threshold", r#"{"scores":[],"theta":1}"#, "scores"),
        ("distil", r#"{"student":[[1,2]],"teacher":[[1]],"targets":[0],"alpha":0.5,"tau":1}"#, "vocabulary"),
        ("accuracy", r#"{"response":"x","expected":["x"],"rule":"some"}"#, "some"),
        ("efficiency", r#"{"rows":[[0,1,1,1]],"form":"reciprocal"}"#, "hallucination"),
        ("efficiency", r#"{"rows":[[1,1,1,1]],"form":"cubic"}"#, "cubic"),
    ] {
        let good = r#"{"id":"good","kind":"keep_ratio","input":{"scores":[1,2],"ratio":0.5}}"#;
        let file = format!(
            r#"{{"models":{{"m":{{"config":{config},"weights":{{}}}}}},
            "cases":[{{"id":"the-bad-one","kind":"{kind}","input":{input}}},{good}]}}"#
        );
        std::fs::write(&path, file).unwrap();
        let output = run(&["ecld", "case", "--vectors", path.to_str().unwrap()], "");
        assert!(!output.status.success(), "{kind} {input}");
        let message = text(&output.stderr);
        assert!(message.contains("the-bad-one") && message.contains(wanted), "{kind} {input}: {message}");
        assert!(!message.contains("panicked"), "{message}");
        // The others are computed all the same.
        assert_eq!(text(&output.stdout).trim(), r#"{"id":"good","result":{"kept":[1]}}"#, "{kind}");
    }
    std::fs::write(&path, "[1").unwrap();
    let output = run(&["ecld", "case", "--vectors", path.to_str().unwrap()], "");
    assert!(!output.status.success() && text(&output.stderr).contains("no vectors file"));
}

/// From the shipped file to one that is smaller in both ways, by the commands that a person types.
#[test]
fn a_shipped_model_is_scored_cut_and_quantised() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let json = |name: &str| -> Value { serde_json::from_str(&std::fs::read_to_string(at(name)).unwrap()).unwrap() };
    let done = |args: &[&str]| {
        let output = run(args, "");
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let few = ["--tokens", "300", "--length", "64"];
    done(&[&["ecld", "score", COMPACT, "--out", &at("scores.json")][..], &few].concat());
    let scores = json("scores.json");
    assert_eq!(scores["scores"]["neuron"].as_array().unwrap().len(), 3);
    assert!(scores["loss"]["mean_nll"].as_f64().unwrap() < 4.0, "{}", scores["loss"]);

    let cut = ["--neurons", "0.25", "--layers", "0.34", "--protect", "0"];
    done(&[&["ecld", "prune", COMPACT, "--out", &at("cut.gguf")][..], &cut, &few].concat());
    let report = json("cut.gguf.json");
    assert_eq!((&report["sizes_after"]["layers"], &report["sizes_after"]["ffn"]), (&2.into(), &192.into()));
    let quantised = done(&["ecld", "quantise", &at("cut.gguf"), &at("cut-q4.gguf"), "Q4_0"]);
    assert!(quantised.contains("bits a weight"), "{quantised}");
    let (before, after) = (json("cut.gguf.json"), json("cut-q4.gguf.json"));
    assert!(after["nmse"].as_f64().unwrap() <= after["nmse_plain"].as_f64().unwrap());
    assert!(after["tensor_bytes"][1].as_u64() < before["tensor_bytes"][1].as_u64());
    // The engine that users run loads it.
    done(&["eval", "--model", &at("cut-q4.gguf"), "--limit", "2"]);

    // What goes wrong leaves nothing.
    let broken = at("broken.gguf");
    std::fs::write(&broken, &std::fs::read(COMPACT).unwrap()[..200_000]).unwrap();
    for args in [
        vec!["ecld", "quantise", &broken, "OUT", "Q8_0"],
        vec!["ecld", "prune", &broken, "--out", "OUT", "--neurons", "0.5"],
        vec!["ecld", "prune", COMPACT, "--out", "OUT", "--neurons", "1.5"],
        vec!["ecld", "prune", COMPACT, "--out", "OUT", "--drop-layers", "7"],
    ] {
        let out = at("never.gguf");
        let args: Vec<&str> = args.into_iter().map(|arg| if arg == "OUT" { &out } else { arg }).collect();
        let output = run(&args, "");
        assert!(!output.status.success() && !text(&output.stderr).contains("panicked"), "{args:?}");
        let left = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(left.into_iter().all(|name| !name.to_string_lossy().contains("never")), "{args:?}");
    }
}
