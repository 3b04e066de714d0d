//! `cargo +nightly fuzz run tokenizer_json` from client-core.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    client_core_fuzz::targets::tokenizer_json(data);
});
