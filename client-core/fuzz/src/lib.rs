//! What is fuzzed, and a driver that needs no fuzzer: random damage to sound inputs, from a seed.
//!
//! | file | holds |
//! | --- | --- |
//! | `targets.rs` | one function for each kind of outside data; it panics when something is wrong |
//! | `seeds.rs` | the sound inputs |
//! | `mutator.rs` | the damage |
//! | `../tests/counting` | an allocator that counts, as the tests use it |
//! | `bin/mutate.rs` | `cargo run --release --bin mutate -- TARGET EXECUTIONS SEED` |
//! | `bin/seeds.rs` | `cargo run --release --bin seeds -- FOLDER`: the sound inputs as files |
//! | `node.mjs` | the same inside wasm32, where sizes have 32 bits |
//!
//! With a nightly compiler and cargo-fuzz, from client-core: `cargo +nightly fuzz run gguf`. A stable compiler does as well:
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run -s none gguf`. Both begin with what lies in `fuzz/corpus/TARGET`, to which they add
//! what reaches something new. It is not kept here: `seeds` writes the first of it.

#[path = "../../engine/tests/counting/mod.rs"]
pub mod counting;
pub mod mutator;
pub mod seeds;
pub mod targets;

#[global_allocator]
static COUNTING: counting::Counting = counting::Counting;

/// Damages and runs `executions` inputs; what came of it.
pub fn run(name: &str, executions: u64, seed: u64) -> Option<Report> {
    let target = targets::by_name(name)?;
    let seeds = seeds::of(name);
    let mut mutator = mutator::Mutator::new(seed);
    let mut report = Report::default();
    for _ in 0..executions {
        let input = mutator.damaged(&seeds);
        report.executions += 1;
        report.accepted += u64::from(target(&input));
    }
    Some(report)
}

/// What a run of the driver did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report {
    /// Inputs tried.
    pub executions: u64,
    /// Those that were sound in spite of the damage.
    pub accepted: u64,
}

/// For wasm32: target 0 to 5 in the order of [`targets::NAMES`]; returns how many inputs were sound.
#[unsafe(no_mangle)]
pub extern "C" fn mutate(target: u32, executions: u32, seed: u32) -> u32 {
    let name = targets::NAMES.get(target as usize).copied().unwrap_or_default();
    run(name, u64::from(executions), u64::from(seed)).map_or(u32::MAX, |report| report.accepted as u32)
}
