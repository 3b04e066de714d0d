//! The simulator against independent reference values, and properties that hold whatever the numbers.

use mec::channel::{self, Position, Scatter};
use mec::world::nth_seed;
use mec::{
    Clairvoyant, MecParams, OracleEffort, Physics, QosKnowledge, Quality, ServerShare, StaticPolicy, UserDecision,
    UserObservation, UserOutcome, UserSlot, Variant, VecEnv, World, evaluate, oracle, qos,
};
use proptest::prelude::*;
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("data/mec.json")).expect("vectors")
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("array").iter().map(|v| v.as_f64().expect("number")).collect()
}

#[track_caller]
fn close(what: &str, got: f64, want: f64) {
    assert!((got - want).abs() <= 1e-9 * want.abs().max(1e-30), "{what}: {got} instead of {want}");
}

#[test]
fn reference_slots_agree_to_nine_digits() {
    let vectors = vectors();
    let slots = vectors["slots"].as_array().expect("slots");
    assert_eq!(slots.len(), 27);
    for (n, slot) in slots.iter().enumerate() {
        let (inputs, expect) = (&slot["inputs"], &slot["expect"]);
        let users = slot["K"].as_u64().expect("K") as usize;
        let server_share: ServerShare = slot["f_mode"].as_str().expect("f_mode").parse().expect("mode");
        let params = MecParams { server_share, ..MecParams::with_users(users) };
        let physics = params.physics();
        let (re, im, difficulty) = (numbers(&inputs["hbar_re"]), numbers(&inputs["hbar_im"]), numbers(&inputs["u"]));
        let (size, alpha, power) = (numbers(&inputs["X"]), numbers(&inputs["alpha"]), numbers(&inputs["p"]));
        let mut state = Vec::new();
        let mut decisions = Vec::new();
        for k in 0..users {
            let xy = numbers(&inputs["xy"][k]);
            let at = Position { x_m: xy[0], y_m: xy[1] };
            close("distance", channel::distance_m(&physics, at), expect["distance"][k].as_f64().expect("distance"));
            let gain = channel::gain(&physics, at, Scatter { re: re[k], im: im[k] });
            state.push(UserSlot { gain, size_bits: size[k], quality: Quality::at_difficulty(&params, difficulty[k]) });
            decisions.push(UserDecision { alpha: alpha[k], power_w: power[k] });
        }
        let mut out = vec![UserOutcome::default(); users];
        let totals = evaluate(&physics, &state, 0.0, &decisions, &mut out);
        for k in 0..users {
            let quality = state[k].quality;
            let fields = [
                ("gain", state[k].gain),
                ("a_loc", quality.accuracy_local),
                ("h_loc", quality.hallucination_local),
                ("a_mec", quality.accuracy_server),
                ("h_mec", quality.hallucination_server),
                ("rate", out[k].rate_bps),
                ("l_local", out[k].local_s),
                ("l_off", out[k].uplink_s),
                ("l_mec", out[k].server_s),
                ("latency", out[k].latency_s),
                ("e_local", out[k].local_j),
                ("e_off", out[k].uplink_j),
                ("acc", out[k].accuracy),
                ("hal", out[k].hallucination),
                ("work", out[k].work_cycles),
            ];
            for (name, got) in fields {
                close(&format!("slot {n}, {name}[{k}]"), got, expect[name][k].as_f64().expect(name));
            }
        }
        let sums = [
            ("viol_acc", totals.violations.accuracy),
            ("viol_hal", totals.violations.hallucination),
            ("viol_energy", totals.violations.energy_j),
            ("Omega", totals.penalty),
            ("reward", totals.reward),
        ];
        for (name, got) in sums {
            close(&format!("slot {n}, {name}"), got, expect[name].as_f64().expect(name));
        }
    }
}

#[test]
fn reference_recursions_agree_to_nine_digits() {
    let params = MecParams::DEFAULT;
    for (n, row) in vectors()["recursions"].as_array().expect("recursions").iter().enumerate() {
        let pair = |key: &str| {
            let v = numbers(&row[key]);
            Scatter { re: v[0], im: v[1] }
        };
        let next = pair("hbar").next(params.fading_rho, pair("w"));
        close(&format!("{n}: re"), next.re, pair("hbar_next").re);
        close(&format!("{n}: im"), next.im, pair("hbar_next").im);
        let value = |key: &str| row[key].as_f64().expect("number");
        close(&format!("{n}: u"), qos::next_difficulty(&params, value("u"), value("e")), value("u_next"));
    }
}

/// Mean reward and mean latency of static policies, of the optimum and of the closed form, as an independent prototype
/// found them (2,000 draws; the tolerances are a few standard errors of those).
#[test]
fn means_over_many_draws_match_the_table_of_facts() {
    let rows: [(StaticPolicy, f64, f64); 4] = [
        (StaticPolicy::AlwaysLocal, 0.497, 0.450),
        (StaticPolicy::AlwaysOffload, 2.276, 0.237),
        (StaticPolicy::Random, 1.544, 0.655),
        (StaticPolicy::ClosedForm(QosKnowledge::Mean), 3.688, 0.1336),
    ];
    let params = MecParams::with_users(2).with_fixed_size(1.0);
    let draws = 4000;
    let mut optimum = (0.0, 0.0);
    let mut means = [(0.0, 0.0); 4];
    for i in 0..draws {
        let mut world = World::new(params, nth_seed(5, i));
        for ((policy, ..), mean) in rows.iter().zip(&mut means) {
            let decision = world.decide(*policy);
            let (totals, _) = world.evaluate(&decision);
            mean.0 += totals.reward / draws as f64;
            mean.1 += totals.latency_sum_s / 2.0 / draws as f64;
        }
        let best = world.optimum(OracleEffort::Usual).totals;
        optimum.0 += best.reward / draws as f64;
        optimum.1 += best.latency_sum_s / 2.0 / draws as f64;
    }
    let near = |got: f64, want: f64, tolerance: f64| (got / want - 1.0).abs() < tolerance;
    for ((policy, reward, latency), mean) in rows.iter().zip(&means) {
        // A random policy now and then starves an uplink: its mean latency has no useful standard error.
        let (r, l) = match policy {
            StaticPolicy::Random => (0.03, 0.5),
            StaticPolicy::AlwaysLocal => (0.04, 0.001), // broken limits: the reward hangs on the difficulty alone
            StaticPolicy::AlwaysOffload => (0.01, 0.03),
            _ => (0.01, 0.01),
        };
        assert!(near(mean.0, *reward, r) && near(mean.1, *latency, l), "{}: {mean:?}", policy.name());
    }
    assert!(near(optimum.0, 3.7355, 0.002) && near(optimum.1, 0.1339, 0.002), "optimum: {optimum:?}");
}

/// The best reward of two users by brute force, sharing nothing with the search but the slot's own equations. One of the
/// two sends at P_max (where energy does not bind, both louder is no worse), the other at every level down to −60 dB in
/// steps of half a dB, both ratios on a grid of 1/24; around the best levels ever finer grids over all three.
fn brute_force(physics: &Physics, users: &[UserSlot], backlog_s: f64) -> f64 {
    let mut out = [UserOutcome::default(); 2];
    let mut reward = |loud: usize, [below_db, a0, a1]: [f64; 3]| {
        let quiet_w = physics.p_max_w * 10f64.powf(-below_db / 10.0);
        let power = if loud == 0 { [physics.p_max_w, quiet_w] } else { [quiet_w, physics.p_max_w] };
        let d = [UserDecision { alpha: a0, power_w: power[0] }, UserDecision { alpha: a1, power_w: power[1] }];
        evaluate(physics, users, backlog_s, &d, &mut out).reward
    };
    let mut levels = Vec::new();
    for loud in 0..2 {
        for step in 0..=120 {
            let mut best = (f64::NEG_INFINITY, loud, [0.0; 3]);
            for i in 0..25 * 25 {
                let at = [0.5 * f64::from(step), f64::from(i % 25) / 24.0, f64::from(i / 25) / 24.0];
                let found = reward(loud, at);
                if found > best.0 {
                    best = (found, loud, at);
                }
            }
            levels.push(best);
        }
    }
    levels.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let mut best = f64::NEG_INFINITY;
    for &(mut found, loud, mut at) in levels.iter().take(12) {
        let mut width = 1.0;
        while width > 1e-5 {
            let centre = at;
            for cell in 0..7 * 7 * 7 {
                let by = [cell % 7, cell / 7 % 7, cell / 49].map(|i| width * (f64::from(i) - 3.0) / 3.0);
                let near = |i: usize, top: f64, unit: f64| (centre[i] + unit * by[i]).clamp(0.0, top);
                let next = [near(0, 60.0, 0.5), near(1, 1.0, 1.0 / 24.0), near(2, 1.0, 1.0 / 24.0)];
                let value = reward(loud, next);
                if value > found {
                    (found, at) = (value, next);
                }
            }
            if at == centre {
                width *= 0.5;
            }
        }
        best = best.max(found);
    }
    best
}

#[test]
fn oracle_is_within_a_ten_thousandth_of_brute_force() {
    for mode in ServerShare::ALL {
        let params = MecParams { server_share: mode, ..MecParams::with_users(2) };
        for i in 0..10 {
            let world = World::new(params, nth_seed(99, i));
            // Also with a queue: a short one, and one longer than the smallest tasks take on a device.
            let backlog_s = [0.0, 0.0, 0.1, 0.0, 0.7][i as usize % 5];
            let found = oracle::optimum(world.physics(), world.slots(), backlog_s, OracleEffort::Usual);
            let brute = brute_force(world.physics(), world.slots(), backlog_s);
            let reward = found.totals.reward;
            assert!(reward >= brute * (1.0 - 1e-4), "{mode:?} {i}, backlog {backlog_s}: {reward} < {brute}");
            let mut out = [UserOutcome::default(); 2];
            let again = evaluate(world.physics(), world.slots(), backlog_s, &found.decisions, &mut out);
            assert_eq!(again, found.totals, "the optimum is a decision that gives what it says");
        }
    }
}

/// One user, three slots: every triple of ratios on a grid.
#[test]
fn a_clairvoyant_plan_is_no_worse_than_every_plan_on_a_grid() {
    for seed in 0..6 {
        let params = MecParams { slot_s: 0.05, ..MecParams::with_users(1).with_variant(Variant::Backlog) };
        let world = World::new(params, seed);
        let total = |ratios: [f64; 3]| {
            let mut world = world.clone();
            let power_w = world.physics().p_max_w;
            ratios.map(|alpha| world.step(&[UserDecision { alpha, power_w }]).reward).iter().sum::<f64>()
        };
        let mut brute: f64 = 0.0;
        for i in 0..33 * 33 * 33 {
            let ratio = |i: i32| f64::from(i % 33) / 32.0;
            brute = brute.max(total([ratio(i), ratio(i / 33), ratio(i / 33 / 33)]));
        }
        let planner = Clairvoyant::new(&world, 3);
        let mut walked = world.clone();
        let planned: f64 = (0..3)
            .map(|slot| {
                let decision = planner.decide(slot, walked.backlog_s(), 3).expect("known");
                walked.step(&decision).reward
            })
            .sum();
        assert!(planned >= 0.995 * brute, "seed {seed}: {planned} against {brute}");
        assert!(planner.decide(3, 0.0, 3).is_none(), "nothing is known of a fourth slot");
    }
}

#[test]
fn a_late_view_costs_the_closed_form_but_not_the_one_that_knows_all() {
    let paper = World::new(MecParams::with_users(2), 3);
    let mut late = World::new(MecParams::with_users(2).with_variant(Variant::Delayed), 3);
    assert_eq!(paper.slots(), late.slots());
    let seen: Vec<f64> = late.observation().iter().map(|user| user.gain).collect();
    let decision = late.decide(StaticPolicy::ClosedForm(QosKnowledge::Mean));
    let received = |gain: f64, k: usize| decision[k].power_w * gain;
    assert!((received(seen[0], 0) / received(seen[1], 1) - 1.0).abs() < 1e-9, "equal by what is seen");
    let exact = late.decide(StaticPolicy::ClosedForm(QosKnowledge::Exact));
    let gains: Vec<f64> = late.slots().iter().map(|user| user.gain).collect();
    let ratio = exact[0].power_w * gains[0] / (exact[1].power_w * gains[1]);
    assert!((ratio - 1.0).abs() < 1e-9 && gains != seen);
}

#[test]
fn oracle_beats_every_static_policy_for_every_k() {
    for users in 1..=10 {
        let mut sums = (0.0, 0.0);
        for i in 0..20 {
            let mut world = World::new(MecParams::with_users(users), nth_seed(users as u64, i));
            let usual = world.optimum(OracleEffort::Usual).totals.reward;
            for policy in [StaticPolicy::ALL.as_slice(), &[StaticPolicy::ClosedForm(QosKnowledge::Exact)]].concat() {
                let decision = world.decide(policy);
                let reward = world.evaluate(&decision).0.reward;
                assert!(usual >= reward - 1e-12, "K {users}, {}: {usual} < {reward}", policy.name());
            }
            if i < 6 {
                let thorough = world.optimum(OracleEffort::Thorough).totals.reward;
                assert!(usual >= 0.99 * thorough, "K {users}: {usual} against {thorough}");
                sums = (sums.0 + usual, sums.1 + thorough);
            }
        }
        assert!(sums.0 >= 0.998 * sums.1, "K {users}, means of six: {sums:?}");
    }
}

#[test]
fn a_world_is_determined_by_its_seed_and_not_by_decisions() {
    for variant in [Variant::Paper, Variant::Iid, Variant::Delayed, Variant::Mobile] {
        let params = MecParams::with_users(3).with_variant(variant);
        let (mut a, mut b) = (World::new(params, 7), World::new(params, 7));
        for _ in 0..50 {
            assert_eq!(a.slots(), b.slots());
            a.step(&[UserDecision { alpha: 1.0, power_w: 2.0 }; 3]);
            b.step(&[UserDecision::default(); 3]);
        }
        assert_ne!(a.slots(), World::new(params, 8).slots());
    }
}

#[test]
fn worlds_go_on_from_a_snapshot_as_if_nothing_had_been() {
    for variant in Variant::ALL {
        let params = MecParams { horizon: 7, ..MecParams::with_users(3).with_variant(variant) };
        let mut straight = VecEnv::new(params, 2, 11);
        let live = |envs: &mut VecEnv, slots: std::ops::Range<u32>| {
            let mut told = Vec::new();
            for slot in slots {
                let decision = UserDecision { alpha: f64::from(slot % 4) / 3.0, power_w: 0.1 + f64::from(slot % 3) };
                let rewards: Vec<f64> = envs.step(&[decision; 6]).iter().map(|r| r.totals.reward).collect();
                envs.reset_truncated();
                let mut seen = vec![UserObservation::default(); 6];
                envs.observe(&mut seen);
                told.push((rewards, seen));
            }
            told
        };
        // Past a time limit, and into the middle of an episode.
        live(&mut straight, 0..10);
        let mut resumed = VecEnv::restore(params, straight.snapshot()).expect("snapshot");
        assert_eq!(live(&mut straight, 10..30), live(&mut resumed, 10..30), "{}", variant.name());
    }
    let snapshot = World::new(MecParams::with_users(3), 1).snapshot();
    let error = World::restore(MecParams::with_users(2), snapshot).expect_err("another number of users");
    assert_eq!((error.wanted, error.found), (2, 3));
}

#[test]
fn backlog_delays_the_next_slot_and_drains() {
    let params = MecParams::with_users(2).with_variant(Variant::Backlog);
    let mut world = World::new(params, 3);
    for _ in 0..5 {
        world.step(&[UserDecision { alpha: 1.0, power_w: 2.0 }; 2]);
    }
    let full = world.backlog_s();
    assert!(full > 0.1, "{full}");
    let decision = [UserDecision { alpha: 0.5, power_w: 1.0 }; 2];
    let waited = world.evaluate(&decision).1[0].server_s;
    assert!(waited > full);
    for _ in 0..100 {
        world.step(&[UserDecision::default(); 2]);
    }
    assert_eq!(world.backlog_s(), 0.0);
}

#[test]
fn a_page_can_move_pin_and_change_under_way() {
    let mut world = World::new(MecParams::with_users(2), 1);
    let before = world.users().nth(1).expect("user 1");
    world.set_position(0, 3.0, 4.0);
    let view = world.users().next().expect("user 0");
    assert!((view.distance_m - 125f64.sqrt()).abs() < 1e-12);
    assert_eq!(world.users().nth(1), Some(before), "the other user is untouched");
    world.pin_size(0, Some(2.2e6));
    world.set_params(MecParams { bandwidth_hz: 2e7, ..MecParams::with_users(3) });
    assert_eq!(world.users().len(), 3);
    assert_eq!(world.observation().len(), 3);
    assert!(world.observation().iter().all(|o| o.latency_s > 0.0 && o.accuracy > 0.0));
    for _ in 0..10 {
        world.step(&[]);
        let held = world.users().next().expect("user 0");
        assert_eq!((held.x_m, held.y_m, held.size_bits), (3.0, 4.0, 2.2e6));
    }
    world.reset();
    assert_eq!(world.users().next().map(|u| u.x_m), Some(3.0));
    world.set_params(MecParams::with_users(1));
    assert_eq!(world.users().len(), 1);
    world.set_position(9, 0.0, 0.0);
}

fn decisions(users: usize) -> impl Strategy<Value = Vec<UserDecision>> {
    let one = (0.0..=1.0f64, 0.0..=1.995f64).prop_map(|(alpha, power_w)| UserDecision { alpha, power_w });
    proptest::collection::vec(one, users)
}

fn share() -> impl Strategy<Value = ServerShare> {
    proptest::sample::select(ServerShare::ALL.to_vec())
}

proptest! {
    #[test]
    fn outcomes_are_finite_and_consistent(seed: u64, mode in share(), d in decisions(4)) {
        let params = MecParams { server_share: mode, ..MecParams::with_users(4) };
        let world = World::new(params, seed);
        let (totals, out) = world.evaluate(&d);
        prop_assert!(totals.reward.is_finite() && totals.reward > 0.0 && totals.penalty >= 0.0);
        for o in &out {
            prop_assert!(o.latency_s.is_finite() && o.latency_s >= o.local_s && o.rate_bps >= params.rate_floor_bps);
            prop_assert!((0.0..=1.0).contains(&o.accuracy) && (0.0..=1.0).contains(&o.hallucination));
            prop_assert!(o.local_j >= 0.0 && o.uplink_j >= 0.0);
        }
    }

    #[test]
    fn latency_grows_with_size(seed: u64, d in decisions(2), grow in 1.01..3.0f64) {
        let mut world = World::new(MecParams::with_users(2), seed);
        let size = world.slots()[0].size_bits;
        let before = world.evaluate(&d).1[0].latency_s;
        world.pin_size(0, Some(size * grow));
        prop_assert!(world.evaluate(&d).1[0].latency_s > before);
    }

    #[test]
    fn another_users_power_lowers_the_rate(seed: u64, d in decisions(3), more in 1e-3..1.0f64) {
        prop_assume!(d[0].power_w > 1e-3 && d[1].power_w + more < 1.99);
        let world = World::new(MecParams::with_users(3), seed);
        let before = world.evaluate(&d).1[0].rate_bps;
        let mut louder = d.clone();
        louder[1].power_w += more;
        prop_assert!(world.evaluate(&louder).1[0].rate_bps < before);
    }

    #[test]
    fn equal_received_power_is_equal_and_allowed(seed: u64) {
        let mut world = World::new(MecParams::with_users(5), seed);
        let decision = world.decide(StaticPolicy::ClosedForm(QosKnowledge::Mean));
        let top = decision.iter().map(|d| d.power_w).fold(0.0, f64::max);
        prop_assert!((top / world.physics().p_max_w - 1.0).abs() < 1e-9);
        let received: Vec<f64> = decision.iter().zip(world.slots()).map(|(d, u)| d.power_w * u.gain).collect();
        for r in &received {
            prop_assert!((r / received[0] - 1.0).abs() < 1e-9);
        }
    }
}

#[test]
fn mixed_sizes_match_the_table_of_facts() {
    // Optimum 2.220 and 1.811 for the best constant action, over the chain's long-run size frequencies.
    let (mut optimum, mut constant) = (0.0, 0.0);
    let draws = 6000;
    for i in 0..draws {
        let world = World::new(MecParams::with_users(2), nth_seed(11, i));
        optimum += world.optimum(OracleEffort::Usual).totals.reward / draws as f64;
        let power_w = world.physics().p_max_w;
        constant += world.evaluate(&[UserDecision { alpha: 0.725, power_w }; 2]).0.reward / draws as f64;
    }
    assert!((optimum / 2.220 - 1.0).abs() < 0.015 && (constant / 1.811 - 1.0).abs() < 0.015, "{optimum} {constant}");
}

#[test]
fn sizes_visit_the_levels_as_often_as_the_first_draw_does() {
    let params = MecParams::with_users(1);
    let mut world = World::new(params, 6);
    let (mut visits, slots) = ([0u32; 4], 40_000);
    for _ in 0..slots {
        visits[(world.slots()[0].size_bits / 0.5e6) as usize - 2] += 1;
        world.step(&[]);
    }
    for (level, share) in [1.0, 2.0, 2.0, 1.0].map(|w| w / 6.0).into_iter().enumerate() {
        let seen = f64::from(visits[level]) / f64::from(slots);
        assert!((seen - share).abs() < 0.03, "level {level}: {seen} instead of {share}");
    }
}

#[test]
fn the_optimum_of_many_users_is_the_one_of_the_table_of_facts() {
    // Tasks of 1 Mbit, 2,000 draws there, 500 here: mean reward and mean latency.
    for (users, reward, latency_s) in [(3, 2.011, 0.166), (5, 0.934, 0.214), (10, 0.349, 0.287)] {
        let params = MecParams::with_users(users).with_fixed_size(1.0);
        let (mut found, mut latency, draws) = (0.0, 0.0, 500);
        for i in 0..draws {
            let totals = World::new(params, nth_seed(21, i)).optimum(OracleEffort::Usual).totals;
            found += totals.reward / draws as f64;
            latency += totals.latency_sum_s / (users as f64 * draws as f64);
        }
        let near = |got: f64, want: f64| (got / want - 1.0).abs() < 0.015;
        assert!(near(found, reward) && near(latency, latency_s), "K {users}: {found}, {latency} s");
    }
}
