//! Writes the golden answers that every backend has to repeat: the greedy answers of the shipped models, computed
//! natively on the CPU.
//!
//! `cargo run -p engine --features cpu,gpu --example engine_golden` from the top folder, whenever a file in
//! public/models changes. Other files: `-- MODELS_FOLDER FILE.gguf …`. The prompts are in tests/golden/prompts.txt, the
//! answers go to tests/golden/engine.json. With `--check` nothing is written: WebGPU (natively: Vulkan) has to give the
//! same answers.
#![allow(clippy::disallowed_methods, reason = "a program of its own, with files and arguments")]

use std::path::{Path, PathBuf};

use engine::Engine;
use engine::checks::{self, Answer, Golden};
use engine::gpu::GpuContext;

type Failed = Box<dyn std::error::Error>;

fn read(path: &Path) -> Result<Vec<u8>, Failed> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn main() -> Result<(), Failed> {
    let (flags, mut files): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let folder = if files.is_empty() { PathBuf::from("public/models") } else { PathBuf::from(files.remove(0)) };
    if files.is_empty() {
        let manifest: serde_json::Value = serde_json::from_slice(&read(&folder.join("manifest.json"))?)?;
        let models = manifest["models"].as_array().cloned().unwrap_or_default();
        files = models.iter().filter_map(|model| model["file"].as_str().map(str::to_owned)).collect();
    }
    let out = Path::new("tests/golden/engine.json");
    if flags.iter().any(|flag| flag == "--check") {
        return check(&folder, &serde_json::from_slice::<Vec<Golden>>(&read(out)?)?);
    }
    let prompts = String::from_utf8_lossy(&read(Path::new("tests/golden/prompts.txt"))?).into_owned();
    let mut golden = Vec::new();
    for file in files {
        let bytes = read(&folder.join(&file))?;
        let mut engine = Engine::from_gguf_cpu(&bytes)?;
        let mut answers = Vec::new();
        for prompt in prompts.lines().filter(|line| !line.trim().is_empty()) {
            let text = pollster::block_on(checks::greedy(&mut engine, prompt))?;
            answers.push(Answer { prompt: prompt.to_owned(), text });
        }
        println!("{file}: {} answers", answers.len());
        golden.push(Golden { file, sha256: checks::sha256_hex(&bytes), answers });
    }
    std::fs::write(out, serde_json::to_string_pretty(&golden)? + "\n")?;
    Ok(())
}

fn check(folder: &Path, golden: &[Golden]) -> Result<(), Failed> {
    let gpu = pollster::block_on(GpuContext::request())?;
    let mut failures = 0;
    for golden in golden {
        let bytes = read(&folder.join(&golden.file))?;
        for engine in [pollster::block_on(Engine::from_gguf_gpu(&bytes, &gpu))?, Engine::from_gguf_cpu(&bytes)?] {
            let check = pollster::block_on(checks::golden(engine, &bytes, golden));
            println!("{} {}: {}", if check.passed { "ok" } else { "FAILED" }, check.name, check.detail);
            failures += usize::from(!check.passed);
        }
    }
    if failures == 0 { Ok(()) } else { Err(format!("{failures} checks failed").into()) }
}
