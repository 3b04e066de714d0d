//! The presenter's page: everything is in the library.

fn main() {
    #[cfg(target_arch = "wasm32")]
    rooms::presenter::start();
}
