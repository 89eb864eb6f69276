//! The official clients of the Model Context Protocol: the inspector's command line and the SDK for
//! Python, which scripts/setup.sh installs.

use std::path::{Path, PathBuf};
use std::process::Command;

use banger_testkit::program;
use serde_json::Value;

use crate::support::home;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs the inspector's command line on a server with these variables.
fn inspect(variables: &[(String, String)], args: &[&str]) -> (Option<i32>, Value, String) {
    inspect_with(&[], variables, args)
}

/// The same with flags for the server.
fn inspect_with(
    flags: &[&str],
    variables: &[(String, String)],
    args: &[&str],
) -> (Option<i32>, Value, String) {
    let inspector = root().join(".cache/tools/mcp-inspector/node_modules/.bin/mcp-inspector");
    let mut command = Command::new(inspector);
    command.args(["--cli"]).arg(program("banger")).arg("mcp").args(flags);
    for (name, value) in variables {
        command.args(["-e", &format!("{name}={value}")]);
    }
    let output = command.args(args).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    let out = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), out, err)
}

#[test]
fn the_inspector_lists_and_calls_tools() {
    let home = home();
    let variables = [
        ("BANGER_HOME".to_owned(), home.path().display().to_string()),
        ("BANGERD".to_owned(), program("bangerd-sim").display().to_string()),
    ];
    let (code, tools, err) = inspect(&variables, &["--method", "tools/list", "--strict"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(!err.contains("arning"), "{err}");
    assert!(tools["tools"].as_array().unwrap().len() > 10, "{tools}");
    let call = ["--method", "tools/call", "--tool-name", "run", "--tool-arg", "command=exit 7"];
    let (code, result, err) = inspect(&variables, &call);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(result["structuredContent"]["exit_code"], 7, "{result}");
    // Tools with files of this host and with workspaces.
    home.ok(&["vm", "create", "--name", "web"]);
    let file = home.path().join("file");
    std::fs::write(&file, "text\n").unwrap();
    let (host, folder) = (format!("host_path={}", file.display()), home.path().to_str().unwrap());
    let mut copy = vec!["--method", "tools/call", "--tool-name", "upload"];
    copy.extend(["--tool-arg", "vm=web", "--tool-arg", "path=/srv/", "--tool-arg", &host]);
    let (code, result, err) = inspect_with(&["--files", folder], &variables, &copy);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(result["structuredContent"]["bytes"], 5, "{result}");
    let status = ["--method", "tools/call", "--tool-name", "workspace_status"];
    let (_, result, _) = inspect(&variables, &[&status[..], &["--tool-arg", "vm=web"]].concat());
    assert_eq!(result["structuredContent"]["error"]["code"], "not_found", "{result}");
    home.ok(&["vm", "delete", "-f", "web"]);
    home.finish();
}

#[test]
fn the_sdk_for_python_uses_a_machine() {
    let home = home();
    let python = root().join(".cache/tools/mcp-clients/bin/python");
    let output = Command::new(python)
        .arg(root().join("scripts/mcp-clients/client.py"))
        .arg(program("banger"))
        .env("BANGER_HOME", home.path())
        .env("BANGERD", program("bangerd-sim"))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).ends_with("ok\n"), "{}", text(&output.stdout));
    home.wait_state("sdk", "gone");
    home.finish();
}
