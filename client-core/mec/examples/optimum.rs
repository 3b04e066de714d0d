//! Holds the optimum against brute force, against everybody who decides without a search, against a search that takes a
//! hundred times as long, and against a proven bound, in random worlds: `cargo run --release -p mec --example optimum -- [brute|simple|effort|bound] [WORLDS]`.

#[path = "../tests/shared/mod.rs"]
mod shared;

use mec::bound::reward_bound;
use mec::{OracleEffort, oracle};

/// Shortfalls against a reference, worst first.
struct Shortfalls {
    name: String,
    found: Vec<(f64, String)>,
}

impl Shortfalls {
    fn new(name: String) -> Self {
        Self { name, found: Vec::new() }
    }

    fn add(&mut self, reward: f64, reference: f64, what: impl FnOnce() -> String) {
        self.found.push((1.0 - reward / reference, what()));
    }

    fn print(mut self) {
        self.found.sort_by(|a, b| b.0.total_cmp(&a.0));
        let over = |limit: f64| self.found.iter().filter(|(short, _)| *short > limit).count();
        let better = self.found.iter().filter(|(short, _)| *short < -1e-3).count();
        println!(
            "{}: {} slots, short by over 1e-2: {}, 1e-3: {}, 1e-4: {}; better by over 1e-3: {better}",
            self.name,
            self.found.len(),
            over(1e-2),
            over(1e-3),
            over(1e-4),
        );
        for (short, what) in self.found.iter().take(5).filter(|(short, _)| *short > 1e-6) {
            println!("    {short:.2e} {what}");
        }
    }
}

fn brute(worlds: u64) {
    let mut shortfalls = Shortfalls::new("K = 2 against brute force".to_owned());
    for index in 0..worlds {
        if index > 0 && index % 20 == 0 {
            let worst = shortfalls.found.iter().map(|(short, _)| *short).fold(f64::NEG_INFINITY, f64::max);
            println!("after {index} worlds: short by at most {worst:.2e}");
        }
        let mut world = shared::world(2, index);
        for slot in 0..20 {
            let backlog_s = shared::backlog_s(&world, 20 * index + slot);
            let found = oracle::optimum(world.physics(), world.slots(), backlog_s, OracleEffort::Usual);
            let reference = shared::brute_force(world.physics(), world.slots(), backlog_s);
            let share = world.params().server_share.name();
            shortfalls.add(found.totals.reward, reference, || {
                format!("world {index}, slot {slot}, backlog {backlog_s:.4} s, {share}: {:.6e}", found.totals.reward)
            });
            world.step(&[]);
        }
    }
    shortfalls.print();
}

fn simple(worlds: u64) {
    for users in 1..=10 {
        let mut shortfalls = Shortfalls::new(format!("K = {users} against simple decisions"));
        for index in 0..worlds {
            let mut world = shared::world(users, index);
            let reward = world.optimum(OracleEffort::Usual).totals.reward;
            let (reference, name) = shared::best_simple(&mut world);
            shortfalls.add(reward, reference, || format!("world {index}: {name}"));
        }
        shortfalls.print();
    }
}

fn effort(worlds: u64) {
    for users in 1..=10 {
        let mut shortfalls = Shortfalls::new(format!("K = {users} against a thorough search"));
        for index in 0..worlds {
            let world = shared::world(users, index);
            let [usual, thorough] =
                [OracleEffort::Usual, OracleEffort::Thorough].map(|effort| world.optimum(effort).totals.reward);
            shortfalls.add(usual, thorough, || format!("world {index}, {}", world.params().server_share.name()));
        }
        shortfalls.print();
    }
}

fn bound(worlds: u64) {
    for users in 1..=10 {
        let mut shortfalls = Shortfalls::new(format!("K = {users} against the bound"));
        let mut shares = Vec::new();
        for index in 0..worlds {
            let world = shared::world(users, index);
            let reward = world.optimum(OracleEffort::Usual).totals.reward;
            let bound = reward_bound(world.physics(), world.slots(), 0.0);
            shares.push(reward / bound);
            shortfalls.add(reward, bound, || format!("world {index}, {}", world.params().server_share.name()));
        }
        shortfalls.print();
        shares.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| shares.get((share * shares.len() as f64) as usize).copied().unwrap_or(f64::NAN);
        println!("    share of the bound: 5th percentile {:.4}, 25th {:.4}, median {:.4}", at(0.05), at(0.25), at(0.5));
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_default();
    let worlds = args.next().map(|n| n.parse().expect("a number of worlds"));
    match what.as_str() {
        "brute" => brute(worlds.unwrap_or(200)),
        "simple" => simple(worlds.unwrap_or(1000)),
        "effort" => effort(worlds.unwrap_or(100)),
        "bound" => bound(worlds.unwrap_or(100)),
        _ => {
            brute(worlds.unwrap_or(200));
            simple(worlds.unwrap_or(1000));
            effort(worlds.unwrap_or(100));
            bound(worlds.unwrap_or(100));
        }
    }
}
