//! Takes comments and indentation out of the kernels' WGSL, which a page downloads with the worker and no driver reads.
#![allow(clippy::disallowed_methods, reason = "a build script reads and writes files")]

use std::path::PathBuf;
use std::{env, fs, io};

const KERNELS: &str = "src/gpu/kernels";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed={KERNELS}");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo names no OUT_DIR"))?);
    for entry in fs::read_dir(KERNELS)? {
        let path = entry?.path();
        if let (Some(name), Some("wgsl")) = (path.file_name(), path.extension().and_then(|ending| ending.to_str())) {
            fs::write(out.join(name), stripped(&fs::read_to_string(&path)?))?;
        }
    }
    Ok(())
}

/// WGSL has no strings, so two slashes always begin a comment. A line's marker (see `matmul.wgsl`) stays in front of it.
fn stripped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default();
        let marker = ["@pc ", "@p ", "@c "].into_iter().find(|marker| line.starts_with(marker)).unwrap_or_default();
        let code = line[marker.len()..].trim();
        if !code.is_empty() {
            out.push_str(marker);
            out.push_str(code);
            out.push('\n');
        }
    }
    out
}
