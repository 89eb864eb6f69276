//! What a user of `cargo xtask` sees when a task fails.

use std::process::Command;

#[test]
fn an_error_shows_no_backtrace() {
    for words in [&["frobnicate"][..], &["bench", "--frobnicate"], &["lab", "frobnicate"]] {
        let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
        let output = xtask.args(words).env("RUST_BACKTRACE", "1").output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}\n{text}");
        assert!(text.starts_with("error: ") && !text.contains("backtrace"), "{words:?}\n{text}");
    }
}
