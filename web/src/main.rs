//! Tandem's page: everything is in the library beside this file.

fn main() {
    #[cfg(target_arch = "wasm32")]
    web::start();
}
