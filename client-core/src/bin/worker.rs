//! The engine worker: `client_core::js::worker`.

fn main() {
    #[cfg(target_arch = "wasm32")]
    client_core::js::worker::start();
}
