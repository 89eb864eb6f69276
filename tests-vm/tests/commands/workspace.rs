//! A repository and its work tree in the machine.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use banger_testkit::{Home, Run, program};

/// Changes of both sides of the repository in the VM `app`, which is deleted afterwards.
pub fn work_goes_both_ways(home: &Home, app: &Path) {
    let workspace = |args: &[&str]| home.run(&[&["vm", "workspace"], args].concat());
    let status = || {
        let run = workspace(&["status", "app"]);
        assert_eq!(run.code, 0, "{}", run.err);
        run.out.lines().skip(1).collect::<Vec<_>>().join("\n")
    };
    assert!(status().ends_with("the files of both sides are the same"), "{}", status());
    let script = "cd app && printf 'escape \\033[31m\\n' >file && printf '\\000\\377' >binary && \
                  git add -A && git commit -qm work && \
                  echo '#!/bin/sh' >tool && chmod 4755 tool";
    home.ok(&["exec", "app", "--", "sh", "-c", script]);
    std::fs::write(app.join("mine"), "mine\n").unwrap();
    let shown = status();
    assert!(
        shown.contains(" work\n") && shown.contains("commits in the machine, on main"),
        "{shown}"
    );
    assert!(shown.contains("  A binary\n  M file\n  A tool"), "{shown}");
    let patch = home.run(&["workspace", "diff", "app"]);
    assert!(patch.out.contains("+escape \x1b[31m\n"), "{}", patch.out);
    let run = workspace(&["pull", "app", "--branch", "work"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(
        run.out.ends_with("2 commits of `app` and one of uncommitted changes\n"),
        "{}",
        run.out
    );
    let run = workspace(&["push", "app", "--include-untracked"]);
    assert_eq!((run.code, run.out.as_str()), (0, "A mine\n"), "{}", run.err);
    assert_eq!(home.ok(&["exec", "app", "--", "cat", "app/mine"]), "mine\n");
    // It shows what would change, and there is nobody to ask.
    let run = workspace(&["pull", "app"]);
    assert!(run.code == 2 && run.err.contains("`--yes` does not ask"), "{}", run.err);
    assert!(run.out.contains("binary") && !app.join("binary").exists(), "{}", run.out);
    let run = workspace(&["pull", "app", "--yes"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("binary") && run.out.ends_with("3 files changed\n"), "{}", run.out);
    assert_eq!(std::fs::read(app.join("binary")).unwrap(), b"\0\xff");
    let mode = std::fs::metadata(app.join("tool")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7111, 0o111);
    assert!(status().ends_with("the files of both sides are the same"));
    let run = workspace(&["pull", "app"]);
    assert_eq!((run.code, run.out.as_str()), (0, "the machine has no changes\n"), "{}", run.err);
    agents_pull_too(home, app);
    // A file that both have changed stops a pull and a push.
    std::fs::write(app.join("file"), "host\n").unwrap();
    home.ok(&["exec", "app", "--", "sh", "-c", "echo guest >app/file"]);
    for args in [&["pull", "app", "--yes"][..], &["push", "app"]] {
        let run = workspace(args);
        assert_eq!(run.code, 4, "{}", run.err);
        assert!(run.err.contains("1 file was changed on both sides"), "{}", run.err);
    }
    assert_eq!(std::fs::read(app.join("file")).unwrap(), b"host\n");
    home.ok(&["vm", "delete", "-f", "app"]);
    assert!(workspace(&["status", "app"]).err.contains("there is no VM `app`"));
}

/// The same with the tools for agents, by the SDK for Python of the Model Context Protocol.
fn agents_pull_too(home: &Home, app: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let python = root.join(".cache/tools/mcp-clients/bin/python");
    assert!(python.exists(), "{} is missing: `scripts/setup.sh test`", python.display());
    let run = Command::new(python)
        .arg(root.join("scripts/mcp-clients/workspace.py"))
        .args([program("banger").as_path(), app])
        .env("BANGER_HOME", home.path())
        .output();
    let run = Run::from(run.unwrap());
    assert_eq!((run.code, run.out.as_str()), (0, "ok\n"), "{}", run.err);
}

/// A repository with a changed and a deleted file; its path.
pub fn repository(home: &Home) -> String {
    let top = home.path().join("app");
    std::fs::create_dir(&top).unwrap();
    let script = "git init -q -b main && echo old >file && echo old >gone && git add -A && \
                  git -c user.name=Ada -c user.email=a@example.org commit -q -m first && \
                  echo newer >file && rm gone && git config user.name Own && \
                  git config user.email own@x.example";
    let made = Command::new("sh").args(["-c", script]).current_dir(&top).status().unwrap();
    assert!(made.success());
    top.to_str().unwrap().to_owned()
}
