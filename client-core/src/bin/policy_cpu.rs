//! The policy on burn flex, as a worker of its own: `client_core::js::policy_worker`.

fn main() {
    #[cfg(target_arch = "wasm32")]
    client_core::js::policy_worker::start_cpu();
}
