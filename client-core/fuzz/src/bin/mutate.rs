//! `cargo run --release --bin mutate -- TARGET EXECUTIONS SEED`: damaged inputs to one target, or to `all`.

use std::process::ExitCode;

use client_core_fuzz::{run, targets};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| arguments.get(at).map_or(Some(default), |text| text.parse().ok());
    let (Some(executions), Some(seed)) = (number(1, 100_000), number(2, 1)) else {
        eprintln!("EXECUTIONS and SEED are whole numbers");
        return ExitCode::FAILURE;
    };
    let wanted = arguments.first().map_or("all", String::as_str);
    let names = targets::NAMES.into_iter().filter(|name| wanted == "all" || wanted == *name);
    let mut known = false;
    for name in names {
        known = true;
        let report = run(name, executions, seed).unwrap_or_default();
        println!(
            "{name}: {} executions from seed {seed}, {} of them sound, no crash",
            report.executions, report.accepted
        );
    }
    if !known {
        eprintln!("there is no target {wanted:?}; there are {:?} and all", targets::NAMES);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
