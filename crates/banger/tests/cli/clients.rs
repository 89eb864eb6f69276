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

/// The clients that users generate with `make clients`, used against a daemon on its Unix socket.
#[test]
fn generated_clients_use_machines() {
    let home = home();
    home.ok(&["daemon", "start"]);
    let (clients, tools) = (home.path().join("clients"), repository().join(".cache/tools"));
    let scripts = repository().join("scripts/api-clients");
    succeed(Command::new(scripts.join("generate.sh")).arg(&clients));
    let socket = home.path().join("run/bangerd.sock");

    let mut python = Command::new(tools.join("api-clients-python/bin/python"));
    python.arg("-B").arg(scripts.join("python/smoke.py")).arg(&socket);
    let text = succeed(python.env("PYTHONPATH", clients.join("python")));
    assert!(text.ends_with("ok\n"), "{text}");

    let (typescript, packages) = (clients.join("typescript"), tools.join("api-clients-typescript"));
    std::os::unix::fs::symlink(packages.join("node_modules"), typescript.join("node_modules"))
        .unwrap();
    for file in ["smoke.ts", "tsconfig.json", "package.json"] {
        std::fs::copy(scripts.join("typescript").join(file), typescript.join(file)).unwrap();
    }
    // A program with a wrong type does not compile.
    let compiler = packages.join("node_modules/typescript/bin/tsc");
    succeed(Command::new("node").arg(&compiler).arg("-p").arg(&typescript));
    let text = succeed(Command::new("node").arg(typescript.join("smoke.js")).arg(&socket));
    assert!(text.ends_with("ok\n"), "{text}");
    assert_eq!(home.json(&["vm", "list"]), serde_json::json!([]));
    home.finish();
}
