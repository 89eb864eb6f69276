//! Agents and real VMs: the SDKs for Python of the Model Context Protocol and of E2B, the hook of a
//! coding agent, and Claude Code with a model of ours.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use banger_testkit::{Home, Run, program};
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Creates a machine, runs a command, moves files both ways, uses a port of it and deletes it.
fn use_sdk(home: &Home) {
    let python = root().join(".cache/tools/mcp-clients/bin/python");
    assert!(python.exists(), "{} is missing: `scripts/setup.sh test`", python.display());
    let run = Command::new(python)
        .arg(root().join("scripts/mcp-clients/client.py"))
        .arg(program("banger"))
        .arg("real")
        .env("BANGER_HOME", home.path())
        .output();
    let run = Run::from(run.unwrap());
    assert_eq!((run.code, run.out.as_str()), (0, "ok\n"), "{}", run.err);
    home.wait_state("sdk", "gone");
}

/// The same and more with E2B's SDK, through `banger serve --e2b`.
fn use_e2b(home: &Home) {
    let python = root().join(".cache/tools/e2b/bin/python");
    assert!(python.exists(), "{} is missing: `scripts/setup.sh test`", python.display());
    let mut server =
        home.command(&["serve", "--e2b", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufReader::new(server.stdout.take().unwrap()).lines();
    let exports: Vec<String> = lines.take(3).map(Result::unwrap).collect();
    let variables = exports
        .iter()
        .map(|line| line.strip_prefix("export ").and_then(|pair| pair.split_once('=')).unwrap());
    let run = Command::new(python)
        .arg(root().join("scripts/e2b/client.py"))
        .arg("real")
        .envs(variables)
        .output();
    banger_testkit::kill(server.id(), "TERM");
    let ended = server.wait().unwrap();
    let run = Run::from(run.unwrap());
    assert_eq!((run.code, run.out.as_str()), (0, "ok\n"), "{}", run.err);
    assert!(ended.success());
    assert!(home.json(&["vm", "list"]).as_array().unwrap().is_empty());
}

/// Asks the hook that was installed for Claude Code; the command that it returns.
fn rewritten(home: &Home, project: &Path, command: &str) -> String {
    let settings = std::fs::read(project.join(".claude/settings.local.json")).unwrap();
    let settings: Value = serde_json::from_slice(&settings).unwrap();
    let hook = &settings["hooks"]["PreToolUse"][0]["hooks"][0]["command"];
    let mut child = Command::new("sh")
        .args(["-c", hook.as_str().unwrap()])
        .env("BANGER_HOME", home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let question = json!({
        "hook_event_name": "PreToolUse", "cwd": project.join("sub dir"), "tool_name": "Bash",
        "tool_input": { "command": command },
    });
    child.stdin.take().unwrap().write_all(question.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["hookSpecificOutput"]["updatedInput"]["command"].as_str().unwrap().to_owned()
}

/// The result that Claude Code gets for the command `hostname; pwd` of a model.
fn ask_claude(home: &Home, project: &Path) -> Value {
    let claude = root().join(".cache/tools/agents/node_modules/@anthropic-ai");
    let claude = claude.join(match std::env::consts::ARCH {
        "aarch64" => "claude-code-linux-arm64/claude",
        _ => "claude-code-linux-x64/claude",
    });
    assert!(claude.exists(), "{} is missing: `scripts/setup.sh test`", claude.display());
    let log = home.path().join("model.log");
    let mut model = Command::new("python3")
        .arg(root().join("scripts/agents/fake_model.py"))
        .arg("hostname; pwd")
        .arg(&log)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    std::io::BufReader::new(model.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let ran = Command::new(claude)
        .args(["-p", "run it"])
        .current_dir(project)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", home.path())
        .env("BANGER_HOME", home.path())
        .env("ANTHROPIC_BASE_URL", format!("http://127.0.0.1:{}", port.trim()))
        .env("ANTHROPIC_API_KEY", "sk-test")
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .stdin(Stdio::null())
        .output()
        .map(Run::from);
    model.kill().unwrap();
    model.wait().unwrap();
    let ran = ran.unwrap();
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let last = log.lines().last().and_then(|line| serde_json::from_str(line).ok());
    last.unwrap_or_else(|| panic!("{}{}", ran.out, ran.err))
}

#[test]
fn agents_use_machines() {
    let home = Home::new();
    use_sdk(&home);
    use_e2b(&home);

    home.ok(&["vm", "create", "--name", "app"]);
    let project = home.path().join("it's app");
    std::fs::create_dir(&project).unwrap();
    let path = project.to_str().unwrap();
    home.ok(&["exec", "app", "--", "mkdir", "-p", "/srv/app/sub dir"]);
    let to = ["--vm", "app", "--guest", "/srv/app", "--yes"];
    home.ok(&[&["agent", "install", "claude", path], &to[..]].concat());
    let run = |command: &str| -> Run {
        let line = rewritten(&home, &project.canonicalize().unwrap(), command);
        let mut shell = Command::new("bash");
        shell.args(["-c", &line]).env("BANGER_HOME", home.path());
        shell.output().unwrap().into()
    };
    let ran = run("hostname; pwd; a=(x 'it'\\''s'); echo \"${a[1]}\" | tee note; exit 7");
    assert_eq!((ran.code, ran.out.as_str()), (7, "app\n/srv/app/sub dir\nit's\n"), "{}", ran.err);
    assert_eq!(home.ok(&["exec", "app", "--", "cat", "/srv/app/sub dir/note"]), "it's\n");
    let claude = ask_claude(&home, &project);
    assert_eq!((&claude["result"], &claude["is_error"]), (&json!("app\n/srv/app"), &json!(false)));
    // Without the machine the command fails, and does not run on this host.
    home.ok(&["vm", "delete", "-f", "app"]);
    let gone = run("touch here");
    assert_eq!((gone.code, gone.out.as_str()), (125, ""), "{}", gone.err);
    assert!(gone.err.contains("there is no VM `app`"), "{}", gone.err);
    let claude = ask_claude(&home, &project);
    assert_eq!(claude["is_error"], true, "{claude}");
    assert!(claude["result"].as_str().unwrap().contains("there is no VM `app`"), "{claude}");
    home.ok(&["agent", "install", "claude", path, "--uninstall", "--yes"]);
    assert_eq!(std::fs::read_dir(&project).unwrap().count(), 0);
    home.finish();
}
