//! The optimum in worlds whose settings are drawn from all of their ranges. `cargo run --release -p mec --example
//! optimum` does the same for thousands of worlds.

mod shared;

use mec::bound::reward_bound;
use mec::{MAX_USERS, MecParams, OracleEffort, ServerShare, UserOutcome, World, evaluate, oracle};

#[test]
fn two_users_get_what_brute_force_gets_in_random_worlds() {
    for index in 0..24 {
        let mut world = shared::world(2, index);
        for slot in 0..2 {
            let backlog_s = shared::backlog_s(&world, 2 * index + slot);
            let found = oracle::optimum(world.physics(), world.slots(), backlog_s, OracleEffort::Usual);
            let brute = shared::brute_force(world.physics(), world.slots(), backlog_s);
            let reward = found.totals.reward;
            assert!(reward >= brute * (1.0 - 1e-3), "world {index}, slot {slot}, {backlog_s} s: {reward} < {brute}");
            let mut out = [UserOutcome::default(); 2];
            let again = evaluate(world.physics(), world.slots(), backlog_s, &found.decisions, &mut out);
            assert_eq!(again, found.totals, "the optimum is a decision that gives what it says");
            assert!(found.decisions.iter().all(|d| *d == d.clamped(world.physics().p_max_w)), "an allowed decision");
            world.step(&[]);
        }
    }
}

#[test]
fn nobody_without_a_search_beats_the_optimum_in_random_worlds() {
    for users in 1..=10 {
        for index in 0..12 {
            let mut world = shared::world(users, index);
            let optimum = world.optimum(OracleEffort::Usual).totals.reward;
            let (reward, name) = shared::best_simple(&mut world);
            assert!(optimum >= reward * (1.0 - 1e-3), "K {users}, world {index}: {optimum}, but {name} gets {reward}");
        }
    }
}

/// As many users as a cell may hold: every set of them is a bit pattern, and the kinds of starting points are counted in base 6.
#[test]
fn the_largest_cell_has_an_optimum_too() {
    for share in ServerShare::ALL {
        let params = MecParams { server_share: share, ..MecParams::with_users(MAX_USERS) };
        let mut world = World::new(params, 1);
        let found = world.optimum(OracleEffort::Usual);
        let mut out = [UserOutcome::default(); MAX_USERS];
        let again = evaluate(world.physics(), world.slots(), 0.0, &found.decisions, &mut out);
        assert_eq!(again, found.totals, "the optimum is a decision that gives what it says");
        let optimum = found.totals.reward;
        let bound = reward_bound(world.physics(), world.slots(), 0.0);
        assert!(optimum <= bound * (1.0 + 1e-9), "{}: {optimum} over {bound}", share.name());
        let (reward, name) = shared::best_simple(&mut world);
        assert!(optimum >= reward * (1.0 - 1e-6), "{}: {optimum}, but {name} gets {reward}", share.name());
    }
}

/// One setting moved far, the others at their defaults: where sliders lead, and where the optimum was once no optimum.
#[test]
fn nobody_without_a_search_beats_the_optimum_when_one_slider_moves() {
    let moved = [
        ("server_hz", 2e9),
        ("server_hz", 1e11),
        ("bandwidth_hz", 1e6),
        ("bandwidth_hz", 5e7),
        ("cycles_per_bit", 100.0),
        ("device_hz", 5e8),
        ("device_hz", 8e9),
        ("a_min", 0.66),
        ("e_max_j", 0.3),
        ("e_max_j", 0.01),
        ("noise_dbm", -40.0),
        ("rate_floor_bps", 1e6),
    ];
    for (key, value) in moved {
        let mut params = MecParams::with_users(3);
        params.set(key, value).expect(key);
        for seed in 0..10 {
            let mut world = World::new(params, seed);
            let optimum = world.optimum(OracleEffort::Usual).totals.reward;
            let (reward, name) = shared::best_simple(&mut world);
            assert!(optimum >= reward * (1.0 - 1e-6), "{key} = {value}, {seed}: {optimum}, but {name} gets {reward}");
        }
    }
}

#[test]
fn no_optimum_passes_the_bound_and_at_the_defaults_it_is_near() {
    for users in 1..=10 {
        for index in 0..6 {
            let world = shared::world(users, index);
            let optimum = world.optimum(OracleEffort::Usual).totals.reward;
            let bound = reward_bound(world.physics(), world.slots(), 0.0);
            assert!(optimum <= bound * (1.0 + 1e-9), "K {users}, world {index}: {optimum} over {bound}");
        }
    }
    for users in [1, 2, 3, 5, 10] {
        let (mut optimum, mut bound) = (0.0, 0.0);
        for seed in 0..20 {
            let world = World::new(MecParams::with_users(users), seed);
            optimum += world.optimum(OracleEffort::Usual).totals.reward;
            bound += reward_bound(world.physics(), world.slots(), 0.0);
        }
        assert!(optimum >= 0.985 * bound, "K {users}: {optimum} of {bound}");
    }
}
