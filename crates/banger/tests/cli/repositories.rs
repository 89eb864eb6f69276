//! `banger run PATH` up to the guest, on the simulated host, whose guests have no git.

use std::path::{Path, PathBuf};
use std::process::Command;

use banger_testkit::{Home, Run};

use crate::support::home;

/// Runs the CLI in a folder of the home.
fn run_in(home: &Home, folder: &Path, args: &[&str]) -> Run {
    home.command(args).current_dir(folder).output().unwrap().into()
}

/// A repository with one commit, a changed file and an untracked one.
fn repository(home: &Home) -> PathBuf {
    let top = home.path().join("app");
    std::fs::create_dir_all(top.join("src")).unwrap();
    std::fs::write(top.join("src/main"), "old\n").unwrap();
    let git = |args: &[&str]| {
        let who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"];
        let output = Command::new("git").args(who).args(args).current_dir(&top).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    git(&["init", "-q", "-b", "main"]);
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "first"]);
    std::fs::write(top.join("src/main"), "new, and longer\n").unwrap();
    std::fs::write(top.join("notes"), "mine\n").unwrap();
    top
}

#[test]
fn a_dry_run_shows_what_would_be_sent() {
    let home = home();
    let top = repository(&home);
    // From a folder within, with flags behind it.
    let run = run_in(&home, &top.join("src"), &["run", ".", "--dry-run", "--", "make"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let lines: Vec<&str> = run.out.lines().collect();
    assert_eq!(lines[0], format!("{} -> /root/app", top.canonicalize().unwrap().display()));
    assert!(lines[1].starts_with("HEAD       ") && lines[1].ends_with(" (main)"), "{}", run.out);
    assert_eq!(lines[2..], ["objects    4", "changed    src/main", "not sent   1 untracked file"]);
    std::fs::write(top.join("new"), "new\n").unwrap();
    let added = Command::new("git").args(["add", "new"]).current_dir(&top).status().unwrap();
    assert!(added.success());
    let flags = ["run", "--json", "--dry-run", "--include-untracked", "."];
    let run = run_in(&home, &top, &flags);
    let shown: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(shown["staged"], serde_json::json!(["new"]));
    assert_eq!(shown["changed"], serde_json::json!(["src/main"]));
    assert_eq!(shown["untracked"], serde_json::json!(["notes"]));
    assert_eq!((&shown["branch"], &shown["left_out"]), (&"main".into(), &0.into()));
    assert_eq!(home.json(&["vm", "list"]), serde_json::json!([]), "nothing was created");
    home.finish();
}

#[test]
fn what_is_no_repository_is_named_and_creates_nothing() {
    let home = home();
    let top = repository(&home);
    let none = home.path().join("none");
    std::fs::create_dir(&none).unwrap();
    for (folder, args, error, hint) in [
        (&none, &["run", "."][..], "is not in a git repository", "`--copy` sends"),
        (&top, &["run", "./.git"], "is inside of a `.git` folder", "work tree"),
        (&top, &["run", ".", "./src"], "`./src` is a second folder", "one repository"),
        (
            &top,
            &["run", "--dry-run", "true"],
            "`--dry-run` is for a folder",
            "banger run . --dry-run",
        ),
        (&top, &["run", "--copy", "true"], "`--copy` is for a folder", "banger run . --copy"),
        (&top, &["run", ".", "--copy", "--branch", "x"], "cannot be used with", "--help"),
        (&top, &["run", ".", "--no-such-flag"], "--no-such-flag", "--help"),
    ] {
        let run = run_in(&home, folder, args);
        assert_ne!(run.code, 0, "{args:?}");
        assert!(run.err.contains(error) && run.err.contains(hint), "{args:?}: {}", run.err);
    }
    assert_eq!(home.json(&["vm", "list"]), serde_json::json!([]));
    home.finish();
}

#[test]
fn a_folder_is_copied_with_everything_in_it() {
    let home = home();
    let top = home.path().join("notes");
    std::fs::create_dir_all(top.join("deep/er")).unwrap();
    std::fs::write(top.join("deep/er/file"), "content\n").unwrap();
    std::fs::write(top.join(".gitignore"), "*\n").unwrap();
    std::os::unix::fs::symlink("notes", home.path().join("link")).unwrap();
    let run = run_in(&home, home.path(), &["run", "./link", "--copy", "--dry-run"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let expected = format!("{} -> /root/notes", top.canonicalize().unwrap().display());
    assert_eq!(run.out.lines().next(), Some(expected.as_str()));
    assert!(run.out.contains("copied     5 entries, 10 B"), "{}", run.out);
    let run = run_in(&home, home.path(), &["run", "./link", "--copy", "--name", "web", "pwd"]);
    assert_eq!((run.code, run.out.as_str()), (0, "/root/notes\n"), "{}", run.err);
    let copied = home.path().join("copied");
    home.ok(&["cp", "web:notes", copied.to_str().unwrap()]);
    assert_eq!(std::fs::read(copied.join("deep/er/file")).unwrap(), b"content\n");
    assert!(copied.join(".gitignore").exists());
    let file = run_in(&home, &top, &["run", "/", "--copy"]);
    assert!(file.err.contains("is not a folder that can be copied"), "{}", file.err);
    home.ok(&["vm", "delete", "-f", "web"]);
    home.finish();
}

#[test]
fn submodules_are_shown_as_repositories_of_their_own() {
    let home = home();
    let (top, other) = (repository(&home), home.path().join("other"));
    std::fs::rename(&top, &other).unwrap();
    let top = repository(&home);
    let git = |args: &[&str]| {
        let who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"];
        let allow = ["-c", "protocol.file.allow=always"];
        let output =
            Command::new("git").args(who).args(allow).args(args).current_dir(&top).output();
        assert!(output.unwrap().status.success());
    };
    git(&["submodule", "--quiet", "add", other.to_str().unwrap(), "lib"]);
    git(&["commit", "-q", "-m", "with a submodule"]);
    std::fs::write(top.join("lib/src/main"), "changed in the submodule\n").unwrap();
    let refused = run_in(&home, &top, &["run", ".", "--dry-run"]);
    assert!(refused.err.contains("--recurse-submodules"), "{}", refused.err);
    let run = run_in(&home, &top, &["run", ".", "--dry-run", "--recurse-submodules"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("/lib -> /root/app/lib\n"), "{}", run.out);
    assert_eq!(run.out.matches("changed    src/main").count(), 2, "{}", run.out);
    let flags = ["run", ".", "--dry-run", "--recurse-submodules", "--json"];
    let shown: serde_json::Value = serde_json::from_str(&run_in(&home, &top, &flags).out).unwrap();
    assert_eq!(shown["submodules"][0]["folder"], "/root/app/lib");
    home.finish();
}

#[test]
fn the_folder_of_the_repository_is_a_working_folder_if_asked_for() {
    let home = home();
    home.ok(&["vm", "create", "--name", "web"]);
    let refused = home.run(&["exec", "--workspace", "web", "pwd"]);
    assert_eq!(refused.code, 125, "{}", refused.err);
    assert!(refused.err.contains("no repository of this host is on record for `web`"));
    assert!(refused.err.contains("`-w DIR` names any folder"), "{}", refused.err);
    let both = home.run(&["exec", "--workspace", "-w", "/srv", "web", "pwd"]);
    assert!(both.err.contains("cannot be used with"), "{}", both.err);
    // As `run PATH` keeps it; simulated guests have no git.
    let id = home.json(&["vm", "show", "web"])["id"].as_str().unwrap().to_owned();
    let folder = home.path().join("state/vms").join(id).join("workspace");
    std::fs::create_dir_all(&folder).unwrap();
    let record = b"banger workspace 1\0/home/me/app\0/root/app\0\0\0";
    std::fs::write(folder.join("record"), record).unwrap();
    let place = home.ok(&["exec", "--workspace", "web", "pwd"]);
    assert_eq!(place, "/root/app\n");
    assert_eq!(home.ok(&["exec", "web", "pwd"]), "/root\n", "never guessed");
    let shown = home.ok(&["vm", "show", "web"]);
    assert!(shown.contains("workspace   /root/app of /home/me/app\n"), "{shown}");
    assert_eq!(home.json(&["vm", "show", "web"])["workspace"]["is_copy"], false);
    // As `run PATH --copy` keeps it.
    std::fs::remove_file(folder.join("record")).unwrap();
    std::fs::write(folder.join("copied"), b"/home/me/notes\0/root/notes\0").unwrap();
    assert_eq!(home.ok(&["exec", "--workspace", "web", "pwd"]), "/root/notes\n");
    for words in [&["status", "web"][..], &["diff", "web"], &["pull", "web", "--yes"]] {
        let run = home.run(&[&["vm", "workspace"], words].concat());
        assert_eq!(run.code, 3, "{words:?}: {}", run.err);
        let copy = "`web` has a copy of `/home/me/notes` in `/root/notes`, which `--copy` made";
        assert!(run.err.contains(copy), "{words:?}: {}", run.err);
        assert!(run.err.contains("`banger cp web:/root/notes .`"), "{words:?}: {}", run.err);
    }
    home.ok(&["vm", "delete", "-f", "web"]);
    // The simulated host makes no folders and removes none.
    std::fs::remove_dir_all(folder.parent().unwrap()).unwrap();
    home.finish();
}

#[test]
fn a_machine_without_git_says_so_and_goes_with_rm() {
    let home = home();
    let top = repository(&home);
    let run = run_in(&home, &top, &["run", ".", "--rm", "--", "true"]);
    assert_eq!(run.code, 125, "{}", run.err);
    assert!(run.err.contains("the repository cannot be put in"), "{}", run.err);
    assert!(run.err.contains("1 untracked file is not sent"), "{}", run.err);
    assert_eq!(home.json(&["vm", "list"]), serde_json::json!([]));
    home.finish();
}

#[test]
fn a_workspace_has_a_record_on_this_host() {
    let home = home();
    let top = repository(&home);
    home.ok(&["vm", "create", "--name", "web"]);
    let id = home.json(&["vm", "show", "web"])["id"].as_str().unwrap().to_owned();
    let status = || home.run(&["vm", "workspace", "status", "web"]);
    let run = status();
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.err.contains("no repository of this host is on record for `web`"), "{}", run.err);
    // The simulated host makes no folders.
    let folder = home.path().join("state/vms").join(id).join("workspace");
    std::fs::create_dir_all(&folder).unwrap();
    let record = folder.join("record");
    std::fs::write(&record, "banger workspace 9\0").unwrap();
    assert!(status().err.contains("is not a record that this version reads"), "{}", status().err);
    let write = |repository: &Path| {
        let fields = ["banger workspace 1", repository.to_str().unwrap(), "/root/app", "", "", ""];
        std::fs::write(&record, fields.join("\0")).unwrap();
    };
    write(&home.path().join("moved"));
    let run = status();
    assert!(run.code != 0 && run.err.contains("moved` is not there any more"), "{}", run.err);
    write(&top.canonicalize().unwrap());
    let run = status();
    assert_ne!(run.code, 0);
    assert!(run.err.contains("git failed in `/root/app` of the machine"), "{}", run.err);
    home.ok(&["vm", "delete", "-f", "web"]);
    std::fs::remove_dir_all(folder.parent().unwrap()).unwrap();
    home.finish();
}
