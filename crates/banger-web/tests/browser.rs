//! The page in Chromium, by keyboard: `scripts/web-tests/flows.mjs` drives it, against a daemon on
//! the simulated host.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that fails may panic")]

use std::net::TcpListener;

use banger_testkit::{Home, Options, Web, program};

/// Goes through all flows in a window of this size; axe-core looks at each page in both schemes.
fn flows(size: &str, scheme: &str) {
    let home = Home::bare(Options {
        env: vec![("BANGERD".into(), program("bangerd-sim").display().to_string())],
        ..Options::default()
    });
    let web = Web::serve(&home);
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let run = web
        .program("flows.mjs")
        .args([size, scheme])
        .env("BANGER_FREE_PORT", free.to_string())
        .output()
        .expect("`node` is missing: run `scripts/setup.sh test`");
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{errors}");
}

#[test]
fn users_get_through_all_flows_by_keyboard() {
    flows("1440x900", "light");
}

#[test]
fn users_get_through_all_flows_by_keyboard_in_a_narrow_dark_window() {
    flows("390x844", "dark");
}
