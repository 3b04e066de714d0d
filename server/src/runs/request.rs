//! What is asked for → a training configuration, within the server's limits: of each field, and of all together
//! ([`cost`](super::cost)).
//!
//! Algorithms and hyper-parameters are read off [`TrainConfig`] itself: every [`Algo`] is offered, and what can be set is
//! what its presets hold.

use clap::ValueEnum as _;
use client::protocol::runs::{AlgoView, RunLimits, RunRequest};
use mec::{MecParams, SettingError};
use serde_json::{Map, Value};

use super::store::as_written;
use super::{RunsError, cost};
use rl::config::{Algo, Preset, TrainConfig};

/// What a request says elsewhere.
const ELSEWHERE: [&str; 5] = ["algo", "seed", "steps", "envs", "mec"];
/// Whole numbers may be this many times their default …
const MOST_TIMES: u64 = 16;
/// … which counts as at least this; so small ones have room, too.
const LEAST_DEFAULT: u64 = 4;
/// From here on a whole number is a capacity, which costs memory at once and may not grow.
const CAPACITY: u64 = 10_000;
/// Most layers of a network, and units in a layer.
const MOST_LAYERS: usize = 4;
const MOST_UNITS: u64 = 1024;
/// Largest fractional number.
const MOST: f64 = 1000.0;

/// Every algorithm with each of its presets.
#[must_use]
pub fn algorithms() -> Vec<AlgoView> {
    let view = |algo: Algo, preset: Preset| {
        let config = TrainConfig::preset(algo, preset, MecParams::DEFAULT);
        AlgoView {
            name: algo.name().to_owned(),
            preset: name(preset),
            envs: config.envs,
            hyper: match as_written(Value::Object(hyper(algo, &as_map(&config)))) {
                Value::Object(hyper) => hyper,
                _ => Map::new(),
            },
        }
    };
    let presets =
        |algo: &Algo| Preset::value_variants().iter().map(move |preset| view(*algo, *preset)).collect::<Vec<_>>();
    Algo::value_variants().iter().flat_map(presets).collect()
}

fn name(preset: Preset) -> String {
    preset.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn as_map(config: &TrainConfig) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(map)) => map,
        // A configuration of numbers and names always is an object.
        _ => Map::new(),
    }
}

fn elsewhere(key: &str) -> bool {
    ELSEWHERE.contains(&key)
}

/// What can be set of an algorithm, with its values: its own table (`model.hidden` for what stands in a table of that),
/// then what holds for all algorithms.
fn hyper(algo: Algo, config: &Map<String, Value>) -> Map<String, Value> {
    let own = config.get(algo.table()).and_then(Value::as_object);
    let mut all = Map::new();
    for (key, value) in own.into_iter().flatten() {
        match value {
            Value::Object(inner) => {
                all.extend(inner.iter().map(|(name, value)| (format!("{key}.{name}"), value.clone())));
            }
            value => drop(all.insert(key.clone(), value.clone())),
        }
    }
    for (key, value) in config.iter().filter(|(key, _)| !elsewhere(key)) {
        all.entry(key.clone()).or_insert_with(|| value.clone());
    }
    all.retain(|_, value| !value.is_object());
    all
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
    let algo = Algo::value_variants().iter().copied().find(|algo| algo.name() == request.algo).ok_or_else(|| {
        let known: Vec<_> = Algo::value_variants().iter().map(|algo| algo.name()).collect();
        let message = format!("There is no algorithm '{}'; there is {}.", request.algo, known.join(", "));
        field("algo", "unknown_algorithm", message)
    })?;
    let preset =
        Preset::value_variants().iter().copied().find(|preset| name(*preset) == request.preset).ok_or_else(|| {
            let known: Vec<_> = Preset::value_variants().iter().map(|preset| name(*preset)).collect();
            let message = format!("There is no preset '{}'; there is {}.", request.preset, known.join(", "));
            field("preset", "unknown_preset", message)
        })?;
    let users = within("users", request.users, 1, limits.users)?;
    // TOML's integers, in which a run folder keeps the seed, are signed.
    let seed = within("seed", request.seed, 0, i64::MAX as u64)?;
    let steps = within("steps", request.steps, 1, limits.steps)?;
    let mec = system(users, request)?;
    let mut config = as_map(&TrainConfig::preset(algo, preset, mec));
    let known = hyper(algo, &config);
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
    cost::within(&config, limits).map_err(|over| field(over.param, "too_costly", over.message))?;
    Ok(config)
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
    known: &Map<String, Value>,
    config: &mut Map<String, Value>,
    key: &str,
    value: &Value,
) -> Result<(), RunsError> {
    let param = format!("hyper.{key}");
    let Some(default) = known.get(key) else {
        let known: Vec<_> = known.keys().map(String::as_str).collect();
        let message = format!("{} has no hyper-parameter '{key}'; there is {}.", algo.name(), known.join(", "));
        return Err(field(param, "unknown_hyper_parameter", message));
    };
    check_hyper(&param, default, value)?;
    let first = key.split('.').next().unwrap_or(key);
    let is_own = config.get(algo.table()).and_then(Value::as_object).is_some_and(|own| own.contains_key(first));
    let own = if is_own { config.get_mut(algo.table()).and_then(Value::as_object_mut) } else { Some(config) };
    let Some(mut at) = own else { return Ok(()) };
    let mut path = key.split('.').peekable();
    while let Some(name) = path.next() {
        if path.peek().is_none() {
            at.insert(name.to_owned(), value.clone());
            break;
        }
        match at.get_mut(name).and_then(Value::as_object_mut) {
            Some(inner) => at = inner,
            // It is one of the known ones, so that every section on its way is there.
            None => break,
        }
    }
    Ok(())
}

/// Whether a value is of a size that this server takes; its type is checked when the configuration is read.
fn check_hyper(param: &str, default: &Value, value: &Value) -> Result<(), RunsError> {
    let kind = |wanted: &str| field(param, "invalid_type", format!("'{param}' must be {wanted}, but is {value}."));
    match (default, value) {
        (Value::Number(default), Value::Number(given)) => {
            if let Some(default) = default.as_u64() {
                let given = given.as_u64().ok_or_else(|| kind("a whole number that is not negative"))?;
                let room = if default < CAPACITY { MOST_TIMES * default.max(LEAST_DEFAULT) } else { default };
                within(param, given, default.min(1), room)?;
            } else {
                // A share, a discount or a trace: more than all makes no sense.
                let is_share = ["gamma", "lambda", "tau", "rate"].iter().any(|word| param.contains(word));
                let given = given.as_f64().ok_or_else(|| kind("a number"))?;
                let least = if default.as_f64().is_some_and(|default| default < 0.0) { -MOST } else { 0.0 };
                within(param, given, least, if is_share { 1.0 } else { MOST })?;
            }
        }
        (Value::Array(_), Value::Array(given)) => {
            if !(1..=MOST_LAYERS).contains(&given.len()) {
                return Err(kind(&format!("a list of 1 to {MOST_LAYERS} numbers")));
            }
            for entry in given {
                let units = entry.as_u64().ok_or_else(|| kind("a list of whole numbers"))?;
                within(param, units, 1, MOST_UNITS)?;
            }
        }
        // Optional ones have no default to compare with.
        (Value::Null, Value::Number(given)) => {
            within(param, given.as_f64().unwrap_or(f64::NAN), -MOST, MOST)?;
        }
        (Value::Null, Value::Null) => {}
        (Value::Bool(_), Value::Bool(_)) | (Value::String(_), Value::String(_)) => {}
        (Value::Number(_), _) => return Err(kind("a number")),
        (Value::Array(_), _) => return Err(kind("a list of numbers")),
        (Value::Bool(_), _) => return Err(kind("true or false")),
        (Value::String(_), _) => return Err(kind("a text")),
        _ => return Err(kind("something else")),
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
        assert_eq!(offered.len(), Algo::value_variants().len() * Preset::value_variants().len());
        for view in &offered {
            let algo = Algo::value_variants().iter().find(|algo| algo.name() == view.name).unwrap();
            let preset = Preset::value_variants().iter().find(|preset| name(**preset) == view.preset).unwrap();
            assert!(view.hyper.keys().any(|key| key.contains("rate")), "{}: {:?}", view.name, view.hyper.keys());
            for key in ["eval_every", "checkpoint_every"] {
                assert!(view.hyper.contains_key(key), "{}: {key}", view.name);
            }
            for key in ELSEWHERE {
                assert!(!view.hyper.contains_key(key), "{}: {key}", view.name);
            }
            // What a preset holds, sent back, changes nothing and breaks no limit.
            let config = ask(&json!({ "algo": view.name, "preset": view.preset, "hyper": view.hyper })).unwrap();
            let wanted = TrainConfig { steps: 100_000, ..TrainConfig::preset(*algo, *preset, MecParams::DEFAULT) };
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
            (json!({"hyper": {"gae_lambda": -0.5}}), "hyper.gae_lambda", "between 0 and 1"),
            (json!({"hyper": {"gamma": 1.5}}), "hyper.gamma", "between 0 and 1"),
            (json!({"hyper": {"epochs": 1_000_000}}), "hyper.epochs", "between 1 and 64"),
            (json!({"hyper": {"epochs": 0}}), "hyper.epochs", "between 1 and 64"),
            (json!({"hyper": {"epochs": 1.5}}), "hyper.epochs", "whole number"),
            (json!({"hyper": {"epochs": "many"}}), "hyper.epochs", "a number"),
            (json!({"hyper": {"hidden": [4096]}}), "hyper.hidden", "between 1 and 1024"),
            (json!({"hyper": {"hidden": []}}), "hyper.hidden", "1 to 4"),
            (json!({"hyper": {"anneal": 1}}), "hyper.anneal", "true or false"),
            (json!({"hyper": {"credit": "magic"}}), "hyper.credit", "`bandit`"),
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
