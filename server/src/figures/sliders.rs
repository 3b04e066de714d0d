//! Share of the optimum's reward over the range of one slider after the other, the rest at the defaults.

use mec::settings::{Scale, find};
use mec::world::nth_seed;
use mec::{MecParams, QosKnowledge, StaticPolicy};
use policy::Policy;
use serde_json::json;

use super::Figure;
use super::systems::Judging;
use chart::{Level, Line, LineChart, Point};
use rl::error::TrainError;
use rl::evaluate::{Bench, Judged};
use rl::references::best_constants;

/// The sliders that decide what is best; the others say how slots follow each other, or stand for one of these.
pub const SLIDERS: [&str; 14] = [
    "device_hz",
    "server_hz",
    "cycles_per_bit",
    "bandwidth_hz",
    "p_max_dbm",
    "noise_dbm",
    "radius_m",
    "kappa_comp",
    "e_max_j",
    "a_min",
    "h_max",
    "omega",
    "accuracy_local",
    "difficulty_rho",
];
/// Places on a slider.
const PLACES: usize = 9;
/// Users of the cell.
const USERS: usize = 3;

/// The figure of one slider.
///
/// # Errors
/// When there is no such slider, or the policy's device fails.
pub fn over_slider(key: &str, policy: &Policy, judging: Judging) -> Result<Figure, TrainError> {
    let refused = |problem: String| TrainError::Damaged { path: key.into(), problem };
    let setting = find(key).map_err(|e| refused(e.to_string()))?;
    let log = setting.scale == Scale::Log;
    let mut lines: Vec<Line> = Vec::new();
    let mut rows = Vec::new();
    for place in 0..PLACES {
        let along = place as f64 / (PLACES - 1) as f64;
        let value = match setting.scale {
            Scale::Log => setting.min * (setting.max / setting.min).powf(along),
            Scale::Linear => setting.min + along * (setting.max - setting.min),
        };
        let value = value.clamp(setting.min, setting.max);
        let mut params = MecParams::with_users(USERS);
        params.set(key, value).map_err(|e| refused(e.to_string()))?;
        let bench = Bench::new(params, judging.draws, judging.seed);
        let optimum = bench.score(Judged::Optimum)?;
        let closed_form = Judged::Static(StaticPolicy::ClosedForm(QosKnowledge::Mean));
        let mut scores = vec![bench.score(Judged::Learned(policy))?, bench.score(closed_form)?];
        for action in best_constants(params, nth_seed(judging.seed, u64::MAX))? {
            scores.push(bench.score(Judged::Constant(action))?);
        }
        for score in &scores {
            let x = if log { value.log10() } else { value };
            let point = Point { x, y: score.reward / optimum.reward, half_width: 0.0 };
            match lines.iter_mut().find(|line| line.name == score.name) {
                Some(line) => line.points.push(point),
                None => lines.push(Line { name: score.name.clone(), points: vec![point] }),
            }
        }
        rows.push(json!({ "value": value, "optimum": optimum, "scores": scores }));
    }
    let unit = match (log, setting.unit) {
        (true, "") => ", log10".to_owned(),
        (true, unit) => format!(", log10 of {unit}"),
        (false, "") => String::new(),
        (false, unit) => format!(" ({unit})"),
    };
    let chart = LineChart {
        title: format!("Share of the optimum over {key}, K = {USERS}"),
        x_title: format!("{}{unit}", setting.label),
        y_title: "mean reward / the optimum's".to_owned(),
        lines,
        levels: vec![Level { name: "optimum".to_owned(), value: 1.0 }],
    };
    let data = json!({
        "figure": format!("worlds-{key}"), "users": USERS, "draws": judging.draws, "seed": judging.seed,
        "default": setting.default, "places": rows, "chart": chart,
    });
    Figure::new(&format!("worlds-{key}"), chart.svg(), data)
}
