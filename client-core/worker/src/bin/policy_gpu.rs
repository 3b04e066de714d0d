//! The policy on burn-wgpu, as a worker of its own: `worker::policy_worker`.

fn main() {
    #[cfg(target_arch = "wasm32")]
    worker::policy_worker::start_gpu();
}
