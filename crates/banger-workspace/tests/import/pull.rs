//! The guest's changes come into the work tree of the host: all or none.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use banger_api::ErrorCode;
use banger_workspace::fetch::Limits;
use banger_workspace::pull::{Form, Which};
use banger_workspace::push::PushOptions;
use banger_workspace::{Options, place};

use crate::local::{Local, Pair, settled};
use crate::world::{World, chmod, git};

impl Pair {
    pub fn pull(&self) -> Result<(), banger_api::ApiError> {
        let mut workspace = self.open();
        let fetched = workspace.fetch(&Local, &Limits::default(), Which::Own)?;
        workspace.pull(&fetched, &|| {})
    }

    fn shown(&self, form: Form) -> String {
        let mut workspace = self.open();
        let fetched = workspace.fetch(&Local, &Limits::default(), Which::All).unwrap();
        let mut text = Vec::new();
        workspace.write(&fetched, form, &mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Every kind of change.
fn change_everything(pair: &Pair) {
    let guest = &pair.world.guest;
    pair.guest("a", "guest\n");
    fs::remove_file(guest.join("b")).unwrap();
    fs::remove_file(guest.join("c")).unwrap();
    pair.guest("c/inner/file", "a folder now\n");
    fs::remove_dir_all(guest.join("dir")).unwrap();
    pair.guest("dir", "a file now\n");
    pair.guest("new/deep/file", b"\0binary\xff");
    pair.guest("new/odd\n\u{e9}name", "odd\n");
    chmod(&guest.join("run"), 0o644);
    pair.guest("tool", "#!/bin/sh\n");
    chmod(&guest.join("tool"), 0o4755);
    fs::remove_file(guest.join("link")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", guest.join("link")).unwrap();
}

/// Files with kind, content and the execute bit, without `.git`.
pub fn tree(top: &Path) -> Vec<(String, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![top.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let data = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(top).unwrap().to_string_lossy().into_owned();
            if name == ".git" {
                continue;
            }
            let content = if data.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if data.is_dir() {
                folders.push(path);
                "folder".to_owned()
            } else {
                let mode = data.mode() & 0o7111;
                format!("{mode:o} {}", String::from_utf8_lossy(&fs::read(&path).unwrap()))
            };
            found.push((name, content));
        }
    }
    found.sort();
    found
}

#[test]
fn all_kinds_of_changes_arrive() {
    let pair = Pair::new();
    change_everything(&pair);
    let index = pair.world.git(&["ls-files", "--stage"]);
    pair.pull().unwrap();
    let mut expected = tree(&pair.world.guest);
    for (path, content) in &mut expected {
        if path == "tool" {
            // A set-user-id bit stays there.
            assert!(content.starts_with("4111 "), "{content}");
            *content = content.replacen("4111", "111", 1);
        }
    }
    assert_eq!(tree(&pair.world.host), expected);
    assert_eq!(pair.world.git(&["ls-files", "--stage"]), index, "the index was changed");
    assert!(!pair.world.host.join(".git/banger-pull").exists());
    assert_eq!(pair.status(), Vec::<String>::new());
    // Both sides go on from here.
    pair.guest("a", "more\n");
    pair.world.write("d", "mine\n");
    assert_eq!(pair.status(), ["gM a", "hM d"]);
    pair.pull().unwrap();
    assert_eq!(pair.host("a").unwrap(), "more\n");
    assert_eq!(pair.host("d").unwrap(), "mine\n");
}

#[test]
fn the_patch_is_one_that_git_applies() {
    let pair = Pair::new();
    change_everything(&pair);
    let stat = pair.shown(Form::Stat);
    assert!(stat.contains(" a ") && stat.contains("mode change 100755 => 100644 run"), "{stat}");
    let patch = pair.shown(Form::Patch);
    assert!(patch.contains("GIT binary patch"), "{patch}");
    let file = pair.world.host.parent().unwrap().join("patch");
    fs::write(&file, patch).unwrap();
    pair.world.git(&["apply", file.to_str().unwrap()]);
    assert_eq!(pair.status(), Vec::<String>::new());
}

#[test]
fn a_file_changed_on_both_sides_stops_everything() {
    let pair = Pair::new();
    change_everything(&pair);
    pair.world.write("a", "host\n");
    // Not tracked, and not sent.
    pair.world.write("tool", "mine\n");
    let before = tree(&pair.world.host);
    let error = pair.pull().unwrap_err();
    assert_eq!(error.code, ErrorCode::WrongState);
    assert_eq!(error.causes, ["a", "tool"]);
    assert_eq!(tree(&pair.world.host), before);
    // The changes are shown nevertheless.
    assert!(pair.shown(Form::Patch).contains("+guest"));
    // Equal changes are none.
    pair.world.write("a", "guest\n");
    pair.world.write("tool", "#!/bin/sh\n");
    pair.world.chmod("tool", 0o755);
    pair.pull().unwrap();
    assert_eq!(pair.status(), Vec::<String>::new());
}

#[test]
fn what_is_in_the_way_stops_everything() {
    for (what, expected) in [
        ("ignored", "`dir` is a folder with `kept.o` in it"),
        ("symlink", "a symlink or a file is on the way"),
        ("edited", "`a` was changed meanwhile"),
        ("deleted", "`a` was deleted meanwhile"),
        ("appeared", "`tool` is here already"),
    ] {
        let pair = Pair::new();
        change_everything(&pair);
        let host = &pair.world.host;
        if what == "ignored" {
            pair.world.write("dir/kept.o", "precious\n");
        }
        let outside = host.parent().unwrap().join("outside");
        fs::create_dir(&outside).unwrap();
        if what == "symlink" {
            fs::write(host.join(".git/info/exclude"), "new\n").unwrap();
            std::os::unix::fs::symlink(&outside, host.join("new")).unwrap();
        }
        let mut workspace = pair.open();
        let fetched = workspace.fetch(&Local, &Limits::default(), Which::Own).unwrap();
        match what {
            "edited" => pair.world.write("a", "meanwhile\n"),
            "deleted" => fs::remove_file(host.join("a")).unwrap(),
            "appeared" => pair.world.write("tool", "mine\n"),
            _ => {}
        }
        let before = tree(host);
        let error = workspace.pull(&fetched, &|| {}).unwrap_err();
        assert!(error.message.contains(expected), "{what}: {error:?}");
        assert_eq!(tree(host), before, "{what}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{what}");
        assert!(!host.join(".git/banger-pull").exists());
    }
}

#[test]
fn a_kill_at_any_moment_is_undone_or_the_pull_is_done() {
    let mut outcomes = (0, 0);
    let mut pair = Pair::new();
    change_everything(&pair);
    for deadline in 0.. {
        let before = tree(&pair.world.host);
        let steps = std::cell::Cell::new(0);
        let killed = catch_unwind(AssertUnwindSafe(|| {
            let mut workspace = pair.open();
            let fetched = workspace.fetch(&Local, &Limits::default(), Which::Own).unwrap();
            let before = || {
                steps.set(steps.get() + 1);
                assert!(steps.get() <= deadline, "killed here");
            };
            workspace.pull(&fetched, &before).unwrap();
        }));
        if killed.is_ok() {
            break;
        }
        // The next command.
        drop(pair.open());
        assert!(!pair.world.host.join(".git/banger-pull").exists());
        if tree(&pair.world.host) == before {
            outcomes.0 += 1;
            continue;
        }
        outcomes.1 += 1;
        assert_eq!(pair.status(), Vec::<String>::new(), "at {deadline}");
        pair = Pair::new();
        change_everything(&pair);
    }
    assert!(outcomes.0 > 15 && outcomes.1 > 0, "{outcomes:?}");
    assert_eq!(pair.status(), Vec::<String>::new());
}

#[test]
fn edits_after_a_kill_are_never_lost() {
    let pair = Pair::new();
    pair.guest("a", "guest\n");
    let steps = std::cell::Cell::new(0);
    let killed = catch_unwind(AssertUnwindSafe(|| {
        let mut workspace = pair.open();
        let fetched = workspace.fetch(&Local, &Limits::default(), Which::Own).unwrap();
        let before = || {
            steps.set(steps.get() + 1);
            // Journal, taking away, putting in place, end.
            assert!(steps.get() < 4, "killed here");
        };
        workspace.pull(&fetched, &before).unwrap();
    }));
    assert!(killed.is_err());
    assert_eq!(pair.host("a").unwrap(), "guest\n");
    pair.world.write("a", "edited after the kill\n");
    let repository = banger_workspace::Repository::find(&pair.world.host).unwrap();
    let error = place::recover(&repository).unwrap_err();
    assert!(error.causes[0].contains("`a` (`old/0`)"), "{error:?}");
    assert_eq!(pair.host("a").unwrap(), "edited after the kill\n");
    assert_eq!(pair.host(".git/banger-pull/old/0").unwrap(), "a\nline 2\nline 3\n");
}

#[test]
fn modes_and_line_ends_are_those_of_this_host() {
    let world = World::new();
    world.git(&["config", "core.autocrlf", "true"]);
    world.write("text", "one\r\n");
    world.write("secret", "old\n");
    world.commit("first");
    world.chmod("secret", 0o600);
    let pair = Pair::of(world, Options::default());
    assert_eq!(pair.status(), Vec::<String>::new());
    git(&pair.world.guest, &["config", "core.autocrlf", "false"]);
    pair.guest("text", "one\r\ntwo\n");
    pair.guest("other", "lf\n");
    pair.guest("secret", "new\n");
    pair.pull().unwrap();
    assert_eq!(pair.host("other").unwrap(), "lf\r\n");
    let mode = fs::metadata(pair.world.host.join("secret")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn a_branch_has_commits_and_uncommitted_changes() {
    let pair = Pair::new();
    let guest = &pair.world.guest;
    pair.guest("a", "committed\n");
    git(guest, &["commit", "-q", "-a", "-m", "in the guest"]);
    pair.guest("b", "uncommitted\n");
    pair.guest("fresh", "untracked\n");
    chmod(&guest.join("fresh"), 0o755);
    // The host goes on, too.
    pair.world.write("a", "here\n");
    pair.world.commit("on the host");
    let (before, here) = (tree(&pair.world.host), settled(guest));
    let limits = Limits::default();
    let made = pair.open().branch(&Local, &limits, "try", "web").unwrap();
    assert_eq!((made.commits, made.has_uncommitted), (1, true));
    assert_eq!(settled(guest), here, "the guest's repository was changed");
    assert_eq!(tree(&pair.world.host), before);
    assert_eq!(pair.world.git(&["branch", "--show-current"]), "main\n");
    pair.world.git(&["fsck", "--strict"]);
    let log = pair.world.git(&["log", "--format=%an: %s", "try"]);
    let expected =
        "Ada: Uncommitted changes of the machine `web`\nAgent: in the guest\nAda: first\n";
    assert_eq!(log, expected);
    assert_eq!(pair.world.git(&["show", "try:b"]), "uncommitted\n");
    let listed = pair.world.git(&["ls-tree", "try", "fresh"]);
    assert!(listed.starts_with("100755 "), "{listed}");
    // Everything is there without the guest.
    fs::remove_dir_all(guest).unwrap();
    assert_eq!(pair.world.git(&["merge-base", "main", "try"]).len(), 41);
    let error = pair.open().branch(&Local, &limits, "try", "web").unwrap_err();
    assert_eq!(error.code, ErrorCode::NameTaken);
    let error = pair.open().branch(&Local, &limits, "-x..y", "web").unwrap_err();
    assert!(error.message.contains("no name of a branch"), "{error:?}");
}

#[test]
fn a_branch_needs_something_new() {
    let pair = Pair::new();
    let limits = Limits::default();
    let error = pair.open().branch(&Local, &limits, "try", "web").unwrap_err();
    assert!(error.message.contains("no commits and no changes"), "{error:?}");
    git(&pair.world.guest, &["commit", "-q", "--allow-empty", "-m", "only a message"]);
    let made = pair.open().branch(&Local, &limits, "try", "web").unwrap();
    assert_eq!((made.commits, made.has_uncommitted), (1, false));
}

#[test]
fn a_branch_of_a_repository_without_a_commit_has_one() {
    let world = World::new();
    world.write("a", "a\n");
    world.git(&["add", "a"]);
    let pair = Pair::of(world, Options::default());
    let made = pair.open().branch(&Local, &Limits::default(), "try", "web").unwrap();
    assert_eq!((made.commits, made.has_uncommitted), (0, true));
    assert_eq!(pair.world.git(&["show", "try:a"]), "a\n");
}

#[test]
fn a_change_on_both_sides_is_shown_after_a_push_and_after_a_pull() {
    let pair = Pair::new();
    let patch = || pair.shown(Form::Patch);
    // What was common is in no repository, and in no file any more.
    pair.world.write("a", "pushed\n");
    pair.open().push(&Local, &PushOptions::default()).unwrap();
    pair.world.write("a", "host\n");
    pair.guest("a", "guest\n");
    assert_eq!(pair.status(), ["C a"]);
    assert!(patch().ends_with("-pushed\n+guest\n"), "{}", patch());
    pair.guest("b", "pulled\n");
    pair.guest("c", "pulled too\n");
    pair.world.write("a", "guest\n");
    pair.pull().unwrap();
    for (name, content) in [("b", "host\n"), ("c", "host too\n")] {
        pair.world.write(name, content);
        pair.guest(name, "guest\n");
    }
    let text = patch();
    assert!(text.contains("-pulled\n+guest\n") && text.contains("-pulled too\n"), "{text}");
    // Contents that are no common state any more are not kept.
    let kept = || {
        let folders = fs::read_dir(pair.store().join("objects")).unwrap().flatten();
        let named = folders.filter(|folder| folder.file_name().len() == 2);
        named.map(|folder| fs::read_dir(folder.path()).unwrap().count()).sum::<usize>()
    };
    assert_eq!(kept(), 3, "`a`, `b` and `c`");
    // Records of versions that did not keep them: the file is shown as a new one.
    fs::remove_dir_all(pair.store().join("objects")).unwrap();
    let text = patch();
    assert!(text.contains("new file mode") && text.contains("+guest\n"), "{text}");
    assert_eq!(pair.status(), ["C b", "C c"]);
}

#[test]
fn repositories_and_git_names_that_stay_in_the_guest_are_named() {
    let pair = Pair::new();
    for nested in ["nest", "deep/empty repo"] {
        pair.guest(&format!("{nested}/work"), "only here\n");
        git(&pair.world.guest.join(nested), &["init", "-q"]);
    }
    pair.guest("x/.GIT/hooks/a", "x");
    for name in ["y/.git. /config", "z/git~1/x", "v/.g\u{200c}it"] {
        pair.guest(name, "x");
    }
    pair.guest("built.o/.git-not", "x");
    let left = pair.open().status(&Local).unwrap().guest.left;
    let mut names: Vec<_> = left
        .iter()
        .map(|left| format!("{} {}", String::from_utf8_lossy(&left.path), left.why))
        .collect();
    names.sort();
    let repository = "is a repository of its own";
    let expected = [
        format!("deep/empty repo {repository}"),
        format!("nest {repository}"),
        "v/.g\u{200c}it leads into `.git`".to_owned(),
        "x/.GIT/hooks/a leads into `.git`".to_owned(),
        "y/.git. /config leads into `.git`".to_owned(),
        "z/git~1/x leads into `.git`".to_owned(),
    ];
    assert_eq!(names, expected);
    // As in a commit that the machine's own git makes.
    pair.guest("fresh", "new\n");
    // git takes this one where HFS+ is not protected.
    fs::remove_dir_all(pair.world.guest.join("v")).unwrap();
    let mut left = left;
    left.retain(|left| !left.path.starts_with(b"v/"));
    let limits = Limits::default();
    let made = pair.open().branch(&Local, &limits, "try", "web").unwrap();
    assert_eq!(made.left, left);
    let listed = pair.world.git(&["ls-tree", "-r", "--name-only", "try"]);
    assert!(listed.contains("fresh\n") && !listed.contains("nest"), "{listed}");
    pair.pull().unwrap();
    assert!(!pair.world.host.join("nest").exists());
    git(&pair.world.guest.join("nest"), &["add", "-A"]);
    git(&pair.world.guest.join("nest"), &["commit", "-q", "-m", "one"]);
    git(&pair.world.guest, &["add", "nest"]);
    let error = pair.open().branch(&Local, &limits, "two", "web").unwrap_err();
    assert!(error.message.starts_with("`nest` is a repository of its own"), "{error:?}");
}
