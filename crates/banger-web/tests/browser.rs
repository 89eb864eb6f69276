//! The page in Chromium, by keyboard: `scripts/web-tests/flows.mjs` drives it, against a daemon on
//! the simulated host.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use banger_testkit::{Home, Options, program};
use sha2::{Digest, Sha256};

/// `banger web`, ended with the test.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Folder of the programs of the test, as `scripts/setup.sh test` keeps them.
fn packages(root: &Path) -> PathBuf {
    let lock = std::fs::read(root.join("scripts/web-tests/package-lock.json")).unwrap();
    let sum: String = Sha256::digest(lock).iter().take(8).map(|b| format!("{b:02x}")).collect();
    let folder = root.join(".cache/tools").join(format!("web-tests-{sum}"));
    assert!(folder.exists(), "{} is missing: run `scripts/setup.sh test`", folder.display());
    folder
}

#[test]
fn users_get_through_all_flows_by_keyboard() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let home = Home::bare(Options {
        env: vec![("BANGERD".into(), program("bangerd-sim").display().to_string())],
        ..Options::default()
    });
    let command = ["web", "--no-open", "--listen", "0"];
    let mut served = Served(home.command(&command).spawn().unwrap());
    let mut link = String::new();
    BufReader::new(served.0.stdout.take().unwrap()).read_line(&mut link).unwrap();
    assert!(link.contains("/enter?token="), "{link}");
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let run = Command::new("node")
        .arg(root.join("scripts/web-tests/flows.mjs"))
        .arg(link.trim())
        .env("BANGER_WEB_TESTS", packages(&root))
        .env("BANGER_FREE_PORT", free.to_string())
        .output()
        .expect("`node` is missing: run `scripts/setup.sh test`");
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{errors}");
}
