//! The policy that is told its world, on the CPU: `cargo test -p policy --features flex --test world`.
#![cfg(feature = "flex")]

use burn::tensor::Device;
use mec::draw::draw_params;
use mec::{MecParams, UserDecision, UserObservation, World};
use policy::file::{self, PolicyHeader};
use policy::world::{Outlook, Proposal};
use policy::{ActionMap, Activation, Policy, WorldConfig};
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

/// A policy for 1 to 10 users whose weights are any numbers.
fn sample() -> Vec<u8> {
    let config =
        WorldConfig { most_users: 10, encoder: vec![12, 9], head: vec![8], activation: Activation::Relu, proposals: 3 };
    let mut state = 1u32;
    let mut number = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        0.5 * ((state >> 8) as f32 / (1u32 << 23) as f32 - 1.0)
    };
    let mut values = |shapes: Vec<[usize; 2]>| -> Vec<(Vec<f32>, Vec<f32>)> {
        let mut draw = |count: usize| (0..count).map(|_| number()).collect::<Vec<f32>>();
        shapes.iter().map(|[inputs, outputs]| (draw(inputs * outputs), draw(*outputs))).collect()
    };
    let values = [values(config.encoder_layers()), values(config.head_layers())];
    let network = policy::Network::World(config.actor(values, &Device::flex()));
    let (shape, action_map, algo) = (config.into(), ActionMap::default(), "set-ascent".to_owned());
    file::to_bytes(&PolicyHeader { shape, action_map, algo, seed: 3, steps: 1000 }, &network).expect("bytes")
}

fn decide(policy: &Policy, world: &World, seen: &[UserObservation]) -> Vec<UserDecision> {
    pollster::block_on(policy.decide(world.physics(), seen)).expect("decision")
}

fn random_world(users: usize, spread: f64, seed: u64) -> World {
    World::new(draw_params(users, spread, &mut Xoshiro256PlusPlus::seed_from_u64(seed)), seed)
}

#[test]
fn it_follows_its_users_into_any_order() {
    let policy = Policy::load(&sample(), &Device::flex()).expect("policy");
    assert_eq!(policy.users(), 1..=10);
    for users in 1..=10 {
        for spread in [0.0, 0.3] {
            let world = random_world(users, spread, 40 + users as u64);
            let seen = world.observation();
            let decided = decide(&policy, &world, &seen);
            let turned = |all: &[UserObservation]| (0..users).map(|k| all[(k + 1) % users]).collect::<Vec<_>>();
            let other = decide(&policy, &world, &turned(&seen));
            // What is best may be so in several ways, where nobody is the better for one of them: rewards are the same then.
            let back: Vec<UserDecision> = (0..users).map(|k| other[(k + users - 1) % users]).collect();
            let outlook = Outlook::new(world.physics(), &seen);
            let believed = |decisions: &[UserDecision]| outlook.belief().reward(world.physics(), decisions);
            let (one, two) = (believed(&decided), believed(&back));
            assert!((one / two - 1.0).abs() < 1e-4, "K {users}: {one} {two}");
        }
    }
}

#[test]
fn many_slots_at_once_give_what_single_ones_give() {
    let policy = Policy::load(&sample(), &Device::flex()).expect("policy");
    let worlds: Vec<World> = (0..5).map(|seed| World::new(MecParams::with_users(4), seed)).collect();
    let seen: Vec<_> = worlds.iter().flat_map(World::observation).collect();
    let many = pollster::block_on(policy.decide_many(worlds[0].physics(), 4, &seen)).expect("decisions");
    for (world, many) in worlds.iter().zip(many.chunks(4)) {
        for (one, many) in decide(&policy, world, &world.observation()).iter().zip(many) {
            assert!((one.alpha - many.alpha).abs() < 1e-5 && (one.power_w - many.power_w).abs() < 1e-5);
        }
    }
}

#[test]
fn it_is_never_below_the_closed_form_by_its_own_belief() {
    let policy = Policy::load(&sample(), &Device::flex()).expect("policy");
    for users in [1, 2, 5, 10] {
        for seed in 0..20 {
            let world = random_world(users, 1.0, seed);
            let seen = world.observation();
            let outlook = Outlook::new(world.physics(), &seen);
            let mut plain = vec![UserDecision::default(); users];
            let without = outlook.decide(world.physics(), std::iter::empty::<Proposal>(), &mut plain);
            let decided = decide(&policy, &world, &seen);
            let with = outlook.belief().reward(world.physics(), &decided);
            let closed = outlook.closed_reward() * (1.0 - 1e-9);
            assert!(with >= closed && without >= closed, "K {users}, world {seed}: {with}, {without}, {closed}");
            let p_max_w = world.physics().p_max_w;
            assert!(decided.iter().all(|d| *d == d.clamped(p_max_w)), "allowed decisions");
        }
    }
}

#[test]
fn files_round_trip_and_damaged_ones_are_refused_with_a_reason() {
    let good = sample();
    let policy = Policy::load(&good, &Device::flex()).expect("policy");
    let network = file::from_bytes(&good, &Device::flex()).expect("file").1;
    assert_eq!(file::to_bytes(policy.header(), &network).expect("bytes"), good);
    let cases: [(&[u8], &[u8], &str); 5] = [
        (b"version\\\":3,", b"version\\\":9,", "file version 9"),
        (b"spaces\\\":1,", b"spaces\\\":0,", "spaces version 0"),
        (b"users\\\":[1,10]", b"users\\\":[1,33]", "1 to 33"),
        (b"proposals\\\":3", b"proposals\\\":0", "proposals: 0"),
        (b"proposals\\\":3", b"proposals\\\":4", "head.1.weight should be F32 [8, 16]"),
    ];
    for (from, to, reason) in cases {
        let at = good.windows(from.len()).position(|w| w == from).expect("header field");
        let mut bad = good.clone();
        bad[at..at + to.len()].copy_from_slice(to);
        let said = Policy::load(&bad, &Device::flex()).expect_err("refused").to_string();
        assert!(said.contains(reason), "{said}");
    }
}
