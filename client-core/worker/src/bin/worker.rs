//! The engine worker: `worker::engine_worker`.

fn main() {
    #[cfg(target_arch = "wasm32")]
    worker::engine_worker::start();
}
