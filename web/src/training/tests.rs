//! The list, the charts and the form, without a browser.

use chart::plot::Stroke;
use client::protocol::runs::{AlgoView, HyperKind, MetricsLine, RunLimits, RunState, Training as Offer};
use mec::ServerShare;
use serde_json::{Value, json};

use super::charts::{EVALUATED, EXPLORED};
use super::curve::STEP;
use super::*;

fn algo() -> AlgoView {
    let hyper = json!({
        "learning_rate": 0.001, "epochs": 4, "credit": "bandit", "hidden": [256, 256], "anneal": true,
    });
    AlgoView {
        name: "ppo".into(),
        preset: "tuned".into(),
        envs: 32,
        hyper: hyper.as_object().cloned().unwrap_or_default(),
    }
}

fn run(id: i64, state: RunState) -> RunView {
    RunView {
        id,
        state,
        stopping: false,
        config: json!({"algo": "ppo", "seed": 4, "ppo": {"credit": "gae"}, "mec": {"users": 3, "variant": "backlog"}}),
        created_ms: 1,
        started_ms: None,
        ended_ms: None,
        steps: 0,
        total_steps: 100,
        best_reward: Some(1.5),
        references: [("optimum".to_owned(), 2.0), ("closed form".to_owned(), 1.9)].into(),
        error: None,
        has_policy: false,
        resumes: 0,
    }
}

fn list(runs: Vec<RunView>) -> RunList {
    RunList { training: Offer { off: None, algorithms: vec![algo()], limits: RunLimits::default() }, runs, next: None }
}

fn line(step: f64, values: &[(&str, f64)]) -> MetricsLine {
    let own = [(STEP, step), (EXPLORED, step / 100.0)];
    own.iter().chain(values).map(|(key, value)| ((*key).to_owned(), *value)).collect()
}

fn with_curves() -> Training {
    let mut training = Training::default();
    training.take_list(list(vec![run(2, RunState::Running), run(1, RunState::Stopped)]));
    training.toggle(1);
    let curve = training.curves.entry(2).or_default();
    curve.push(line(10.0, &[("losses/value_loss", 3.0)]), "0.1");
    curve.push(line(20.0, &[(EVALUATED, 1.25), ("losses/value_loss", 2.0)]), "0.2");
    training.curves.entry(1).or_default().push(line(10.0, &[]), "0.1");
    training
}

#[test]
fn every_figure_is_in_the_reports() {
    let public = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../public");
    let pictures = FIGURES.iter().flat_map(|(name, _)| ["svg", "json"].map(|end| format!("reports/{name}.{end}")));
    for file in pictures.chain([REPORT.to_owned()]) {
        assert!(public.join(&file).is_file(), "{file}");
    }
}

#[test]
fn lines_become_columns_that_keep_their_steps() {
    let training = with_curves();
    let curve = &training.curves[&2];
    assert_eq!((curve.len(), curve.last_id.as_str()), (2, "0.2"));
    assert_eq!(curve.points(EVALUATED), [(20.0, 1.25)]);
    assert_eq!(curve.points("losses/value_loss"), [(10.0, 3.0), (20.0, 2.0)]);
    assert_eq!(curve.points("nothing"), []);
    let mut again = curve.clone();
    again.push(line(20.0, &[]), "0.2");
    assert_eq!(again.len(), 2, "a line that comes twice counts once");
    again.push(line(20.0, &[]), "1.1");
    assert_eq!(again.len(), 3);
    assert_eq!(training.keys(), ["losses/value_loss"]);
}

#[test]
fn the_first_list_shows_what_goes_on_and_later_ones_tell_what_changed() {
    let mut training = Training::default();
    let runs = || vec![run(3, RunState::Finished), run(2, RunState::Running), run(1, RunState::Stopped)];
    assert!(training.take_list(list(runs())).is_empty(), "nothing was known before");
    assert_eq!(training.shown, [2].into());
    let mut later = runs();
    later[1].state = RunState::Failed;
    later[1].error = Some("The disk is full.".into());
    let news = training.take_list(list(later));
    assert_eq!(news, ["Run 2: ppo gae, K = 3, backlog: failed. The disk is full."]);
    training.take_list(list(vec![run(3, RunState::Finished)]));
    assert!(training.shown.is_empty(), "a deleted run is not shown");
    training.take_run(run(4, RunState::Queued));
    assert_eq!(training.list.as_ref().map(|l| l.runs[0].id), Some(4));
}

#[test]
fn only_so_many_runs_are_compared() {
    let mut training = Training::default();
    for id in 0..MOST_SHOWN as i64 {
        assert!(training.toggle(id));
    }
    assert!(!training.toggle(99));
    assert!(training.toggle(0) && training.toggle(99));
    assert_eq!(training.colour(99), MOST_SHOWN - 1);
}

#[test]
fn charts_hold_every_shown_run_and_its_levels() {
    let training = with_curves();
    let plot = training.reward_plot([600.0, 300.0], |place| format!("c{place}"), "grey");
    let count = |stroke| plot.lines.iter().filter(|line| line.stroke == stroke).count();
    let counts = [Stroke::Dashed, Stroke::Dotted, Stroke::Faint, Stroke::Bold].map(count);
    assert_eq!(counts, [2, 2, 2, 2]);
    let plot = training.key_plot("losses/value_loss", [600.0, 300.0], |place| format!("c{place}"));
    assert_eq!(plot.lines.len(), 2);
    assert_eq!((plot.y_name.as_str(), plot.lines[1].points.len()), ("value loss", 2));
    let summary = training.summary();
    assert!(summary.contains("last 1.250, best 1.500, closed form 1.900, optimum 2.000"), "{summary}");
}

#[test]
fn the_csv_has_a_row_a_line_and_a_column_a_metric() {
    let csv = with_curves().csv();
    let rows: Vec<Vec<&str>> = csv.trim_end().split("\r\n").map(|row| row.split(',').collect()).collect();
    let head = "run,algo,users,seed,global_step,charts/mean_reward,eval/reward,losses/value_loss";
    assert_eq!(rows[0].join(","), head);
    assert_eq!(rows[1], ["1", "ppo", "3", "4", "10", "0.1", "", ""]);
    assert_eq!(rows[3], ["2", "ppo", "3", "4", "20", "0.2", "1.25", "2"]);
    assert_eq!(rows.len(), 4);
}

#[test]
fn hyper_parameters_are_sent_only_where_they_differ() {
    let (mut form, algo) = (Form::default(), algo());
    let whole = HyperKind::Whole { least: 1, most: 64 };
    let rate = HyperKind::Number { least: 0.0, most: 1.0, ends: [false, true], by_magnitude: true };
    let choice = HyperKind::Choice { names: vec!["bandit".into(), "gae".into()] };
    let layers = HyperKind::Layers { fewest: 1, most: 4, units: 1024 };
    for (key, kind, text, is_value, sent) in [
        ("epochs", &whole, "8", true, json!({"epochs": 8})),
        ("epochs", &whole, "4", true, json!({})),
        ("epochs", &whole, "1.5", false, json!({})),
        // Out of range: sent, and refused by the server.
        ("epochs", &whole, "1000", true, json!({"epochs": 1000})),
        ("epochs", &whole, "4", true, json!({})),
        ("learning_rate", &rate, "0.01", true, json!({"learning_rate": 0.01})),
        ("learning_rate", &rate, "1e-3", true, json!({})),
        ("learning_rate", &rate, "fast", false, json!({})),
        ("learning_rate", &rate, "inf", false, json!({})),
        ("credit", &choice, "gae", true, json!({"credit": "gae"})),
        ("credit", &choice, "bandit", true, json!({})),
        ("hidden", &layers, "32, 16", true, json!({"hidden": [32, 16]})),
        ("hidden", &layers, "32, many", false, json!({"hidden": [32, 16]})),
        ("hidden", &layers, "256 256", true, json!({})),
        ("anneal", &HyperKind::Switch, "maybe", false, json!({})),
        ("anneal", &HyperKind::Switch, "false", true, json!({"anneal": false})),
        ("anneal", &HyperKind::Switch, "true", true, json!({})),
    ] {
        assert_eq!(form.type_hyper(&algo, key, kind, text), is_value, "{key} = {text}");
        assert_eq!(Value::Object(form.request.hyper.clone()), sent, "{key} = {text}");
    }
    form.type_hyper(&algo, "epochs", &whole, "8");
    let other = AlgoView { name: "other".into(), preset: "paper".into(), envs: 1, hyper: serde_json::Map::new() };
    form.set_algo(&other);
    assert_eq!((form.request.algo.as_str(), form.request.hyper.len()), ("other", 0));
    assert_eq!(hyper_text(&json!([256, 64])), "256, 64");
    assert_eq!(hyper_text(&json!(f64::from(0.95_f32))), "0.95");
}

#[test]
fn the_policys_learning_rate_has_the_slider() {
    for (hyper, expect) in [
        (json!({"learning_rate": 0.1, "model.learning_rate": 0.2}), Some("learning_rate")),
        (json!({"model.learning_rate": 0.1, "ppo.learning_rate": 0.2}), Some("ppo.learning_rate")),
        (json!({"actor_learning_rate": 0.1, "critic_learning_rate": 0.2}), Some("actor_learning_rate")),
        (json!({"actor_rate": 0.1, "critic_rate": 0.2}), Some("actor_rate")),
        (json!({"epochs": 3}), None),
    ] {
        let algo = AlgoView {
            name: "x".into(),
            preset: "tuned".into(),
            envs: 1,
            hyper: hyper.as_object().cloned().unwrap_or_default(),
        };
        assert_eq!(rate_key(&algo).as_deref(), expect);
    }
}

#[test]
fn a_logarithmic_slider_there_and_back() {
    for value in [1e-5, 3e-4, 1e-3, 0.1] {
        let back = log_value(log_place(value, 1e-5, 0.1), 1e-5, 0.1);
        assert!((back / value - 1.0).abs() < 0.06, "{value}: {back}");
    }
    assert_eq!(log_value(0.0, 1e-5, 0.1), 1e-5);
    let number = |least, by_magnitude| HyperKind::Number { least, most: 1.0, ends: [false, true], by_magnitude };
    assert_eq!(log_range(&number(0.0, true)), Some((1e-5, 1.0)));
    assert_eq!(log_range(&number(0.1, true)), Some((0.1, 1.0)));
    assert_eq!(log_range(&number(0.0, false)), None);
    assert_eq!(log_value(LOG_PLACES, 1e3, 1e6), 1e6);
}

#[test]
fn every_choice_of_the_simulator_is_offered() {
    assert_eq!(VARIANTS.map(|(v, _)| v), Variant::ALL);
    assert_eq!(SHARES.map(|(s, _)| s), ServerShare::ALL);
}
