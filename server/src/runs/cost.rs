//! How long a configuration would compute. Each of its fields can be within its limit and the product still take weeks:
//! layers times units times epochs times steps.
//!
//! What is counted are the multiplications of the networks, forwards once and backwards twice, and the slots that are
//! simulated. That is an estimate, by a rate that is not measured on this machine; it is there to tell minutes from weeks. What
//! holds is the run's own updates ([`Meter`]): where they take more than twice of what is allowed, the run ends and says so. Its
//! deadline ([`RunLimits::minutes`]) does the rest.

use std::time::{Duration, Instant};

use client::protocol::runs::RunLimits;

use rl::config::{Algo, TrainConfig};
use rl::worlds::Worlds;

/// Multiplications a second that a training thread is taken to do, small networks and small batches included: an estimate
/// on the careful side, not a measurement.
const RATE: f64 = 5e8;
/// Time that a slot takes to simulate, for each user.
const SLOT_S: f64 = 1e-5;
/// Time of a short search for its decision, for each user.
const SEARCH_S: f64 = 1e-5;
/// Features and actions of a user, about.
const FEATURES: f64 = 7.0;
const ACTIONS: f64 = 2.0;
/// Time for the optimum of a slot of ten users, which an evaluation's slots are compared with; it grows with the square of
/// their number.
const OPTIMUM_OF_TEN_S: f64 = 0.016;
/// Longest update. A run can be stopped in the middle of it, and then does it again when it is resumed.
const MOST_UPDATE_S: f64 = 120.0;
/// Longest time before the first update.
const MOST_SETUP_S: f64 = 600.0;
/// A run may take this many times its deadline: it can be resumed, and the estimate may be off.
const RESUMES: f64 = 24.0;
/// How many times longer than allowed by the estimate a run may turn out to take: the machine may be busy with other things.
const PATIENCE: f64 = 2.0;
/// How long a run is measured before its end is foretold.
const MEASURED_FOR: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_secs(60) };

/// What is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitExceeded {
    /// Which field to change.
    pub param: &'static str,
    /// What would take how long, and what to do.
    pub message: String,
}

/// Estimated times, seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Before the first update.
    pub setup_s: f64,
    /// The heaviest update, an evaluation included.
    pub update_s: f64,
    /// All of it.
    pub total_s: f64,
}

/// Multiplications of a network for one input.
fn network(input: f64, hidden: &[usize], output: f64) -> f64 {
    let sizes = hidden.iter().map(|units| *units as f64).chain([output]);
    sizes.fold((0.0, input), |(sum, from), to| (sum + from * to, to)).0
}

/// The time that a configuration takes.
#[must_use]
pub fn of(config: &TrainConfig) -> Cost {
    let users = config.mec.users as f64;
    let (input, output) = (config.sees.features_per_user() as f64 * users, ACTIONS * users);
    // In a random system each slot is also searched for what decisions without learning get; set-ascent's own count has that.
    let searched = if config.worlds == Worlds::Random && !config.algo.is_set() { SEARCH_S } else { 0.0 };
    let slot_s = (SLOT_S + searched) * users;
    let envs = config.envs as f64;
    // Steps of all cells until the networks learn again, and what learning from them takes; then one decision.
    let (steps, learning, decision) = match config.algo {
        Algo::Ppo => on_policy(&config.ppo, envs, input, output),
        Algo::PpoLagrangian => on_policy(&config.ppo_lagrangian.ppo, envs, input, output),
        Algo::WmPpo | Algo::WmPpoMended => {
            let wm = &config.wm_ppo;
            let (steps, own, decision) = on_policy(&wm.ppo, envs, input, output);
            let state = (wm.model.deterministic + wm.model.stochastic) as f64;
            let (units, model) = (wm.model.hidden as f64, &wm.model);
            let cell = 3.0 * state * model.deterministic as f64 + 4.0 * units * (state + input) + units * units;
            let modelled = (model.updates * model.sequences * model.length) as f64 * 3.0 * cell;
            let members = &wm.ensemble;
            let member = network((members.history as f64 + 1.0) * (input + output), &members.hidden, input + 1.0);
            let ensembled = (members.members * members.updates * members.batch) as f64 * 3.0 * member;
            let imagined = (wm.rounds * wm.starts * wm.horizon) as f64;
            let dreamt = imagined * (cell.max(members.members as f64 * member) + 3.0 * wm.ppo.epochs as f64 * decision);
            (steps, own + modelled + ensembled + dreamt, decision)
        }
        Algo::Td3 => off_policy(&config.td3.hidden, &config.td3.replay, envs, input, output),
        Algo::Ddpg => off_policy(&config.ddpg.hidden, &config.ddpg.replay, envs, input, output),
        Algo::Sac => off_policy(&config.sac.hidden, &config.sac.replay, envs, input, output),
        Algo::SetDpg => {
            let set = &config.set_dpg;
            // One user at a time, for every number of users.
            let layers = |encoder: &[usize], head: &[usize]| {
                users * (network(FEATURES, encoder, 64.0) + network(2.0 * 64.0, head, ACTIONS))
            };
            let (actor, critic) = (layers(&set.encoder, &set.head), layers(&set.critic_encoder, &set.critic_head));
            let cells = envs * users;
            let updates = set.replay.updates_per_step * cells;
            (cells, updates * set.replay.batch as f64 * 3.0 * (actor + 2.0 * critic), actor)
        }
        Algo::SetAscent => {
            let shape = config.set_ascent.shape(config.mec.users);
            let layers: f64 =
                shape.encoder_layers().iter().chain(&shape.head_layers()).map(|[i, o]| (i * o) as f64).sum();
            let steps = (config.set_ascent.report_steps * config.set_ascent.batch) as f64;
            // A proposal's completion takes about 2,000 operations a user; each output is moved both ways.
            let quotients = users * shape.outputs() as f64 * (users + 3.0) / 2.0 * 2000.0;
            (steps, steps * (3.0 * users / 2.0 * layers + quotients / 4.0), users * layers)
        }
    };
    let slots = config.eval_slots as f64;
    let evaluation_s = slots * (decision / RATE + SLOT_S * users);
    let setup_s = slots * OPTIMUM_OF_TEN_S * (users / 10.0).powi(2);
    let update_s = (learning + steps * decision) / RATE + steps * slot_s;
    let updates = (config.steps as f64 / steps.max(1.0)).max(1.0);
    let evaluations = updates / config.eval_every.max(1) as f64;
    let total_s = setup_s + updates * update_s + evaluations * evaluation_s;
    Cost { setup_s, update_s: update_s + evaluation_s, total_s }
}

fn on_policy(ppo: &rl::ppo::PpoConfig, envs: f64, input: f64, output: f64) -> (f64, f64, f64) {
    let steps = ppo.rollout_steps as f64 * envs;
    let (actor, critic) = (network(input, &ppo.hidden, 2.0 * output), network(input, &ppo.hidden, 1.0));
    (steps, steps * ppo.epochs as f64 * 3.0 * (actor + critic), actor)
}

fn off_policy(
    hidden: &[usize],
    replay: &rl::replay::ReplayConfig,
    envs: f64,
    input: f64,
    output: f64,
) -> (f64, f64, f64) {
    let (actor, critic) = (network(input, hidden, output), network(input + output, hidden, 1.0));
    let updates = replay.updates_per_step * envs;
    (envs, updates * replay.batch as f64 * 3.0 * (actor + 2.0 * critic), actor)
}

fn most_total_s(limits: &RunLimits) -> f64 {
    60.0 * limits.minutes.max(1) as f64 * RESUMES
}

/// Looks at a run's own updates: what it really takes, where [`within`] could only estimate.
#[derive(Debug)]
pub struct Meter {
    steps: u64,
    most_total_s: f64,
    /// The first update, which set-up came before, and the last.
    begun: Option<(Instant, u64)>,
    last: Instant,
}

impl Meter {
    /// Of a run of so many steps.
    #[must_use]
    pub fn new(steps: u64, limits: &RunLimits, now: Instant) -> Self {
        Self { steps, most_total_s: PATIENCE * most_total_s(limits), begun: None, last: now }
    }

    /// An update is done, the run's `steps`-th step with it. Says why the run cannot go on, if it takes too long.
    pub fn update(&mut self, steps: u64, now: Instant) -> Option<String> {
        let update_s = now.saturating_duration_since(self.last).as_secs_f64();
        self.last = now;
        let Some((begun, begun_at)) = self.begun else {
            self.begun = Some((now, steps));
            return None;
        };
        if update_s > PATIENCE * MOST_UPDATE_S {
            return Some(format!(
                "One update took {} on this machine, over the {} that this server gives to one; smaller networks, fewer \
                 cells, epochs or updates, or a smaller batch would help.",
                words(update_s),
                words(PATIENCE * MOST_UPDATE_S)
            ));
        }
        let measured = now.saturating_duration_since(begun);
        let total_s = measured.as_secs_f64() / steps.saturating_sub(begun_at).max(1) as f64 * self.steps as f64;
        (measured >= MEASURED_FOR && total_s > self.most_total_s).then(|| {
            format!(
                "At the speed of its first updates this run would take {}, over the {} of this server; fewer steps, or what \
                 makes each of them cheaper, would help.",
                words(total_s),
                words(self.most_total_s)
            )
        })
    }
}

/// Whether a run stays within what the server gives to one.
///
/// # Errors
/// [`LimitExceeded`].
pub fn within(config: &TrainConfig, limits: &RunLimits) -> Result<(), LimitExceeded> {
    let cost = of(config);
    let most_total_s = most_total_s(limits);
    let cases = [
        (
            "hyper.eval_slots",
            "The comparison before the first update",
            cost.setup_s,
            MOST_SETUP_S,
            "fewer 'eval_slots' or users",
        ),
        (
            "hyper",
            "An update",
            cost.update_s,
            MOST_UPDATE_S,
            "smaller networks, fewer cells, epochs or updates, or a smaller batch",
        ),
        ("steps", "This run", cost.total_s, most_total_s, "fewer steps, or what makes each of them cheaper"),
    ];
    for (param, what, takes_s, most_s, help) in cases {
        // NaN is over, too.
        if takes_s.is_nan() || takes_s > most_s {
            let message = format!(
                "{what} would take about {}, over the {} of this server; {help} would help.",
                words(takes_s),
                words(most_s)
            );
            return Err(LimitExceeded { param, message });
        }
    }
    Ok(())
}

fn words(seconds: f64) -> String {
    match seconds {
        s if s < 180.0 => format!("{s:.0} s"),
        s if s < 3.0 * 3600.0 => format!("{:.0} minutes", s / 60.0),
        s => format!("{:.0} hours", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;
    use mec::MecParams;
    use rl::config::Preset;

    use super::*;

    #[test]
    fn every_preset_fits_at_every_number_of_users_and_the_most_steps() {
        let limits = RunLimits::default();
        for algo in Algo::value_variants() {
            for preset in Preset::value_variants() {
                for users in 1..=limits.users {
                    let mut config = TrainConfig::preset(*algo, *preset, MecParams::with_users(users));
                    assert_eq!(within(&config, &limits), Ok(()), "{algo:?} {preset:?} {users}: {:?}", of(&config));
                    if users == 2 && matches!(algo, Algo::Ppo | Algo::SetDpg) {
                        config.steps = limits.steps;
                        assert_eq!(within(&config, &limits), Ok(()), "{algo:?} {preset:?}: {:?}", of(&config));
                    }
                }
            }
        }
    }

    #[test]
    fn what_a_run_really_takes_counts_in_the_end() {
        let limits = RunLimits { minutes: 1, ..RunLimits::default() };
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        // 2 · 1 · 24 minutes at most: 2,880 s for 1,000 steps of 10 an update.
        for (update_s, refused) in [(20.0, false), (28.0, false), (30.0, true), (239.0, true)] {
            let mut meter = Meter::new(1000, &limits, start);
            assert_eq!(meter.update(10, at(500.0)), None, "set-up is no update");
            let found = (1..=5).find_map(|n| meter.update(10 + 10 * n, at(500.0 + update_s * n as f64)));
            assert_eq!(found.is_some(), refused, "{update_s}: {found:?}");
            assert!(found.is_none_or(|why| why.contains("48 minutes")));
        }
        let mut meter = Meter::new(20, &RunLimits::default(), start);
        assert_eq!(meter.update(1, at(1.0)), None);
        assert_eq!(meter.update(2, at(240.0)), None);
        let why = meter.update(3, at(481.0)).unwrap();
        assert!(why.contains("One update took 4 minutes"), "{why}");
    }

    #[test]
    fn a_product_of_what_is_allowed_can_be_too_much() {
        let limits = RunLimits::default();
        // Each of these is within its own limit.
        let mut heavy = TrainConfig::new(10);
        (heavy.ppo.hidden, heavy.ppo.epochs, heavy.ppo.rollout_steps, heavy.envs) = (vec![1024; 4], 64, 256, 256);
        assert!(of(&heavy).update_s > 3600.0, "{:?}", of(&heavy));
        assert_eq!(within(&heavy, &limits).unwrap_err().param, "hyper");
        let mut long = TrainConfig::new(10);
        (long.ppo.hidden, long.ppo.epochs, long.steps) = (vec![1024; 4], 64, 1_000_000);
        (long.envs, long.ppo.rollout_steps) = (1, 16);
        let over = within(&long, &limits).unwrap_err();
        assert!(over.param == "steps" && over.message.contains("hours"), "{over:?}");
        let mut compared = TrainConfig::new(10);
        compared.eval_slots = 1_000_000;
        assert_eq!(within(&compared, &limits).unwrap_err().param, "hyper.eval_slots");
        // More of anything never costs less.
        let base = of(&TrainConfig::new(3));
        for change in [
            |c: &mut TrainConfig| c.ppo.epochs *= 2,
            |c: &mut TrainConfig| c.ppo.hidden.push(64),
            |c: &mut TrainConfig| c.steps *= 2,
            |c: &mut TrainConfig| c.mec.users += 1,
        ] {
            let mut more = TrainConfig::new(3);
            change(&mut more);
            assert!(of(&more).total_s > base.total_s);
        }
    }
}
