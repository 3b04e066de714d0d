//! Policy files and decisions on the CPU: `cargo test -p policy --features flex --test policy`.
#![allow(clippy::disallowed_methods, reason = "reads the policies that ship")]
#![cfg(feature = "flex")]

use burn::tensor::Device;
use mec::{MAX_USERS, MecParams, UserDecision, UserObservation, World};
use policy::file::{self, PolicyHeader};
use policy::{
    ActionMap, Activation, Actor, ActorConfig, GoldenDecisions, Head, Policy, PolicyError, PolicyManifest, Sees,
    SetActor, SetConfig,
};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

fn sample(users: usize) -> Vec<u8> {
    sample_that_sees(Sees::Slot, users)
}

fn sample_that_sees(sees: Sees, users: usize) -> Vec<u8> {
    let device = Device::flex();
    device.seed(7);
    let config = ActorConfig { sees, hidden: vec![16, 8], ..ActorConfig::new(users) };
    let actor = config.init(&device);
    let (shape, action_map, algo) = (config.into(), ActionMap::EqualReceived, "ppo".to_owned());
    file::to_bytes(&PolicyHeader { shape, action_map, algo, seed: 3, steps: 1000 }, &actor.into()).expect("bytes")
}

#[test]
fn a_file_round_trips_and_decides_the_same_every_time() {
    for sees in [Sees::Slot, Sees::World] {
        let bytes = sample_that_sees(sees, 3);
        let policy = Policy::load(&bytes, &Device::flex()).expect("policy");
        assert_eq!((policy.users(), policy.header().seed, policy.header().steps), (3..=3, 3, 1000));
        assert_eq!(policy.header().shape.sees(), sees);
        let world = World::new(MecParams::with_users(3), 1);
        let decide = || pollster::block_on(policy.decide(world.physics(), &world.observation())).expect("decision");
        let first = decide();
        assert_eq!(first, decide());
        assert!(first.iter().all(|d| (0.0..=1.0).contains(&d.alpha) && d.power_w > 0.0));
        let again = file::to_bytes(policy.header(), &file::from_bytes(&bytes, &Device::flex()).expect("file").1);
        assert_eq!(again.expect("bytes"), bytes);
    }
}

/// The same slot in a system whose server is slower: who sees only the slot decides the same, who sees the system does not.
#[test]
fn a_policy_that_sees_its_world_decides_by_it() {
    let world = |server_hz: f64| World::new(MecParams { server_hz, ..MecParams::with_users(2) }, 1);
    let (fast, slow) = (world(MecParams::DEFAULT.server_hz), world(1e9));
    let seen = fast.observation();
    for sees in [Sees::Slot, Sees::World] {
        let policy = Policy::load(&sample_that_sees(sees, 2), &Device::flex()).expect("policy");
        let alphas = [&fast, &slow].map(|world| {
            let decisions = pollster::block_on(policy.decide(world.physics(), &seen)).expect("decision");
            decisions.iter().map(|decision| decision.alpha).collect::<Vec<f64>>()
        });
        assert_eq!(alphas[0] == alphas[1], sees == Sees::Slot, "{alphas:?}");
    }
}

#[test]
fn many_slots_at_once_give_what_single_ones_give() {
    let policy = Policy::load(&sample(2), &Device::flex()).expect("policy");
    let worlds: Vec<World> = (0..5).map(|seed| World::new(MecParams::with_users(2), seed)).collect();
    let seen: Vec<_> = worlds.iter().flat_map(World::observation).collect();
    let physics = worlds[0].physics();
    let many = pollster::block_on(policy.decide_many(physics, 2, &seen)).expect("decisions");
    for (world, many) in worlds.iter().zip(many.chunks(2)) {
        let one = pollster::block_on(policy.decide(physics, &world.observation())).expect("decision");
        for (a, b) in one.iter().zip(many) {
            assert!((a.alpha - b.alpha).abs() < 1e-6 && (a.power_w - b.power_w).abs() < 1e-6);
        }
    }
}

#[test]
fn damaged_or_foreign_files_are_refused_with_a_reason() {
    let good = sample(2);
    let load = |bytes: &[u8]| Policy::load(bytes, &Device::flex()).expect_err("refused").to_string();
    assert!(load(&good[..good.len() - 1]).contains("cannot be read"));
    assert!(load(b"not a policy").contains("cannot be read"));
    assert!(load(&[]).contains("cannot be read"));
    // Each case changes a few header bytes to others of the same length.
    let cases: [(&[u8], &[u8], &str); 6] = [
        (b"version\\\":1,", b"version\\\":9,", "file version 9"),
        (b"spaces\\\":1,", b"spaces\\\":0,", "spaces version 0"),
        (b"users\\\":2,", b"users\\\":3,", "layers.0.weight should be F32 [21, 16]"),
        (b"hidden\\\":[16,", b"hidden\\\":[-6,", "invalid value"),
        (b"head\\\":\\\"beta", b"head\\\":\\\"bets", "unknown variant `bets`"),
        (b"received-10db", b"received-99db", "received-99db"),
    ];
    for (from, to, reason) in cases {
        let at = good.windows(from.len()).position(|w| w == from).expect("header field");
        let mut bad = good.clone();
        bad[at..at + to.len()].copy_from_slice(to);
        let said = load(&bad);
        assert!(said.contains(reason), "{said}");
    }
    let mut bad = good.clone();
    let last = bad.len() - 4;
    bad[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(load(&bad).contains("not a finite number"));
}

#[test]
fn each_head_deploys_its_mean_action() {
    // Weights 0: the biases alone decide, the same in every state.
    let (alpha, level) = (0.3f32, 0.5f32);
    let unsquash = |action: f32| (2.0 * action - 1.0).atanh();
    // Of a Beta distribution: 1 + softplus is 7 for `a` and 3 for `b`, and 3/(3 + 7) the wanted mean.
    let (a, b) = (6f32.exp_m1().ln(), 2f32.exp_m1().ln());
    let heads = [
        (Head::Beta, vec![b, a, a, a], 0.3),
        (Head::Deterministic, vec![unsquash(alpha), unsquash(level)], 0.3),
        (Head::SquashedGaussian, vec![unsquash(alpha), unsquash(level), 1.5, -3.0], 0.3),
    ];
    for (head, bias, want) in heads {
        let config = ActorConfig { hidden: Vec::new(), head, ..ActorConfig::new(1) };
        let actor = Actor::from_values(&config, vec![(vec![0.0; 7 * bias.len()], bias)], &Device::flex());
        let (action_map, algo) = (ActionMap::LinearWatts, "test".to_owned());
        let header = PolicyHeader { shape: config.into(), action_map, algo, seed: 1, steps: 0 };
        let policy =
            Policy::load(&file::to_bytes(&header, &actor.into()).expect("bytes"), &Device::flex()).expect("policy");
        assert_eq!(policy.header(), &header);
        let world = World::new(MecParams::with_users(1), 1);
        let decision = pollster::block_on(policy.decide(world.physics(), &world.observation())).expect("decision")[0];
        let power_w = world.physics().p_max_w / 2.0;
        assert!((decision.alpha - want).abs() < 1e-6 && (decision.power_w - power_w).abs() < 1e-6, "{decision:?}");
    }
}

#[test]
fn another_number_of_users_is_refused() {
    let policy = Policy::load(&sample(2), &Device::flex()).expect("policy");
    let world = World::new(MecParams::with_users(3), 1);
    let error = pollster::block_on(policy.decide(world.physics(), &world.observation())).expect_err("refused");
    assert!(matches!(error, PolicyError::Users { trained: 2, present: 3 }), "{error}");
}

/// A policy for 1 to 10 users whose weights are any numbers.
fn set_sample() -> Vec<u8> {
    let config = SetConfig { most_users: 10, encoder: vec![12, 9], head: vec![8], activation: Activation::Relu };
    let mut state = 1u32;
    let mut number = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let mut values = |shapes: Vec<[usize; 2]>| -> Vec<(Vec<f32>, Vec<f32>)> {
        let mut draw = |count: usize| (0..count).map(|_| number()).collect::<Vec<f32>>();
        shapes.iter().map(|[inputs, outputs]| (draw(inputs * outputs), draw(*outputs))).collect()
    };
    let (encoder, head) = (values(config.encoder_layers()), values(config.head_layers()));
    let actor = SetActor::from_values(&config, encoder, head, &Device::flex());
    let (shape, action_map, algo) = (config.into(), ActionMap::EqualReceived, "set-dpg".to_owned());
    file::to_bytes(&PolicyHeader { shape, action_map, algo, seed: 3, steps: 1000 }, &actor.into()).expect("bytes")
}

fn decide(policy: &Policy, world: &World, seen: &[UserObservation]) -> Vec<UserDecision> {
    pollster::block_on(policy.decide(world.physics(), seen)).expect("decision")
}

fn difference(a: &[UserDecision], b: &[UserDecision]) -> f64 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| (a.alpha - b.alpha).abs().max((a.power_w - b.power_w).abs())).fold(0.0, f64::max)
}

#[test]
fn a_set_policy_follows_its_users_into_any_order() {
    let policy = Policy::load(&set_sample(), &Device::flex()).expect("policy");
    for users in 1..=10 {
        let world = World::new(MecParams::with_users(users), 4);
        let seen = world.observation();
        let decided = decide(&policy, &world, &seen);
        assert!(decided.iter().all(|d| (0.0..=1.0).contains(&d.alpha) && d.power_w > 0.0));
        // Users that differ are decided for differently, or following them would mean nothing.
        assert!(users == 1 || difference(&decided[..1], &decided[1..2]) > 1e-3);
        let turned = |k: usize| (3 * k + 1) % users;
        let orders: [Vec<usize>; 2] = [(0..users).rev().collect(), (0..users).map(turned).collect()];
        for order in orders.iter().filter(|order| (0..users).all(|k| order.contains(&k))) {
            let seen: Vec<_> = order.iter().map(|k| seen[*k]).collect();
            let wanted: Vec<_> = order.iter().map(|k| decided[*k]).collect();
            let off = difference(&decide(&policy, &world, &seen), &wanted);
            assert!(off < 1e-5, "{users} users as {order:?}: off by {off}");
        }
    }
}

#[test]
fn a_set_policy_goes_on_as_users_join_and_leave() {
    let policy = Policy::load(&set_sample(), &Device::flex()).expect("policy");
    assert_eq!(policy.users(), 1..=10);
    let mut world = World::new(MecParams::with_users(2), 9);
    let mut before = decide(&policy, &world, &world.observation());
    for users in [3, 7, 10, 4, 1, 2] {
        world.set_params(MecParams::with_users(users));
        let decided = decide(&policy, &world, &world.observation());
        assert_eq!(decided.len(), users);
        // Those who stay decide anew: the others are part of what they see.
        let stay = users.min(before.len());
        assert!(difference(&decided[..stay], &before[..stay]) > 1e-4, "{users} users");
        let reward = world.step(&decided).reward;
        assert!(reward.is_finite() && reward > 0.0);
        before = decide(&policy, &world, &world.observation());
    }
}

#[test]
fn a_set_policy_round_trips_and_refuses_numbers_of_users_out_of_its_range() {
    let bytes = set_sample();
    let (header, network) = file::from_bytes(&bytes, &Device::flex()).expect("file");
    assert_eq!(file::to_bytes(&header, &network).expect("bytes"), bytes);
    let policy = Policy::load(&bytes, &Device::flex()).expect("policy");
    assert_eq!((policy.header(), header.seed, header.steps), (&header, 3, 1000));
    let world = World::new(MecParams::with_users(11), 1);
    for present in [0, 11] {
        let seen = &world.observation()[..present];
        let error = pollster::block_on(policy.decide(world.physics(), seen)).expect_err("refused");
        assert_eq!(error.to_string(), format!("the policy decides for 1 to 10 users, but there are {present}"));
    }
    // Many slots at once decide as single ones; half a slot is none.
    let worlds: Vec<World> = (0..5).map(|seed| World::new(MecParams::with_users(3), seed)).collect();
    let seen: Vec<_> = worlds.iter().flat_map(World::observation).collect();
    let many = pollster::block_on(policy.decide_many(world.physics(), 3, &seen)).expect("decisions");
    for (world, many) in worlds.iter().zip(many.chunks(3)) {
        assert!(difference(&decide(&policy, world, &world.observation()), many) < 1e-6);
    }
    assert!(pollster::block_on(policy.decide_many(world.physics(), 3, &seen[..4])).is_err());
    // Each case changes a few header bytes to others of the same length.
    let cases: [(&[u8], &[u8], &str); 4] = [
        (b"version\\\":2,", b"version\\\":9,", "file version 9"),
        (b"users\\\":[1,10]", b"users\\\":[1,33]", "1 to 33"),
        (b"users\\\":[1,10]", b"users\\\":[2,10]", "2 to 10"),
        (b"encoder\\\":[12,", b"encoder\\\":[13,", "encoder.0.weight should be F32 [9, 13]"),
    ];
    for (from, to, reason) in cases {
        let at = bytes.windows(from.len()).position(|w| w == from).expect("header field");
        let mut bad = bytes.clone();
        bad[at..at + to.len()].copy_from_slice(to);
        let said = Policy::load(&bad, &Device::flex()).expect_err("refused").to_string();
        assert!(said.contains(reason), "{said}");
    }
}

fn shipped() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../public/policies")
}

#[test]
fn the_best_policy_for_a_number_of_users_is_the_one_with_the_greatest_share_of_the_optimum() {
    let text = std::fs::read_to_string(shipped().join("manifest.json")).expect("manifest.json");
    let manifest = PolicyManifest::parse(&text).expect("manifest");
    for users in 1..=10 {
        let single = manifest.policies.iter().filter(|entry| entry.users == users).map(|entry| entry.ratio);
        let sets = manifest.sets.iter().flat_map(|entry| &entry.evaluations);
        let sets = sets.filter(|evaluation| evaluation.users == users).map(|evaluation| evaluation.ratio);
        let best = manifest.best_for(users).expect("a policy for every K up to 10");
        assert_eq!(best.ratio, single.chain(sets).fold(0.0, f64::max), "K = {users}");
    }
    assert_eq!(manifest.best_for(11), None);
}

#[test]
fn the_shipped_policy_for_any_number_of_users_is_what_the_manifest_says_and_reproduces_its_golden_decisions() {
    let read = |name: &str| std::fs::read(shipped().join(name)).expect(name);
    let text = |name: &str| String::from_utf8(read(name)).expect(name);
    let manifest = PolicyManifest::parse(&text("manifest.json")).expect("manifest");
    let golden = GoldenDecisions::parse(&text("golden.json")).expect("golden");
    let [entry] = manifest.sets.as_slice() else { panic!("one policy for any number of users") };
    let bytes = read(&entry.file);
    let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((bytes.len() as u64, &hash), (entry.bytes, &entry.sha256));
    let policy = Policy::load(&bytes, &Device::flex()).expect("policy");
    // Rooms ask it for larger cells than the page has.
    assert_eq!((policy.users(), entry.evaluations.len()), (1..=MAX_USERS, 10));
    for (users, evaluation) in (1..=10).zip(&entry.evaluations) {
        assert_eq!(evaluation.users, users);
        assert!((evaluation.ratio - evaluation.reward / evaluation.oracle_reward).abs() < 1e-9);
        assert!(evaluation.ratio >= 0.95 && evaluation.reward > evaluation.closed_form_reward, "K = {users}");
        let physics = MecParams::with_users(users).physics();
        let cases = golden.cases.iter().filter(|case| case.policy == entry.id && case.observation.len() == users);
        let mut count = 0;
        for case in cases {
            let decision = pollster::block_on(policy.decide(&physics, &case.observation)).expect("decision");
            assert!(case.difference(&decision) < 1e-4, "K = {users}: {decision:?}");
            count += 1;
        }
        assert!(count >= 2);
    }
}
