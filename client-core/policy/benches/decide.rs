//! Time of a decision of the policy for every world behind its network: `cargo bench -p policy`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use mec::{MecParams, UserDecision, World};
use policy::world::{Outlook, Proposal};

/// As many proposals as the shipped policy's network makes.
const PROPOSALS: usize = 4;

fn decisions(c: &mut Criterion) {
    let mut group = c.benchmark_group("world");
    for users in [1, 2, 3, 5, 10] {
        // One cell in many of its slots, so that no branch is learned by heart.
        let mut world = World::new(MecParams::with_users(users), 1);
        let slots: Vec<_> = (0..64)
            .map(|_| {
                let seen = world.observation();
                world.step(&vec![UserDecision { alpha: 0.6, power_w: 1.0 }; users]);
                seen
            })
            .collect();
        let physics = *world.physics();
        let mut out = vec![UserDecision::default(); users];
        let mut turn = slots.iter().cycle();
        group.bench_function(format!("decide/k{users}"), |b| {
            b.iter(|| {
                let seen = turn.next().map(Vec::as_slice).unwrap_or_default();
                let outlook = Outlook::new(&physics, black_box(seen));
                let proposals =
                    (0..PROPOSALS).map(|index| Proposal { soft: 0.1 * index as f64, ..Proposal::default() });
                outlook.decide(&physics, proposals, &mut out)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decisions);
criterion_main!(benches);
