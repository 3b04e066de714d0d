//! What is asked for → a training configuration, within the server's limits: of each field, and of all together (the time by
//! [`cost`](super::cost), memory and the work between two places to stop by [`affordable`]).
//!
//! Every [`Algo`] is offered; its hyper-parameters, with their ranges and what they mean, are those that its own file declares
//! ([`rl::hyper`]).

use std::collections::BTreeMap;

use client::protocol::hyper::{HyperParameter, Refusal};
use client::protocol::runs::{AlgoView, RunLimits, RunRequest};
use mec::{MecParams, SettingError};
use rl::config::{Algo, Preset, TrainConfig};
use rl::hyper::HyperParameters as _;
use rl::settings::RunSettings;
use serde_json::{Map, Value};

use super::store::as_written;
use super::{RunsError, cost};

/// What a request says in fields of its own.
const ELSEWHERE: [&str; 3] = ["seed", "steps", "envs"];

/// What can be set of an algorithm: its own hyper-parameters, then those of all algorithms that it has none of that name of.
fn declared(algo: Algo) -> Vec<HyperParameter> {
    let mut all = algo.hyper_parameters();
    let common: Vec<_> = RunSettings::list().into_iter().filter(|p| !ELSEWHERE.contains(&p.key.as_str())).collect();
    let own: Vec<String> = all.iter().map(|parameter| parameter.key.clone()).collect();
    all.extend(common.into_iter().filter(|parameter| !own.contains(&parameter.key)));
    all
}

/// The hyper-parameters of every algorithm, as the page's form is made of them.
#[must_use]
pub fn hyper_parameters() -> BTreeMap<String, Vec<HyperParameter>> {
    Algo::ALL.map(|algo| (algo.name().to_owned(), declared(algo))).into()
}

/// Every algorithm with each of its presets.
#[must_use]
pub fn algorithms() -> Vec<AlgoView> {
    let view = |algo: Algo, preset: Preset| {
        let config = TrainConfig::preset(algo, preset, MecParams::DEFAULT);
        let values = as_map(&config);
        let value = |p: HyperParameter| Some((p.key.clone(), as_written(place(algo, &values, &p.key)?.clone())));
        AlgoView {
            name: algo.name().to_owned(),
            preset: preset.name().to_owned(),
            envs: config.envs,
            hyper: declared(algo).into_iter().filter_map(value).collect(),
        }
    };
    Algo::ALL.iter().flat_map(|algo| Preset::ALL.map(|preset| view(*algo, preset))).collect()
}

fn as_map(config: &TrainConfig) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(map)) => map,
        // A configuration of numbers and names always is an object.
        _ => Map::new(),
    }
}

/// Where a hyper-parameter stands in a configuration: in the algorithm's own table, or beside it.
fn path(algo: Algo, key: &str) -> String {
    let is_own = algo.hyper_parameters().iter().any(|parameter| parameter.key == key);
    if is_own { format!("{}.{key}", algo.table()) } else { key.to_owned() }
}

fn place<'a>(algo: Algo, config: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    let path = path(algo, key);
    let mut names = path.split('.');
    let first = config.get(names.next()?)?;
    names.try_fold(first, |at, name| at.get(name))
}

fn field(param: impl Into<String>, code: &'static str, message: impl Into<String>) -> RunsError {
    RunsError::Field { param: param.into(), code, message: message.into() }
}

fn within<T: PartialOrd + std::fmt::Display>(param: &str, value: T, least: T, most: T) -> Result<T, RunsError> {
    if value >= least && value <= most {
        return Ok(value);
    }
    let message = format!("'{param}' must lie between {least} and {most} on this server, but is {value}.");
    Err(field(param, "out_of_range", message))
}

/// The configuration that a request asks for.
///
/// # Errors
/// [`RunsError::Field`] for the first field that is unknown, out of range or over a limit.
pub fn config(request: &RunRequest, limits: &RunLimits) -> Result<TrainConfig, RunsError> {
    let algo = Algo::ALL.into_iter().find(|algo| algo.name() == request.algo).ok_or_else(|| {
        let known = Algo::ALL.map(Algo::name).join(", ");
        field("algo", "unknown_algorithm", format!("There is no algorithm '{}'; there is {known}.", request.algo))
    })?;
    let preset = Preset::ALL.into_iter().find(|preset| preset.name() == request.preset).ok_or_else(|| {
        let known = Preset::ALL.map(Preset::name).join(", ");
        field("preset", "unknown_preset", format!("There is no preset '{}'; there is {known}.", request.preset))
    })?;
    let users = within("users", request.users, 1, limits.users)?;
    // TOML's integers, in which a run folder keeps the seed, are signed.
    let seed = within("seed", request.seed, 0, i64::MAX as u64)?;
    let steps = within("steps", request.steps, 1, limits.steps)?;
    let mec = system(users, request)?;
    let mut config = as_map(&TrainConfig::preset(algo, preset, mec));
    let known = declared(algo);
    for (key, value) in &request.hyper {
        set_hyper(algo, &known, &mut config, key, value)?;
    }
    let mut config: TrainConfig = serde_path_to_error::deserialize(Value::Object(config)).map_err(|error| {
        let path = error.path().to_string();
        let key = path.strip_prefix(algo.table()).unwrap_or(&path).trim_start_matches('.');
        let param = format!("hyper.{key}");
        field(param.clone(), "invalid_value", format!("'{param}': {}", error.into_inner()))
    })?;
    config.envs = within("envs", request.envs.unwrap_or(config.envs), 1, limits.envs)?;
    (config.seed, config.steps) = (seed, steps);
    config.validate().map_err(|error| field("hyper", "invalid_value", format!("{error}.")))?;
    affordable(&config)?;
    cost::within(&config, limits).map_err(|over| field(over.param, "too_costly", over.message))?;
    Ok(config)
}

/// Most floating-point operations of a gradient step, about a second's: in the middle of one a run cannot be stopped.
const MOST_STEP_FLOP: f64 = 2e10;
/// Most bytes that a run remembers and works on.
const MOST_MEMORY_BYTES: f64 = 2e9;

/// Whether a gradient step and a run's memory stay within what this server gives to one.
fn affordable(config: &TrainConfig) -> Result<(), RunsError> {
    let work = config.work();
    for (what, needed, most, unit, advice) in [
        ("A gradient step", work.step_flop, MOST_STEP_FLOP, "GFLOP", "a smaller minibatch (or batch)"),
        ("The run", work.memory_bytes, MOST_MEMORY_BYTES, "GB", "shorter rollouts, fewer cells, less to remember"),
    ] {
        if needed > most {
            let message = format!(
                "{what} would take {:.1} {unit}, but this server gives {:.0}: choose {advice} or smaller networks.",
                needed / 1e9,
                most / 1e9
            );
            return Err(field("hyper", "too_costly", message));
        }
    }
    Ok(())
}

fn system(users: usize, request: &RunRequest) -> Result<MecParams, RunsError> {
    let refused = |param: &str, error: &SettingError| field(param, "invalid_value", format!("{error}."));
    let mut params = MecParams { server_share: request.f_mode, ..MecParams::with_users(users) };
    params = params.with_variant(request.variant);
    if let Some(size) = request.size_mbit {
        params.set("size_max_mbit", size).map_err(|error| refused("size_mbit", &error))?;
        params = params.with_fixed_size(size);
    }
    for (key, value) in &request.settings {
        let param = format!("settings.{key}");
        if key == "users" {
            return Err(field(param, "invalid_value", "The number of users stands in the field 'users'."));
        }
        params.set(key, *value).map_err(|error| refused(&param, &error))?;
    }
    params.validate().map_err(|error| refused("settings", &error))?;
    Ok(params)
}

fn set_hyper(
    algo: Algo,
    known: &[HyperParameter],
    config: &mut Map<String, Value>,
    key: &str,
    value: &Value,
) -> Result<(), RunsError> {
    let param = format!("hyper.{key}");
    let Some(parameter) = known.iter().find(|parameter| parameter.key == key) else {
        let known: Vec<_> = known.iter().map(|parameter| parameter.key.as_str()).collect();
        let message = format!("{} has no hyper-parameter '{key}'; there is {}.", algo.name(), known.join(", "));
        return Err(field(param, "unknown_hyper_parameter", message));
    };
    parameter.kind.check(value).map_err(|refusal| {
        let code = match refusal {
            Refusal::Type => "invalid_type",
            Refusal::Range => "out_of_range",
            Refusal::Name => "invalid_value",
        };
        let message = format!("'{param}' must be {}, but is {value}.", parameter.kind.wanted());
        field(param, code, message)
    })?;
    let path = path(algo, key);
    let (tables, name) = path.rsplit_once('.').map_or((None, path.as_str()), |(tables, name)| (Some(tables), name));
    let tables = tables.into_iter().flat_map(|tables| tables.split('.'));
    // It is one of the known ones, so that every table on its way is there.
    let mut at = Some(config);
    for table in tables {
        at = at.and_then(|map| map.get_mut(table)?.as_object_mut());
    }
    if let Some(map) = at {
        map.insert(name.to_owned(), value.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(body: &Value) -> Result<TrainConfig, RunsError> {
        config(&serde_json::from_value(body.clone()).unwrap(), &RunLimits::default())
    }

    #[test]
    fn every_algorithm_is_offered_and_can_be_asked_for() {
        let offered = algorithms();
        assert_eq!(offered.len(), Algo::ALL.len() * Preset::ALL.len());
        let declared = hyper_parameters();
        for view in &offered {
            let algo = Algo::ALL.into_iter().find(|algo| algo.name() == view.name).unwrap();
            let preset = Preset::ALL.into_iter().find(|preset| preset.name() == view.preset).unwrap();
            // Every hyper-parameter has its value in the preset.
            assert!(declared[&view.name].iter().all(|parameter| view.hyper.contains_key(&parameter.key)));
            assert_eq!(declared[&view.name].len(), view.hyper.len(), "{}", view.name);
            assert!(view.hyper.keys().any(|key| key.contains("rate")), "{}: {:?}", view.name, view.hyper.keys());
            for key in ["eval_every", "checkpoint_every"] {
                assert!(view.hyper.contains_key(key), "{}: {key}", view.name);
            }
            for key in ELSEWHERE.iter().chain(&["algo", "mec"]) {
                assert!(!view.hyper.contains_key(*key), "{}: {key}", view.name);
            }
            // What a preset holds, sent back, changes nothing and breaks no limit.
            let config = ask(&json!({ "algo": view.name, "preset": view.preset, "hyper": view.hyper })).unwrap();
            let wanted = TrainConfig { steps: 100_000, ..TrainConfig::preset(algo, preset, MecParams::DEFAULT) };
            assert_eq!(config, wanted, "{} {}", view.name, view.preset);
        }
    }

    #[test]
    fn what_is_asked_for_arrives() {
        let config = ask(&json!({
            "users": 4, "variant": "backlog", "size_mbit": 1.5, "f_mode": "load", "seed": 9, "steps": 5000, "envs": 8,
            "settings": { "omega": 5.0 },
            "hyper": { "learning_rate": 0.0001, "credit": "gae", "hidden": [32], "eval_every": 3 },
        }))
        .unwrap();
        assert_eq!((config.seed, config.steps, config.envs, config.eval_every), (9, 5000, 8, 3));
        assert_eq!((config.ppo.learning_rate, config.ppo.hidden.as_slice()), (1e-4, &[32][..]));
        let mec = config.mec;
        assert_eq!((mec.users, mec.variant.name(), mec.server_share.name()), (4, "backlog", "load"));
        assert_eq!((mec.size_min_mbit, mec.size_max_mbit, mec.omega, mec.slot_s), (1.5, 1.5, 5.0, 0.15));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, param, says) in [
            (json!({"algo": "magic"}), "algo", "there is ppo"),
            (json!({"preset": "magic"}), "preset", "there is paper, tuned"),
            (json!({"algo": "wm-ppo", "hyper": {"model.magic": 1}}), "hyper.model.magic", "model."),
            (json!({"users": 0}), "users", "between 1 and 10"),
            (json!({"users": 11}), "users", "between 1 and 10"),
            (json!({"steps": 0}), "steps", "between 1 and"),
            (json!({"steps": 10_000_000_u64}), "steps", "between 1 and 1000000"),
            (json!({"envs": 1_000_000}), "envs", "between 1 and 256"),
            (json!({"seed": u64::MAX}), "seed", "between 0"),
            (json!({"size_mbit": -1.0}), "size_mbit", "must lie between"),
            (json!({"settings": {"omega": -1.0}}), "settings.omega", "must lie between"),
            (json!({"settings": {"magic": 1.0}}), "settings.magic", "no setting"),
            (json!({"settings": {"users": 1.0}}), "settings.users", "'users'"),
            (json!({"hyper": {"magic": 1}}), "hyper.magic", "learning_rate"),
            (json!({"hyper": {"mec": {}}}), "hyper.mec", "no hyper-parameter"),
            (json!({"hyper": {"gae_lambda": -0.5}}), "hyper.gae_lambda", "at least 0 and at most 1"),
            (json!({"hyper": {"gamma": 1.5}}), "hyper.gamma", "at least 0 and at most 1"),
            (json!({"hyper": {"epochs": 1_000_000}}), "hyper.epochs", "between 1 and 160"),
            (json!({"hyper": {"epochs": 0}}), "hyper.epochs", "between 1 and 160"),
            (json!({"hyper": {"epochs": 1.5}}), "hyper.epochs", "whole number"),
            (json!({"hyper": {"epochs": "many"}}), "hyper.epochs", "whole number"),
            (json!({"hyper": {"hidden": [4096]}}), "hyper.hidden", "between 1 and 1024"),
            (json!({"hyper": {"hidden": []}}), "hyper.hidden", "1 to 4"),
            (json!({"hyper": {"anneal": 1}}), "hyper.anneal", "true or false"),
            (json!({"hyper": {"credit": "magic"}}), "hyper.credit", "one of bandit, td0, gae"),
            // Each within its range, but not all of them together.
            (
                json!({"hyper": {"minibatch": 65_536, "rollout_steps": 3200, "hidden": [1024, 1024]}}),
                "hyper",
                "A gradient step",
            ),
            (
                json!({"envs": 256, "algo": "wm-ppo", "hyper": {"ppo.rollout_steps": 3200, "ppo.epochs": 1}}),
                "hyper",
                "GB",
            ),
        ] {
            match ask(&body) {
                Err(RunsError::Field { param: got, message, .. }) => {
                    assert_eq!(got, param, "{body}: {message}");
                    assert!(message.contains(says), "{body}: {message}");
                }
                other => panic!("{body}: {other:?}"),
            }
        }
    }
}
