//! The package for Python and a real VM.

use std::path::Path;
use std::process::Command;

use banger_testkit::{Home, Run};

#[test]
fn a_program_in_python_uses_a_machine() {
    let home = Home::new();
    home.ok(&["daemon", "start"]);
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/python");
    let run = Command::new("python3")
        .args(["-B", "-W", "error::ResourceWarning", "-m", "tests.real"])
        .current_dir(package)
        .env("BANGER_SOCKET", home.path().join("run/bangerd.sock"))
        .output();
    let run = Run::from(run.unwrap());
    assert_eq!((run.code, run.out.as_str()), (0, "ok\n"), "{}", run.err);
    home.finish();
}
