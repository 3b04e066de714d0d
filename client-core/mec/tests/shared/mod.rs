//! What the optimum is held against: brute force for two users, and whoever decides without searching.

use mec::draw::draw_params;
use mec::world::nth_seed;
use mec::{
    ConstantAction, ConstantPower, Physics, QosKnowledge, StaticPolicy, UserDecision, UserOutcome, UserSlot, World,
    evaluate,
};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// The `index`-th random world with so many users: a few settings moved, half of them, or all.
pub fn world(users: usize, index: u64) -> World {
    let seed = nth_seed(0x0971_0000 + users as u64, index);
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let spread = [0.15, 0.5, 1.0][index as usize % 3];
    World::new(draw_params(users, spread, &mut rng), seed)
}

/// How long the server is busy with earlier work in the `index`-th slot: mostly not at all, else up to twice as long as the
/// first user needs to compute alone.
pub fn backlog_s(world: &World, index: u64) -> f64 {
    if index % 5 != 4 {
        return 0.0;
    }
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(nth_seed(0xBAC, index));
    let params = world.params();
    rng.random_range(0.0..2.0) * params.cycles_per_bit * world.slots()[0].size_bits / params.device_hz
}

/// The best reward of two users by brute force, sharing nothing with the search but the slot's own equations: powers in
/// steps of 2 dB down to −40 dB and of 5 dB down to −100 dB under P_max, and none; ratios in steps of 1/16; and around the
/// best of these ever finer grids over all four.
pub fn brute_force(physics: &Physics, users: &[UserSlot], backlog_s: f64) -> f64 {
    let mut out = [UserOutcome::default(); 2];
    let mut reward = |[p0, p1, a0, a1]: [f64; 4]| {
        let decisions = [UserDecision { alpha: a0, power_w: p0 }, UserDecision { alpha: a1, power_w: p1 }];
        evaluate(physics, users, backlog_s, &decisions, &mut out).reward
    };
    let down = |db: i32| physics.p_max_w * 10f64.powf(-f64::from(db) / 10.0);
    let levels: Vec<f64> = (0..=20).map(|i| 2 * i).chain((9..=20).map(|i| 5 * i)).map(down).chain([0.0]).collect();
    let mut best_of_powers = Vec::new();
    for &p0 in &levels {
        for &p1 in &levels {
            let mut best = (f64::NEG_INFINITY, [0.0; 4]);
            for i in 0..17 * 17 {
                let at = [p0, p1, f64::from(i % 17) / 16.0, f64::from(i / 17) / 16.0];
                let found = reward(at);
                if found > best.0 {
                    best = (found, at);
                }
            }
            best_of_powers.push(best);
        }
    }
    best_of_powers.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let mut best = f64::NEG_INFINITY;
    for &(mut found, mut at) in best_of_powers.iter().take(16) {
        let mut width = 1.0;
        while width > 1e-5 {
            let (centre, before) = (at, found);
            for cell in 0..5 * 5 * 5 * 5 {
                let by = [1, 5, 25, 125].map(|unit| 0.5 * width * f64::from(cell / unit % 5 - 2));
                let power = |i: usize| (centre[i] * 10f64.powf(0.2 * by[i])).min(physics.p_max_w);
                let ratio = |i: usize| (centre[i] + by[i] / 16.0).clamp(0.0, 1.0);
                let next = [power(0), power(1), ratio(2), ratio(3)];
                let value = reward(next);
                if value > found {
                    (found, at) = (value, next);
                }
            }
            if found <= before * (1.0 + 1e-7) {
                width *= 0.5;
            }
        }
        best = best.max(found);
    }
    best
}

/// The best reward that a decider without a search gets in the present slot, with its name: the static policies, 20 random
/// decisions, and every constant action on a grid of ratios and powers.
pub fn best_simple(world: &mut World) -> (f64, String) {
    let mut best = (f64::NEG_INFINITY, String::new());
    let mut try_one = |world: &World, decisions: &[UserDecision], name: &dyn Fn() -> String| {
        let reward = world.evaluate(decisions).0.reward;
        if reward > best.0 {
            best = (reward, name());
        }
    };
    let exact = [StaticPolicy::ClosedForm(QosKnowledge::Exact)];
    let random = [StaticPolicy::Random; 20];
    for policy in StaticPolicy::ALL.into_iter().chain(exact).chain(random) {
        let decisions = world.decide(policy);
        try_one(world, &decisions, &|| policy.name().to_owned());
    }
    let p_max_w = world.physics().p_max_w;
    let watts = (0..=60).map(|db| ConstantPower::Watts(p_max_w * 10f64.powf(-0.1 * f64::from(db))));
    let mut decisions = vec![UserDecision::default(); world.slots().len()];
    for power in watts.chain([ConstantPower::Watts(0.0), ConstantPower::EqualReceived]) {
        for step in 0..=40 {
            let action = ConstantAction { alpha: f64::from(step) / 40.0, power };
            action.decide(world.physics(), world.slots(), &mut decisions);
            try_one(world, &decisions, &|| format!("{action:?}"));
        }
    }
    best
}
