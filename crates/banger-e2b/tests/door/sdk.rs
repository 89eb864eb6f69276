//! The SDK for Python, and the ends of sandboxes.

use crate::support::{Served, root};

/// Runs a program of the SDK; its output.
fn python(served: &Served, arguments: &[&str]) -> String {
    let python = root().join(".cache/tools/e2b/bin/python");
    assert!(python.exists(), "{} is missing: run `scripts/setup.sh test`", python.display());
    let output = served.client(&python).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn the_sdk_uses_sandboxes() {
    let served = Served::start();
    let client = root().join("scripts/e2b/client.py");
    assert!(python(&served, &[client.to_str().unwrap()]).ends_with("ok\n"));
    assert_eq!(served.machines(), 0);
    served.finish();
}

const CREATE: &str = "from e2b import Sandbox; print(Sandbox.create(timeout=600).sandbox_id)";

#[test]
fn sandboxes_end_with_the_server() {
    for signal in ["-TERM", "-KILL"] {
        let mut served = Served::start();
        let id = python(&served, &["-c", CREATE]).trim().to_owned();
        let shown = served.home.json(&["vm", "show", &id]);
        assert_eq!(shown["labels"]["e2b-server"].as_str().map(str::len), Some(12), "{shown}");
        served.end(signal);
        served.home.wait_state(shown["name"].as_str().unwrap(), "gone");
        served.home.finish();
    }
}

#[test]
fn a_machine_that_shuts_down_is_no_sandbox() {
    let mut served = Served::start();
    let id = python(&served, &["-c", CREATE]).trim().to_owned();
    served.home.ok(&["vm", "delete", "-f", &id]);
    let look = format!(
        "from e2b import Sandbox\n\
         assert Sandbox.list().next_items() == []\n\
         assert Sandbox.kill('{id}') is False\n\
         print('ok')"
    );
    assert_eq!(python(&served, &["-c", &look]), "ok\n");
    assert_eq!(served.end("-INT"), Some(0));
    served.home.finish();
}

#[test]
fn a_key_makes_one_sandbox() {
    let served = Served::start();
    let twice = "from e2b import Sandbox\n\
        one, two = [Sandbox.create(idempotency_key='a-key') for _ in range(2)]\n\
        assert one.sandbox_id == two.sandbox_id\n\
        assert two.commands.run('echo 1').stdout == '1\\n'\n\
        print('ok')";
    assert_eq!(python(&served, &["-c", twice]), "ok\n");
    assert_eq!(served.machines(), 1);
    served.finish();
}

#[test]
fn the_sdk_for_javascript_uses_a_sandbox() {
    let served = Served::start();
    let packages = root().join(".cache/tools/e2b-js");
    assert!(packages.exists(), "{} is missing: run `scripts/setup.sh test`", packages.display());
    let mut node = served.client("node".as_ref());
    let output =
        node.arg(root().join("scripts/e2b-js/client.mjs")).arg(&packages).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).ends_with("ok\n"));
    served.finish();
}
