//! The arguments of the shipped program.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::process::{Command, Output};

fn run(argument: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bangerd")).arg(argument).output().unwrap()
}

#[test]
fn version_and_help() {
    let version = String::from_utf8(run("--version").stdout).unwrap();
    let build_id = version.trim_end().rsplit_once('(').unwrap().1.trim_end_matches(')');
    assert!(build_id.len() == 16, "{version}");
    assert!(version.starts_with(&format!("bangerd {} (", env!("CARGO_PKG_VERSION"))));
    assert!(run("--help").stdout.starts_with(b"The daemon of banger"));
}

#[test]
fn test_switches_are_not_in_the_shipped_program() {
    for argument in ["--sim", "--wat"] {
        let refused = run(argument);
        assert_eq!(refused.status.code(), Some(2), "{argument}");
        assert!(String::from_utf8(refused.stderr).unwrap().contains(argument));
    }
    let program = std::fs::read(env!("CARGO_BIN_EXE_bangerd")).unwrap();
    for switch in ["BANGER_ABORT_AT", "BANGER_ASSUME_KVM", "BANGER_SIM_FAULTS", "sim-world.json"] {
        let found = program.windows(switch.len()).any(|bytes| bytes == switch.as_bytes());
        assert!(!found, "`{switch}` is in the shipped program");
    }
}
