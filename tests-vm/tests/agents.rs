//! Agents and real VMs: the SDKs for Python of the Model Context Protocol and of E2B, the hook of a
//! coding agent, and Claude Code, Codex and opencode with a model of ours.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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

/// A model of ours, which asks for the command `hostname; pwd`.
struct Model {
    process: Child,
    port: String,
    log: PathBuf,
}

impl Model {
    fn start(home: &Home) -> Self {
        let log = home.path().join("model.log");
        let _ = std::fs::remove_file(&log);
        let mut process = Command::new("python3")
            .arg(root().join("scripts/agents/fake_model.py"))
            .arg("hostname; pwd")
            .arg(&log)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        std::io::BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self { process, port: port.trim().to_owned(), log }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Runs an agent without the variables of this process; the result that its shell tool gave to
    /// the model.
    fn asked_by(self, home: &Home, agent: &mut Command) -> Value {
        let mut model = self;
        let ran = agent
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", home.path())
            .env("BANGER_HOME", home.path())
            .env("ANTHROPIC_BASE_URL", model.url())
            .env("ANTHROPIC_API_KEY", "sk-test")
            .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
            .env("OPENCODE_DISABLE_MODELS_FETCH", "1")
            .stdin(Stdio::null())
            .output()
            .map(Run::from);
        model.process.kill().unwrap();
        model.process.wait().unwrap();
        let ran = ran.unwrap();
        let log = std::fs::read_to_string(&model.log).unwrap_or_default();
        let last = log.lines().last().and_then(|line| serde_json::from_str(line).ok());
        last.unwrap_or_else(|| panic!("{}{}", ran.out, ran.err))
    }
}

/// A program of the npm packages of the tests.
fn package(path: &str) -> PathBuf {
    let path = root().join(".cache/tools").join(path);
    assert!(path.exists(), "{} is missing: `scripts/setup.sh test`", path.display());
    path
}

fn ask_claude(home: &Home, project: &Path) -> Value {
    let claude = package(match std::env::consts::ARCH {
        "aarch64" => "agents/node_modules/@anthropic-ai/claude-code-linux-arm64/claude",
        _ => "agents/node_modules/@anthropic-ai/claude-code-linux-x64/claude",
    });
    let mut command = Command::new(claude);
    Model::start(home).asked_by(home, command.args(["-p", "run it"]).current_dir(project))
}

/// Codex trusts the project, and its hooks for this run: otherwise its user is asked for both.
fn ask_codex(home: &Home, project: &Path) -> Value {
    let vendor = match std::env::consts::ARCH {
        "aarch64" => "codex-linux-arm64/vendor/aarch64-unknown-linux-musl",
        _ => "codex-linux-x64/vendor/x86_64-unknown-linux-musl",
    };
    let codex = package(&format!("agents/node_modules/@openai/{vendor}/bin/codex"));
    let model = Model::start(home);
    let config = json!({ "model": "test", "model_provider": "test" });
    let mut text: String = config
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| format!("{key} = {value}\n"))
        .collect();
    text += &format!(
        "[model_providers.test]\nname = \"test\"\nbase_url = \"{}/v1\"\nwire_api = \"responses\"\n\
         [projects.{}]\ntrust_level = \"trusted\"\n",
        model.url(),
        json!(project)
    );
    std::fs::create_dir_all(home.path().join(".codex")).unwrap();
    std::fs::write(home.path().join(".codex/config.toml"), text).unwrap();
    let mut command = Command::new(codex);
    command.args(["exec", "--skip-git-repo-check", "-s", "danger-full-access"]);
    command.args(["--dangerously-bypass-hook-trust", "run it"]).current_dir(project);
    let mut asked = model.asked_by(home, &mut command);
    // What comes before is about the process.
    let result = asked["result"].as_str().unwrap_or_default().to_owned();
    let output = result.split_once("Output:\n").map_or(result.as_str(), |(_, output)| output);
    asked["result"] = output.trim_end().into();
    asked
}

/// opencode looks for the types of its plugins in this folder, and would fetch them: they are not
/// used, and no test fetches what is not pinned.
fn without_packages(folder: &Path) {
    let package = std::fs::read(root().join("scripts/opencode/package.json")).unwrap();
    let package: Value = serde_json::from_slice(&package).unwrap();
    let version = &package["dependencies"]["opencode-linux-x64-baseline"];
    let name = "@opencode-ai/plugin";
    let wanted = json!({ "dependencies": { name: version } });
    let installed = json!({ "name": name, "version": version });
    let lock = json!({
        "lockfileVersion": 3,
        "packages": { "": &wanted, "node_modules/@opencode-ai/plugin": { "version": version } },
    });
    let kept = folder.join("node_modules").join(name);
    std::fs::create_dir_all(&kept).unwrap();
    for (path, content) in [
        (folder.join("package.json"), wanted),
        (folder.join("package-lock.json"), lock),
        (kept.join("package.json"), installed),
    ] {
        std::fs::write(path, content.to_string()).unwrap();
    }
}

fn ask_opencode(home: &Home, project: &Path) -> Value {
    let opencode = package("opencode/node_modules/opencode-linux-x64-baseline/bin/opencode");
    let model = Model::start(home);
    let provider = json!({
        "npm": "@ai-sdk/openai-compatible", "name": "test",
        "options": { "baseURL": format!("{}/v1", model.url()), "apiKey": "x" },
        "models": { "test": { "name": "test" } },
    });
    let config = json!({
        "model": "test/test", "small_model": "test/test", "autoupdate": false,
        "share": "disabled", "provider": { "test": provider },
    });
    let folder = home.path().join(".config/opencode");
    without_packages(&folder);
    without_packages(&project.join(".opencode"));
    std::fs::write(folder.join("opencode.json"), config.to_string()).unwrap();
    let mut command = Command::new(opencode);
    let mut asked = model.asked_by(home, command.args(["run", "run it"]).current_dir(project));
    asked["result"] = asked["result"].as_str().unwrap_or_default().trim_end().into();
    asked
}

type Ask = fn(&Home, &Path) -> Value;

/// Each agent, as npm has it.
const AGENTS: [(&str, Ask); 3] =
    [("claude", ask_claude), ("codex", ask_codex), ("opencode", ask_opencode)];

/// Shell commands of each agent run in the machine.
fn agents_run_in_the_machine(home: &Home, project: &Path) {
    for (agent, ask) in AGENTS {
        let asked = ask(home, project);
        assert_eq!(asked["result"], "app\n/srv/app", "{agent}: {asked}");
        assert_ne!(asked["is_error"], true, "{agent}: {asked}");
    }
}

/// Without the machine they fail, and so they do if the hook does not answer.
fn agents_run_nothing_here(home: &Home, project: &Path) {
    for (agent, ask) in AGENTS {
        let result = ask(home, project)["result"].as_str().unwrap().to_owned();
        assert!(result.contains("there is no VM `app`"), "{agent}: {result}");
    }
    // The hook of Codex is killed without a message: exit code 2 alone does not block there.
    let path = project.join(".codex/hooks.json");
    let settings = std::fs::read_to_string(&path).unwrap();
    let broken = settings.replacen("timeout 20 ", "timeout 20 false ", 1);
    assert_ne!(broken, settings);
    std::fs::write(&path, broken).unwrap();
    let result = ask_codex(home, project)["result"].as_str().unwrap().to_owned();
    assert!(result.contains("banger: the command is blocked"), "{result}");
    std::fs::write(&path, settings).unwrap();
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
    for (agent, _) in AGENTS {
        home.ok(&[&["agent", "install", agent, path], &to[..]].concat());
    }
    let run = |command: &str| -> Run {
        let line = rewritten(&home, &project.canonicalize().unwrap(), command);
        let mut shell = Command::new("bash");
        shell.args(["-c", &line]).env("BANGER_HOME", home.path());
        shell.output().unwrap().into()
    };
    let ran = run("hostname; pwd; a=(x 'it'\\''s'); echo \"${a[1]}\" | tee note; exit 7");
    assert_eq!((ran.code, ran.out.as_str()), (7, "app\n/srv/app/sub dir\nit's\n"), "{}", ran.err);
    assert_eq!(home.ok(&["exec", "app", "--", "cat", "/srv/app/sub dir/note"]), "it's\n");
    let real = project.canonicalize().unwrap();
    agents_run_in_the_machine(&home, &real);
    // Without the machine the command fails, and does not run on this host.
    home.ok(&["vm", "delete", "-f", "app"]);
    let gone = run("touch here");
    assert_eq!((gone.code, gone.out.as_str()), (125, ""), "{}", gone.err);
    assert!(gone.err.contains("there is no VM `app`"), "{}", gone.err);
    agents_run_nothing_here(&home, &real);
    for (agent, _) in AGENTS {
        home.ok(&["agent", "install", agent, path, "--uninstall", "--yes"]);
    }
    // What opencode has made there itself.
    std::fs::remove_dir_all(project.join(".opencode/node_modules")).unwrap();
    for name in ["package.json", "package-lock.json", ".gitignore"] {
        std::fs::remove_file(project.join(".opencode").join(name)).unwrap();
    }
    std::fs::remove_dir(project.join(".opencode")).unwrap();
    assert_eq!(std::fs::read_dir(&project).unwrap().count(), 0);
    home.finish();
}
