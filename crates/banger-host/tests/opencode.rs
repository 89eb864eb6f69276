//! The program that runs opencode in a guest, with opencode as npm has it. Natively, in namespaces
//! of its own: emulated, opencode needs more than a minute to start.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

const SERVE: &str = include_str!("../src/capabilities/opencode/serve.sh");
const FAILED: &str = include_str!("../src/capabilities/opencode/failed.sh");

/// Takes the place of the agent, which starts the program; `$1` is the program.
const GUEST: &str = r#"
ip link set lo up
mount -t tmpfs none /run
password=$(od -An -N16 -tx1 /dev/urandom | tr -d " \n")
export OPENCODE_SERVER_PASSWORD=$password
start() { setsid sh -c "$1" </dev/null >/run/output 2>&1 & }
code() { curl -s -m "${limit:-60}" -o /dev/null -w '%{http_code}' "$@" http://127.0.0.1:4096/; }
wait_answer() {
    for i in $(seq 1200); do
        # A connection that comes while the server starts may never be answered.
        if [ "$(limit=1 code)" != 000 ]; then return; fi
        sleep 0.05
    done
    cat /run/opencode/log >&2
    exit 1
}
start "$1"
wait_answer
echo "without $(code)"
echo "wrong $(code -u opencode:other)"
echo "right $(code -u "opencode:$password")"
echo "log $(stat -c %a /run/opencode/log)"
cat /proc/[0-9]*/cmdline >/run/arguments
echo "in arguments $(grep -c "$password" /run/arguments)"
# Once more: the one that runs stays.
before=$(cat /run/opencode/pid)
start "$1"
wait $!
echo "second $?, same $([ "$before" = "$(cat /run/opencode/pid)" ] && echo yes)"
pkill -x opencode
while pgrep -x opencode >/dev/null && [ "$(limit=1 code)" != 000 ]; do sleep 0.05; done
wait_answer
echo "again $(code)"
grep -c 'is started again in 1 s' /run/opencode/log
"#;

/// The same with a server that does not run: `$2` tells whether it has failed.
const BROKEN: &str = r#"
mount -t tmpfs none /run
start() { setsid sh -c "$1" </dev/null >/run/output 2>&1 & }
failed() { if sh -c "$2"; then echo yes; else echo no; fi; }
echo "before $(failed "$@")"
start "$1"
until grep -qs '^opencode ended' /run/opencode/log; do sleep 0.05; done
echo "after one end $(failed "$@")"
until [ "$(failed "$@")" = yes ]; do sleep 0.05; done
echo "after $(grep -c '^opencode ended' /run/opencode/log)"
kill "$(cat /run/opencode/pid)"
wait
rm -r /run/opencode
PATH=/usr/bin:/bin
start "$1"
until [ "$(failed "$@")" = yes ]; do sleep 0.05; done
echo "without a program"
"#;

/// Runs a script in namespaces of its own, with these programs; its output and messages.
fn guest(script: &str, programs: &Path, arguments: &[&str]) -> (String, String) {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display());
    let output = command
        .args(["sh", "-euc", script, "guest"])
        .args(arguments)
        .env_clear()
        .env("PATH", path)
        .env("HOME", home.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_server_that_ends_again_and_again_has_failed() {
    let programs = tempfile::tempdir().unwrap();
    let program = programs.path().join("opencode");
    std::fs::write(&program, "#!/bin/sh\nexit 132\n").unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let (said, errors) = guest(BROKEN, programs.path(), &[SERVE, FAILED]);
    let expected = "before no\nafter one end no\nafter 3\nwithout a program\n";
    assert_eq!(said, expected, "{errors}");
}

#[test]
fn the_server_asks_for_the_password_and_is_started_again() {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../.cache/tools/opencode/node_modules/opencode-linux-x64-baseline/bin");
    let tools = tools.canonicalize().unwrap_or_else(|error| {
        panic!("{}: {error}; scripts/setup.sh fetches it", tools.display())
    });
    let (said, errors) = guest(GUEST, &tools, &[SERVE]);
    let expected = "without 401\nwrong 401\nright 200\nlog 600\nin arguments 0\n\
        second 0, same yes\nagain 401\n1\n";
    assert_eq!(said, expected, "{errors}");
}
