//! Slots a second on one core: `cargo bench -p mec`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mec::bound::reward_bound;
use mec::draw::draw_params;
use mec::{
    BatchSlots, BatchTotals, MecParams, OracleEffort, QosKnowledge, StaticPolicy, UserDecision, UserOutcome, VecEnv,
    World, evaluate,
};
use rand::SeedableRng;
use std::hint::black_box;

fn slots(c: &mut Criterion) {
    let mut group = c.benchmark_group("mec");
    group.throughput(Throughput::Elements(1));
    for users in [2, 5] {
        let mut world = World::new(MecParams::with_users(users), 1);
        let decisions = world.decide(StaticPolicy::ClosedForm(QosKnowledge::Mean));
        let mut out = vec![UserOutcome::default(); users];
        // The physics of one slot.
        group.bench_function(format!("evaluate/k{users}"), |b| {
            b.iter(|| evaluate(world.physics(), world.slots(), 0.0, black_box(&decisions), &mut out));
        });
        // The same with everything that happens between two slots.
        let mut moving = world.clone();
        group.bench_function(format!("step/k{users}"), |b| b.iter(|| moving.step(black_box(&decisions))));
        let mut buffer = vec![UserDecision::default(); users];
        let mut rng = rand_xoshiro::Xoshiro256PlusPlus::from_seed([7; 32]);
        group.bench_function(format!("closed-form/k{users}"), |b| {
            let policy = StaticPolicy::ClosedForm(QosKnowledge::Mean);
            b.iter(|| policy.decide(world.physics(), black_box(world.slots()), &mut rng, &mut buffer));
        });
    }
    // One cell at the defaults, and the mean of eight whose settings are drawn from all of their ranges.
    for users in [2, 5, 10] {
        let usual = World::new(MecParams::with_users(users), 1);
        group.bench_function(format!("oracle/k{users}"), |b| b.iter(|| usual.optimum(OracleEffort::Usual)));
        group.bench_function(format!("bound/k{users}"), |b| {
            b.iter(|| reward_bound(usual.physics(), black_box(usual.slots()), 0.0));
        });
        let mut rng = rand_xoshiro::Xoshiro256PlusPlus::from_seed([7; 32]);
        let drawn: Vec<World> = (0..8).map(|i| World::new(draw_params(users, 0.5, &mut rng), i)).collect();
        let mut turn = drawn.iter().cycle();
        group.bench_function(format!("oracle-drawn/k{users}"), |b| {
            b.iter(|| turn.next().map(|world| world.optimum(OracleEffort::Usual)));
        });
    }
    // What a learner steps: many cells with everything between two slots, episodes included.
    let count = 64;
    group.throughput(Throughput::Elements(count));
    for users in [2, 5] {
        let mut envs = VecEnv::new(MecParams::with_users(users), count as usize, 1);
        let decisions = vec![UserDecision { alpha: 0.6, power_w: 1.0 }; count as usize * users];
        group.bench_function(format!("environments/k{users}"), |b| {
            b.iter(|| {
                envs.step(black_box(&decisions));
                envs.reset_truncated();
            });
        });
    }
    // Many slots at once.
    let count = 4096;
    group.throughput(Throughput::Elements(count));
    for users in [2, 5, 10] {
        let params = MecParams::with_users(users);
        let mut worlds: Vec<World> = (0..count).map(|i| World::new(params, i)).collect();
        let slots = BatchSlots::new(worlds.iter().map(World::slots));
        let (mut decisions, mut totals) = (slots.decisions(), BatchTotals::default());
        for (i, world) in worlds.iter_mut().enumerate() {
            decisions.set(i, &world.decide(StaticPolicy::Random));
        }
        let physics = params.physics();
        group.bench_function(format!("evaluate-batch/k{users}"), |b| {
            b.iter(|| slots.evaluate(&physics, black_box(&decisions), &mut totals));
        });
    }
    group.finish();
}

criterion_group!(benches, slots);
criterion_main!(benches);
