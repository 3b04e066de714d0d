//! Policy files and decisions on the CPU: `cargo test -p client-core --features policy-cpu --test policy`.
#![cfg(feature = "policy-cpu")]

use burn::tensor::Device;
use client_core::mec::{MecParams, World};
use client_core::policy::actor::{Actor, ActorConfig, Head};
use client_core::policy::file::{self, PolicyError, PolicyHeader};
use client_core::policy::{ActionMap, GoldenDecisions, Policy, PolicyManifest};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

fn sample(users: usize) -> Vec<u8> {
    let device = Device::flex();
    device.seed(7);
    let config = ActorConfig { hidden: vec![16, 8], ..ActorConfig::new(users) };
    let actor = config.init(&device);
    let header =
        PolicyHeader { config, action_map: ActionMap::EqualReceived, algo: "ppo".to_owned(), seed: 3, steps: 1000 };
    file::to_bytes(&header, &actor).expect("bytes")
}

#[test]
fn a_file_round_trips_and_decides_the_same_every_time() {
    let bytes = sample(3);
    let policy = Policy::load(&bytes, &Device::flex()).expect("policy");
    assert_eq!((policy.users(), policy.header().seed, policy.header().steps), (3, 3, 1000));
    let world = World::new(MecParams::with_users(3), 1);
    let decide = || pollster::block_on(policy.decide(world.physics(), &world.observation())).expect("decision");
    let first = decide();
    assert_eq!(first, decide());
    assert!(first.iter().all(|d| (0.0..=1.0).contains(&d.alpha) && d.power_w > 0.0));
    let again = file::to_bytes(policy.header(), &file::from_bytes(&bytes, &Device::flex()).expect("file").1);
    assert_eq!(again.expect("bytes"), bytes);
}

#[test]
fn many_slots_at_once_give_what_single_ones_give() {
    let policy = Policy::load(&sample(2), &Device::flex()).expect("policy");
    let worlds: Vec<World> = (0..5).map(|seed| World::new(MecParams::with_users(2), seed)).collect();
    let seen: Vec<_> = worlds.iter().flat_map(World::observation).collect();
    let physics = worlds[0].physics();
    let many = pollster::block_on(policy.decide_many(physics, &seen)).expect("decisions");
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
        let header = PolicyHeader { config, action_map, algo, seed: 1, steps: 0 };
        let policy = Policy::load(&file::to_bytes(&header, &actor).expect("bytes"), &Device::flex()).expect("policy");
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

fn shipped() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../public/policies")
}

#[test]
fn shipped_policies_are_what_the_manifest_says_and_reproduce_the_golden_decisions() {
    let read = |name: &str| std::fs::read(shipped().join(name)).expect(name);
    let text = |name: &str| String::from_utf8(read(name)).expect(name);
    let manifest = PolicyManifest::parse(&text("manifest.json")).expect("manifest");
    let golden = GoldenDecisions::parse(&text("golden.json")).expect("golden");
    for users in 1..=5 {
        let entry = manifest.for_users(users).expect("a policy for every K up to 5");
        let bytes = read(&entry.file);
        assert_eq!(bytes.len() as u64, entry.bytes);
        let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, entry.sha256);
        assert!((entry.ratio - entry.reward / entry.oracle_reward).abs() < 1e-9 && entry.ratio >= 0.95);
        let policy = Policy::load(&bytes, &Device::flex()).expect("policy");
        assert_eq!(policy.users(), users);
        let physics = MecParams::with_users(users).physics();
        let cases: Vec<_> = golden.cases.iter().filter(|case| case.policy == entry.id).collect();
        assert!(cases.len() >= 8);
        for case in cases {
            let decision = pollster::block_on(policy.decide(&physics, &case.observation)).expect("decision");
            assert!(case.difference(&decision) < 1e-4, "{}: {decision:?}", entry.id);
        }
    }
}
