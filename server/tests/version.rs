//! The binary itself. That this test names it makes `cargo test` build it, where the end-to-end tests find it.

#[test]
fn says_its_version() {
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_tandem")).arg("--version").output().expect("tandem runs");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), concat!("tandem ", env!("CARGO_PKG_VERSION")));
}
