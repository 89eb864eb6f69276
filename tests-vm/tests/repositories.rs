//! A repository with a real C project of Debian's sources in real VMs: its tests, commits, and
//! agents that run in the machine.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use banger_testkit::{Home, Run};
use serde_json::{Value, json};
use tests_vm::archive::archive;
use tests_vm::{handover, source};

const IMAGE: &str = "test-c";
/// git and what compiles C, on the init that boots fastest.
const PACKAGES: &str = "initscripts,busybox,procps,git,make,gcc,libc6-dev";

/// A program of the npm packages of the tests.
fn package(path: &str) -> String {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/tools");
    let path = tools.canonicalize().unwrap().join(path);
    assert!(path.exists(), "{} is missing: `scripts/setup.sh test`", path.display());
    path.to_str().unwrap().to_owned()
}

/// The image, with Codex and opencode as npm has them. opencode is not where a machine would start
/// its server, which needs more than a minute under emulation.
fn image(home: &Home) {
    let vendor = match std::env::consts::ARCH {
        "aarch64" => "codex-linux-arm64/vendor/aarch64-unknown-linux-musl",
        _ => "codex-linux-x64/vendor/x86_64-unknown-linux-musl",
    };
    let codex = package(&format!("agents/node_modules/@openai/{vendor}/bin/codex"));
    let opencode = package("opencode/node_modules/opencode-linux-x64-baseline/bin/opencode");
    // As `FIXED_ADDRESSES`, for busybox.
    let fixed = "::sysinit:/bin/sh -c 'echo 0 >/proc/sys/kernel/randomize_va_space'";
    let hook = format!(
        "ln -sf ../bin/busybox \"$1/usr/sbin/init\" && echo \"{fixed}\" >\"$1/etc/inittab\" && \
         mkdir \"$1/opt/opencode\" && cp '{opencode}' \"$1/opt/opencode/\" && \
         cp '{codex}' \"$1/usr/local/bin/\""
    );
    let archive = archive(IMAGE, PACKAGES, &hook);
    home.ok(&["image", "import", "--replace", "--name", IMAGE, archive.to_str().unwrap()]);
}

/// bzip2 in a repository with an identity of its own: its tests are `make test`.
fn project(home: &Home) -> PathBuf {
    let sum = "ab5a03176ee106d3f0fa90e381da478ddae405918153cca248e682cd0c4a2269";
    let archive = source::upstream("bzip2", "bzip2_1.0.8.orig.tar.gz", sum);
    let script = "tar xzf \"$1\" && mv bzip2-1.0.8 bzip2 && cd bzip2 && git init -q -b main && \
                  git config user.name Own && git config user.email own@x.example && \
                  git add -A && git commit -qm 'bzip2 1.0.8' && pwd";
    let mut make = Command::new("sh");
    make.args(["-euc", script, "sh"]).arg(archive).current_dir(home.path());
    let output = make.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

#[test]
fn the_tests_of_a_c_project_run_in_a_machine_and_their_exit_code_is_ours() {
    let (user, options) = handover::user();
    let home = Home::with(options);
    image(&home);
    let app = project(&home);
    let path = app.to_str().unwrap();
    let run = home.run(&["run", path, "--image", IMAGE, "--rm", "--", "make", "test"]);
    assert_eq!(run.code, 0, "{}\n{}", run.out, run.err);
    assert!(run.out.contains("cmp sample3.tst sample3.ref"), "{}", run.out);
    assert_eq!(home.json(&["vm", "list"]), json!([]));
    assert!(!app.join("bzip2").exists(), "nothing was built on this host");

    // A change that is not committed breaks a test: make's exit code for that is 2. Without
    // optimisation, which takes most of the time of a compiler under emulation.
    fs::write(app.join("sample2.ref"), "broken\n").unwrap();
    let test = ["make", "CFLAGS=-O0", "test"];
    let run = ["run", path, "--image", IMAGE, "--name", "app", "--"];
    let run = home.run(&[&run[..], &test].concat());
    assert_eq!(run.code, 2, "{}\n{}", run.out, run.err);
    assert!((run.out + &run.err).contains("sample2"), "{}", run.err);
    commits_have_the_identity_of_their_place(&home);
    an_editor_has_its_agent_in_the_machine(&home, &app);
    an_agent_runs_inside_with_its_login(&home, &app, user.path());
    home.ok(&["image", "delete", IMAGE]);
    home.finish();
}

/// In the checkout the identity of the repository holds, elsewhere the host's global one.
fn commits_have_the_identity_of_their_place(home: &Home) {
    let commit = "git commit -q --allow-empty -m x && git log -1 --format='%an %ae'";
    let exec = |script: &str| home.ok(&["exec", "--workspace", "app", "--", "sh", "-c", script]);
    assert_eq!(exec(commit), "Own own@x.example\n");
    let elsewhere = format!("mkdir /tmp/other && cd /tmp/other && git init -q && {commit}");
    assert_eq!(exec(&elsewhere), "Ann; of the host ann@host.example\n");
}

/// The SDK of the Agent Client Protocol talks to opencode in the machine `app`, which is deleted
/// afterwards.
fn an_editor_has_its_agent_in_the_machine(home: &Home, app: &Path) {
    let sdk = package("agents/node_modules/@agentclientprotocol/sdk");
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/agents/acp_client.mjs");
    let ask = |words: &[&str]| -> Run {
        let mut command = Command::new("node");
        command.arg(&client).args([&sdk, app.to_str().unwrap(), ""]);
        command.arg(banger_testkit::program("banger")).args(["acp", "app", "--"]).args(words);
        // The configuration of a test's home, and nothing of this user.
        let environment = home.command(&[]);
        for (name, value) in environment.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command.stdin(Stdio::null()).output().unwrap().into()
    };
    let run = ask(&["/opt/opencode/opencode", "acp"]);
    let said: Value = serde_json::from_str(&run.out).unwrap_or_else(|_| panic!("{}", run.err));
    assert_eq!((&said["agent"], &said["version"]), (&json!("OpenCode"), &json!(1)), "{said}");
    assert_eq!((&said["session"], &said["code"]), (&json!(true), &json!(0)), "{said}");
    let elsewhere = said["elsewhere"].as_str().unwrap();
    assert!(elsewhere.contains("`/` is not in `"), "{elsewhere}");
    home.ok(&["vm", "delete", "-f", "app"]);
    let run = ask(&["/opt/opencode/opencode", "acp"]);
    assert!(run.err.contains("there is no VM `app`"), "{}\n{}", run.out, run.err);
}

/// Codex itself reads the login of the host's user, in the folder of the repository; its exit code
/// is ours, and the machine goes with `--rm`.
fn an_agent_runs_inside_with_its_login(home: &Home, app: &Path, user: &Path) {
    let login = user.join(".codex/auth.json");
    fs::create_dir(user.join(".codex")).unwrap();
    fs::write(&login, r#"{"OPENAI_API_KEY":"sk-test-1234567890abcdef"}"#).unwrap();
    let path = app.to_str().unwrap();
    let run =
        ["run", path, "--image", IMAGE, "--name", "two", "--sync", path, "--agent", "codex", "--"];
    let status = home.run(&[&run[..], &["login", "status"]].concat());
    let shown = format!("{}{}", status.out, status.err);
    assert_eq!(status.code, 0, "{shown}");
    assert!(shown.contains("sk-test-***"), "{shown}");
    let exec = |script: &str| home.ok(&["exec", "two", "--", "sh", "-c", script]);
    let kept = "stat -c '%a %U' .codex/auth.json; cat .codex/auth.json; ls -A .codex | grep banger";
    let expected = "600 root\n{\"OPENAI_API_KEY\":\"sk-test-1234567890abcdef\"}";
    assert_eq!(exec(&format!("{kept}; true")), expected);
    let started = home.json(&["vm", "show", "two"]);
    let reports = started["start"]["handed_over"].as_array().unwrap();
    let login = reports.iter().find(|one| one["kind"] == "codex_login").unwrap();
    assert_eq!(
        (&login["state"], &login["guest"]),
        (&json!("copied"), &json!("/root/.codex/auth.json"))
    );
    // The live folder is that of the repository.
    let there = "cd bzip2 && git status --short && echo made there >live";
    assert_eq!(exec(there), " M sample2.ref\n");
    home.ok(&["vm", "sync", "two", "--wait"]);
    assert_eq!(fs::read_to_string(app.join("live")).unwrap(), "made there\n");
    let workspace = &started["workspace"];
    assert_eq!(workspace["guest"], "/root/bzip2");
    assert_eq!((&workspace["host"], &workspace["is_copy"]), (&json!(path), &json!(false)));
    fs::remove_file(app.join("live")).unwrap();
    // It is on no record of the host.
    let state = [home.path().join("state"), home.path().join("config")];
    let mut found = Command::new("grep");
    let found = found.args(["-rlE", "1234567890abcdef"]).args(state).output().unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    let files: Vec<&str> = found.lines().filter(|path| !path.ends_with(".ext4")).collect();
    assert_eq!(files, Vec::<&str>::new());
    home.ok(&["vm", "delete", "-f", "two"]);

    // Another agent has no login here, which is a warning, and no program there: an error.
    let run = ["run", path, "--image", IMAGE, "--rm", "--agent", "claude"];
    let absent = home.run(&run);
    assert_eq!(absent.code, 125, "{}", absent.err);
    assert!(absent.err.contains("claude login: `"), "{}", absent.err);
    assert!(absent.err.contains("does not exist; the guest keeps"), "{}", absent.err);
    assert!(absent.err.contains("no program `claude`"), "{}", absent.err);
    assert!(absent.err.contains("@anthropic-ai/claude-code"), "{}", absent.err);
    assert_eq!(home.json(&["vm", "list"]), json!([]));
}
