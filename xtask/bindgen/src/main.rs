//! wasm-bindgen as a program: `bindgen web|no-modules MODULE.wasm FOLDER NAME` writes `NAME.js` and `NAME_bg.wasm`.
//!
//! A package of its own, so that xtask itself stays quick to compile, and not the released program `wasm-bindgen`: that one
//! brings an HTTP client, a test server and OpenSSL, which a machine without its headers cannot build, and its version has
//! to be kept equal to the library's by hand. Here Cargo.lock does that.

use std::path::Path;

use anyhow::{Result, bail};
use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, module, folder, name] = arguments.as_slice() else {
        bail!("usage: bindgen web|no-modules MODULE.wasm FOLDER NAME");
    };
    let mut bindgen = Bindgen::new();
    match target.as_str() {
        "web" => bindgen.web(true)?,
        "no-modules" => bindgen.no_modules(true)?,
        other => bail!("unknown target {other}: web or no-modules"),
    };
    // As the released program without options: the script knows where its module lies.
    bindgen.input_path(module).out_name(name).typescript(false).omit_default_module_path(false);
    bindgen.generate(Path::new(folder))
}
