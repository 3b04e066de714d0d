//! Short runs of every algorithm from a fixed seed, against the curves that they gave when these were recorded: whoever
//! moves code around changes no number.
//!
//! `TANDEM_GOLDEN=record` writes the curves anew; `TANDEM_GOLDEN=exact` compares bit for bit, which holds on the machine
//! that recorded them. Elsewhere matrix products add up in another order, and a small difference is let pass.

use std::collections::BTreeMap;
use std::path::Path;

use mec::{MecParams, Variant};
use rl::config::{Algo, Preset, TrainConfig};
use rl::run::Run;
use serde_json::Value;

type Line = BTreeMap<String, f64>;

/// What a clock decides.
const TIMED: &str = "charts/SPS";
/// Largest difference that is let pass, relative to 1 and the number.
const TOLERANCE: f64 = 1e-3;

/// An algorithm, a preset and a system; what makes the run short.
struct Case {
    name: &'static str,
    algo: Algo,
    preset: Preset,
    variant: Variant,
    hyper: &'static [(&'static str, &'static str)],
}

const SMALL_PPO: &[(&str, &str)] =
    &[("hidden", "[16, 16]"), ("rollout_steps", "12"), ("epochs", "2"), ("minibatch", "10")];
const SMALL_LAGRANGIAN: &[(&str, &str)] =
    &[("ppo.hidden", "[16, 16]"), ("ppo.rollout_steps", "12"), ("ppo.epochs", "2"), ("ppo.minibatch", "10")];
const SMALL_WM: &[(&str, &str)] = &[
    ("ppo.hidden", "[16, 16]"),
    ("ppo.rollout_steps", "12"),
    ("ppo.epochs", "2"),
    ("ppo.minibatch", "10"),
    ("starts", "16"),
    ("model.deterministic", "8"),
    ("model.stochastic", "3"),
    ("model.hidden", "12"),
    ("model.sequences", "3"),
    ("model.length", "4"),
    ("model.updates", "2"),
    ("model.memory", "60"),
    ("ensemble.hidden", "[12]"),
    ("ensemble.updates", "3"),
    ("ensemble.batch", "16"),
];
const SMALL_OFF_POLICY: &[(&str, &str)] = &[
    ("hidden", "[16, 16]"),
    ("replay.batch", "16"),
    ("replay.warm_up", "40"),
    ("replay.report_steps", "24"),
    ("replay.capacity", "100"),
];
const SMALL_SET: &[(&str, &str)] = &[
    ("encoder", "[12]"),
    ("head", "[12]"),
    ("critic_encoder", "[12]"),
    ("critic_head", "[12]"),
    ("head_start", "10"),
    ("replay.batch", "8"),
    ("replay.warm_up", "60"),
    ("replay.report_steps", "12"),
    ("replay.updates_per_step", "0.2"),
];

fn cases() -> Vec<Case> {
    let algorithms = [
        (Algo::Ppo, ["ppo paper", "ppo tuned", "ppo backlog"], SMALL_PPO),
        (
            Algo::PpoLagrangian,
            ["ppo-lagrangian paper", "ppo-lagrangian tuned", "ppo-lagrangian backlog"],
            SMALL_LAGRANGIAN,
        ),
        (Algo::WmPpo, ["wm-ppo paper", "wm-ppo tuned", "wm-ppo backlog"], SMALL_WM),
        (Algo::WmPpoMended, ["wm-ppo-mended paper", "wm-ppo-mended tuned", "wm-ppo-mended backlog"], SMALL_WM),
        (Algo::Td3, ["td3 paper", "td3 tuned", "td3 backlog"], SMALL_OFF_POLICY),
        (Algo::Ddpg, ["ddpg paper", "ddpg tuned", "ddpg backlog"], SMALL_OFF_POLICY),
        (Algo::Sac, ["sac paper", "sac tuned", "sac backlog"], SMALL_OFF_POLICY),
        (Algo::SetDpg, ["set-dpg paper", "set-dpg tuned", "set-dpg backlog"], SMALL_SET),
    ];
    let systems = [(Preset::Paper, Variant::Paper), (Preset::Tuned, Variant::Paper), (Preset::Tuned, Variant::Backlog)];
    let case = |(algo, names, hyper)| {
        std::iter::zip(names, systems).map(move |(name, (preset, variant))| Case { name, algo, preset, variant, hyper })
    };
    algorithms.into_iter().flat_map(case).collect()
}

/// The lines of a run's metrics, and the policy that it kept.
fn curve(case: &Case) -> (Vec<Line>, Vec<u8>) {
    let mec = MecParams { horizon: 30, ..MecParams::with_users(2).with_variant(case.variant) };
    let mut config = TrainConfig {
        seed: 7,
        steps: 144,
        envs: 2,
        eval_every: 2,
        eval_slots: 20,
        ..TrainConfig::preset(case.algo, case.preset, mec)
    };
    for (key, value) in case.hyper {
        config.set_hyper(key, value).expect(key);
    }
    let folder = tempfile::tempdir().expect("folder");
    let mut run = Run::create(folder.path(), &config).expect("run");
    rl::train(&config, &mut run, &Default::default()).expect("trained");
    let text = std::fs::read_to_string(folder.path().join("metrics.jsonl")).expect("metrics");
    let line = |line: &str| {
        let mut line: Line = serde_json::from_str(line).expect("numbers by name");
        line.remove(TIMED).expect("a speed");
        line
    };
    (text.lines().map(line).collect(), std::fs::read(folder.path().join("policy.safetensors")).expect("policy"))
}

fn digest(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_algorithm_gives_the_recorded_curve() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/curves.json");
    let mode = std::env::var("TANDEM_GOLDEN").unwrap_or_default();
    let curves = cases().into_iter().map(|case| {
        let (lines, policy) = curve(&case);
        (case.name.to_owned(), (lines, digest(&policy)))
    });
    let curves: BTreeMap<String, (Vec<Line>, String)> = curves.collect();
    if mode == "record" {
        let text = serde_json::to_string(&curves).expect("numbers");
        std::fs::write(&path, text.replace("],\"", "],\n\"") + "\n").expect("written");
        return;
    }
    let text = std::fs::read_to_string(&path).expect("recorded curves");
    if mode == "exact" {
        // Through text, as the recorded ones went.
        let now: Value = serde_json::from_str(&serde_json::to_string(&curves).expect("numbers")).expect("numbers");
        let then: Value = serde_json::from_str(&text).expect("curves");
        for (name, curve) in then.as_object().expect("by name") {
            assert_eq!(now.get(name), Some(curve), "{name}");
        }
    }
    let recorded: BTreeMap<String, (Vec<Line>, String)> = serde_json::from_str(&text).expect("curves");
    assert!(curves.keys().eq(recorded.keys()));
    for ((name, (lines, _)), (recorded, _)) in curves.iter().zip(recorded.values()) {
        assert_eq!(lines.len(), recorded.len(), "{name}");
        for (number, (line, recorded)) in lines.iter().zip(recorded).enumerate() {
            assert!(line.keys().eq(recorded.keys()), "{name} {number}: {line:?} instead of {recorded:?}");
            for ((key, value), recorded) in line.iter().zip(recorded.values()) {
                let close = (value - recorded).abs() <= TOLERANCE * (1.0 + recorded.abs());
                assert!(close, "{name}, line {number}, {key}: {value} instead of {recorded}");
            }
        }
    }
}
