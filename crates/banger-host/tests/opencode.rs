//! The program that runs opencode in a guest, with opencode as npm has it. Natively, in namespaces
//! of its own: emulated, opencode needs more than a minute to start.

use std::path::Path;
use std::process::{Command, Stdio};

const SERVE: &str = include_str!("../src/capabilities/opencode/serve.sh");

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

#[test]
fn the_server_asks_for_the_password_and_is_started_again() {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../.cache/tools/opencode/node_modules/opencode-linux-x64-baseline/bin");
    let tools = tools.canonicalize().unwrap_or_else(|error| {
        panic!("{}: {error}; scripts/setup.sh fetches it", tools.display())
    });
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", tools.display());
    let output = command
        .args(["sh", "-euc", GUEST, "guest", SERVE])
        .env_clear()
        .env("PATH", path)
        .env("HOME", home.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let expected = "without 401\nwrong 401\nright 200\nlog 600\nin arguments 0\n\
        second 0, same yes\nagain 401\n1\n";
    assert_eq!(said, expected, "{errors}");
}
