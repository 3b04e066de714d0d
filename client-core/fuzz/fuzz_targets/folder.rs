//! `cargo +nightly fuzz run folder` from client-core.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    client_core_fuzz::targets::folder(data);
});
