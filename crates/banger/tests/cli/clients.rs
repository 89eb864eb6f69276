//! Programs in Python with the package of `clients/python`.

use std::path::PathBuf;
use std::process::Command;

use crate::support::home;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs a program to its end and returns its output; it must succeed.
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{command:?}\n{text}");
    text
}

#[test]
fn the_python_package_creates_uses_and_deletes_machines() {
    let home = home();
    home.ok(&["daemon", "start"]);
    let mut python = Command::new("python3");
    python
        .args(["-B", "-W", "error::ResourceWarning", "-m", "unittest", "tests.test_sandbox"])
        .current_dir(repository().join("clients/python"))
        .env("BANGER_SOCKET", home.path().join("run/bangerd.sock"))
        .env_remove("BANGER_TEST_VM");
    let text = succeed(&mut python);
    assert!(text.contains("Ran 7 tests"), "{text}");
    home.finish();
}
