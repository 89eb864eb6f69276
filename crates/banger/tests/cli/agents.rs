//! `banger agent`: what it writes, and the hook.

use std::fs;
use std::path::PathBuf;

use banger_testkit::Home;
use serde_json::{Value, json};

use crate::support::{expect, home, run};

/// A folder that an agent works in.
fn project(home: &Home) -> PathBuf {
    let project = home.path().join("app");
    fs::create_dir(&project).unwrap();
    project.canonicalize().unwrap()
}

/// The line of the hook in Claude's settings.
fn hook(project: &std::path::Path) -> String {
    let text = fs::read_to_string(project.join(".claude/settings.local.json")).unwrap();
    let settings: Value = serde_json::from_str(&text).unwrap();
    let hook = &settings["hooks"]["PreToolUse"][0]["hooks"][0];
    hook["command"].as_str().unwrap().to_owned()
}

/// Runs the hook as an agent does; its exit code, output and messages.
fn ask(home: &Home, line: &str, question: &Value) -> (i32, Value, String) {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", line]).env("BANGER_HOME", home.path());
    command.stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A hook that cannot be run does not read.
    let _ = std::io::Write::write_all(
        &mut child.stdin.take().unwrap(),
        question.to_string().as_bytes(),
    );
    let output = child.wait_with_output().unwrap();
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), answer, messages)
}

#[test]
fn a_command_of_an_agent_runs_in_the_machine_and_fails_without_it() {
    let home = home();
    let project = project(&home);
    let path = project.display().to_string();
    let absent = home.run(&["agent", "install", "claude", &path, "--vm", "web", "--yes"]);
    assert_eq!(absent.code, 3, "{}", absent.err);
    run(&home, "vm create --name web");
    let shown = home.run(&["agent", "install", "claude", &path, "--vm", "web"]);
    assert!(shown.out.contains("agent hook claude --vm web"), "{}", shown.out);
    assert!(shown.err.contains("`--yes` writes it"), "{}", shown.err);
    assert!(shown.err.contains("`web` got nothing of `"), "{}", shown.err);
    assert!(shown.err.contains("commands will run in `/root/app` there"), "{}", shown.err);
    // With the repository on record, as `run PATH` keeps it.
    let id = home.json(&["vm", "show", "web"])["id"].as_str().unwrap().to_owned();
    let kept = home.path().join("state/vms").join(id);
    std::fs::create_dir_all(kept.join("workspace")).unwrap();
    let record = ["banger workspace 1", &path, "/root/other", "", "", ""].join("\0");
    std::fs::write(kept.join("workspace/record"), record).unwrap();
    std::fs::create_dir_all(project.join("sub")).unwrap();
    let sub = project.join("sub").display().to_string();
    let shown = home.run(&["agent", "install", "claude", &sub, "--vm", "web"]);
    assert!(shown.out.contains("--guest /root/other/sub"), "{}", shown.out);
    assert!(!shown.err.contains("got nothing of"), "{}", shown.err);
    std::fs::remove_dir_all(kept).unwrap();
    std::fs::remove_dir(&sub).unwrap();
    assert!(!project.join(".claude").exists());
    home.ok(&["agent", "install", "claude", &path, "--vm", "web", "--yes"]);
    let question = json!({
        "hook_event_name": "PreToolUse", "cwd": project.join("src"), "tool_name": "Bash",
        "tool_input": { "command": "pwd; exit 7", "description": "a test" },
    });
    let line = hook(&project);
    let (code, answer, err) = ask(&home, &line, &question);
    assert_eq!(code, 0, "{err}");
    let input = &answer["hookSpecificOutput"]["updatedInput"];
    assert_eq!(input["description"], "a test");
    let rewritten = input["command"].as_str().unwrap();
    assert!(rewritten.contains("'exec' '-w' '/root/app/src' 'web' '--'"), "{rewritten}");
    assert!(rewritten.ends_with(" 'pwd; exit 7'"), "{rewritten}");
    // Whatever is wrong blocks the command: exit code 2.
    let other = json!({ "tool_name": "Write", "tool_input": { "file_path": "x" } });
    assert_eq!(ask(&home, &line, &other).0, 2);
    assert_eq!(ask(&home, &line.replace("banger", "nosuch"), &question).0, 2);
    // Without the machine the command fails and does not run here.
    run(&home, "vm delete -f web");
    let mut command = std::process::Command::new("sh");
    let gone = command.args(["-c", rewritten]).env("BANGER_HOME", home.path()).output().unwrap();
    assert_eq!(gone.status.code(), Some(125));
    assert_eq!(String::from_utf8_lossy(&gone.stdout), "");
    let status = home.run(&["agent", "status", &path]);
    let rows =
        "claude    in the machine `web` (gone)\nopencode  on this host\ncodex     on this host\n";
    expect(&status, 0, rows, "");
    home.ok(&["agent", "install", "claude", &path, "--uninstall", "--yes"]);
    assert_eq!(fs::read_dir(&project).unwrap().count(), 0);
    home.finish();
}

/// What opencode would run of each version.
fn ask_plugin(project: &std::path::Path, home: &Home) -> Vec<Value> {
    let driver = home.path().join("hosts.mjs");
    fs::write(&driver, include_str!("opencode_hosts.mjs")).unwrap();
    // The plugin is a module, whatever package it is in.
    fs::write(project.join("package.json"), r#"{ "type": "module" }"#).unwrap();
    let plugin = project.join(".opencode/plugins/banger.js");
    let mut command = std::process::Command::new("node");
    command.arg(driver).arg(plugin).arg(project).args(["echo it's; exit 7", "src"]);
    let output = command.env("BANGER_HOME", home.path()).output().unwrap();
    fs::remove_file(project.join("package.json")).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn both_versions_of_opencode_run_commands_in_the_machine() {
    let home = home();
    let project = project(&home);
    let path = project.display().to_string();
    run(&home, "vm create --name web");
    home.ok(&["agent", "install", "opencode", &path, "--vm", "web", "--yes"]);
    let asked = ask_plugin(&project, &home);
    let [first, read, preview, second] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(read["filePath"], "README");
    assert_eq!(first["description"], "a test");
    for asked in [first, preview, second] {
        let command = asked["command"].as_str().unwrap();
        assert!(command.contains("'exec' '-w' '/root/app/src' 'web' '--'"), "{asked}");
        assert!(command.ends_with(r#" 'echo it'"'"'s; exit 7'"#), "{asked}");
        assert_eq!((command.matches("'exec'").count(), &asked["workdir"]), (1, &Value::Null));
    }
    // Without an answer of banger version 1 blocks the command, and version 2 runs one that fails.
    let plugin = project.join(".opencode/plugins/banger.js");
    let text = fs::read_to_string(&plugin).unwrap();
    let program = text.split('"').find(|word| word.ends_with("/banger")).unwrap();
    fs::write(&plugin, text.replacen(program, "/nowhere/it's", 1)).unwrap();
    let asked = ask_plugin(&project, &home);
    let [first, _, preview, second] = &asked[..] else { panic!("{asked:?}") };
    let error = first["error"].as_str().unwrap();
    assert!(error.starts_with("banger cannot be run: "), "{first}");
    for asked in [preview, second] {
        let mut command = std::process::Command::new("sh");
        let ran = command.args(["-c", asked["command"].as_str().unwrap()]).output().unwrap();
        assert_eq!((ran.status.code(), ran.stdout.as_slice()), (Some(1), &b""[..]), "{asked}");
        let said = String::from_utf8(ran.stderr).unwrap();
        assert!(said.starts_with("banger cannot be run: "), "{said}");
        assert!(said.contains("/nowhere/it s"), "{said}");
    }
    run(&home, "vm delete -f web");
    home.finish();
}
