//! The module: everything is in the library beside this file, and called from the page's script.

fn main() {
    #[cfg(target_arch = "wasm32")]
    markdown::start();
}
