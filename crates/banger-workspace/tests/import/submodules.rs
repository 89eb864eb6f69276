//! Submodules arrive as repositories of their own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use banger_workspace::guest::Left;
use banger_workspace::push::PushOptions;
use banger_workspace::snapshot::Submodules;
use banger_workspace::{Options, Repository, Snapshot, submodules};

use crate::local::{Local, Pair};
use crate::world::{World, git};

fn with_submodules() -> Options {
    Options { submodules: Submodules::Send, ..Options::default() }
}

/// Adds `inner` as a submodule by a real clone.
fn add(outer: &World, inner: &World, path: &str) {
    let from = inner.host.to_str().unwrap();
    let options = ["-c", "protocol.file.allow=always", "submodule", "--quiet", "add"];
    outer.git(&[&options[..], &["--name", path, from, path]].concat());
    for (name, value) in [("user.name", "Sub"), ("user.email", "sub@example.org")] {
        git(&outer.host.join(path), &["config", name, value]);
    }
}

/// What git shows of a repository with its submodules.
fn shown(folder: &Path) -> Vec<String> {
    let asked = [
        &["status", "--porcelain=v2", "--branch", "--untracked-files=no"][..],
        &["submodule", "status", "--recursive"],
        &["diff", "--cached"],
        &[
            "submodule",
            "--quiet",
            "foreach",
            "--recursive",
            "git status -s; git log --format=%s -1",
        ],
        &["submodule", "--quiet", "foreach", "--recursive", "git config user.name || true"],
    ];
    let answers = asked.iter().map(|asked| git(folder, asked));
    // The name that follows a commit in parentheses is one of a branch that is not sent.
    let plain = |line: &str| line.split(" (").next().unwrap_or_default().to_owned();
    answers.map(|answer| answer.lines().map(plain).collect::<Vec<_>>().join("\n")).collect()
}

#[test]
fn submodules_arrive_at_their_paths() {
    let (world, lib, deep) = (World::new(), World::new(), World::new());
    deep.write("deep.txt", "deep\n");
    deep.commit("deep");
    lib.write("lib.txt", "lib\n");
    add(&lib, &deep, "vendor/deep");
    lib.commit("lib");
    world.write("main.txt", "main\n");
    add(&world, &lib, "libs/one");
    add(&world, &deep, "two");
    let nested = ["-c", "protocol.file.allow=always", "submodule", "update", "--init"];
    git(&world.host.join("libs/one"), &nested);
    world.commit("with submodules");
    add(&world, &deep, "later");
    world.git(&["submodule", "--quiet", "deinit", "-f", "later"]);
    // A commit, a staged and a changed file in submodules.
    fs::write(world.host.join("two/deep.txt"), "changed\n").unwrap();
    let one = world.host.join("libs/one");
    fs::write(one.join("new.txt"), "new\n").unwrap();
    git(&one, &["checkout", "-q", "-b", "work"]);
    git(&one, &["add", "new.txt"]);
    git(&one, &["commit", "-q", "-m", "more"]);
    fs::write(one.join("vendor/deep/staged"), "staged\n").unwrap();
    git(&one.join("vendor/deep"), &["add", "staged"]);

    let (snapshot, _) = world.import(with_submodules());
    assert_eq!(shown(&world.guest), shown(&world.host));
    assert!(git(&world.guest, &["diff", "--submodule=diff", "two"]).contains("+changed"));
    // Also the commit that the outer repository has of it.
    let recorded = world.git(&["rev-parse", "HEAD:libs/one"]);
    git(&world.guest.join("libs/one"), &["cat-file", "-e", recorded.trim()]);
    assert_eq!(fs::read_dir(world.guest.join("later")).unwrap().count(), 0);
    assert!(snapshot.warnings[0].contains("`later` is not checked out"), "{snapshot:?}");
    assert_eq!(git(&world.guest.join("libs/one"), &["symbolic-ref", "HEAD"]), "refs/heads/work\n");
    git(&world.guest.join("libs/one"), &["commit", "-q", "--allow-empty", "-m", "in the guest"]);
    assert!(git(&world.guest, &["status", "--short"]).contains("M libs/one"));

    // Another revision has the commits of that revision.
    fs::remove_dir_all(&world.guest).unwrap();
    let from =
        Options { branch: Some("old".into()), from: Some("HEAD".into()), ..with_submodules() };
    world.import(from);
    assert_eq!(git(&world.guest, &["status", "--short", "--branch"]), "## old\n");
    assert!(!world.guest.join("libs/one/new.txt").exists());
}

#[test]
fn a_submodule_does_not_lead_elsewhere() {
    let (world, lib, other) = (World::new(), World::new(), World::new());
    other.write("secret", "secret\n");
    other.commit("secret");
    lib.write("lib.txt", "lib\n");
    lib.commit("lib");
    add(&world, &lib, "a/lib");
    world.commit("first");
    let refused = || {
        let repository = Repository::find(&world.host).unwrap();
        let mut snapshot = Snapshot::of(&repository, &with_submodules()).unwrap();
        let collected = submodules::collect(&repository, &mut snapshot, &with_submodules());
        collected.err().map(|error| error.message)
    };
    assert_eq!(refused(), None);
    let path = world.host.join("a/lib");
    let pointer = fs::read(path.join(".git")).unwrap();
    // Its `.git`, its work tree, its path, and a folder on the way.
    fs::write(path.join(".git"), format!("gitdir: {}/.git\n", other.host.display())).unwrap();
    assert!(refused().unwrap().contains("leads to another place"));
    fs::write(path.join(".git"), &pointer).unwrap();
    git(&path, &["config", "core.worktree", other.host.to_str().unwrap()]);
    assert!(refused().unwrap().contains("leads to another place"));
    fs::remove_dir_all(&path).unwrap();
    symlink(&other.host, &path).unwrap();
    assert!(refused().unwrap().contains("leads to another place"));
    fs::remove_dir_all(world.host.join("a")).unwrap();
    symlink(other.host.parent().unwrap(), world.host.join("a")).unwrap();
    assert!(refused().unwrap().contains("leads to another place"));
    fs::remove_file(world.host.join("a")).unwrap();
    assert_eq!(refused(), None, "a missing folder is not checked out");
}

#[test]
fn commands_and_addresses_of_submodules_are_not_used() {
    let (world, lib) = (World::new(), World::new());
    lib.write("lib.txt", "lib\n");
    lib.commit("lib");
    add(&world, &lib, "lib");
    world.commit("first");
    let proof = world.host.with_file_name("proof");
    let program = format!("touch {}", proof.display());
    let hostile = [
        ("submodule.lib.update", format!("!{program}")),
        ("submodule.lib.url", format!("ext::sh -c {program}")),
    ];
    for (name, value) in &hostile {
        world.git(&["config", name, value]);
    }
    let inner = world.host.join("lib");
    fs::write(inner.join(".gitattributes"), "*.txt filter=evil\n").unwrap();
    for name in ["filter.evil.clean", "filter.evil.smudge", "core.fsmonitor"] {
        git(&world.host.join(".git/modules/lib"), &["config", "-f", "config", name, &program]);
    }
    fs::write(inner.join("lib.txt"), "new\n").unwrap();
    world.import(with_submodules());
    assert!(!proof.exists(), "a program of the repository ran");
    assert_eq!(fs::read(world.guest.join("lib/lib.txt")).unwrap(), b"new\n");
    let settings = git(&world.guest, &["config", "--local", "--list"]);
    assert!(!settings.contains("submodule.lib.update"), "{settings}");
}

#[test]
fn changes_in_submodules_are_named_and_stay_where_they_are() {
    let (world, lib) = (World::new(), World::new());
    lib.write("lib.txt", "lib\n");
    lib.commit("lib");
    world.write("main.txt", "main\n");
    add(&world, &lib, "libs/one");
    world.commit("with a submodule");
    let pair = Pair::of(world, with_submodules());
    let [here, there] = [&pair.world.host, &pair.world.guest].map(|top| top.join("libs/one"));
    let left = || pair.open().status(&Local).unwrap().guest.left;
    assert_eq!(pair.status(), Vec::<String>::new());
    // A commit and a file in the machine's, a file in the host's.
    fs::write(there.join("lib.txt"), "guest\n").unwrap();
    git(&there, &["commit", "-qam", "in the machine"]);
    fs::write(there.join("new.txt"), "guest\n").unwrap();
    fs::write(here.join("lib.txt"), "host\n").unwrap();
    pair.guest("main.txt", "guest\n");
    assert_eq!(pair.status(), ["gM main.txt"]);
    let why = "is a repository of its own".to_owned();
    let named = [Left { path: b"libs/one".to_vec(), why, is_tracked: true }];
    assert_eq!(left(), named);
    pair.pull().unwrap();
    assert_eq!(pair.host("main.txt").as_deref(), Some("guest\n"));
    assert_eq!(pair.host("libs/one/lib.txt").as_deref(), Some("host\n"));
    assert!(!here.join("new.txt").exists());
    pair.world.write("main.txt", "host\n");
    let pushed = pair.open().push(&Local, &PushOptions::default()).unwrap();
    assert_eq!(pushed.len(), 1);
    assert_eq!(fs::read_to_string(there.join("lib.txt")).unwrap(), "guest\n");
    assert_eq!(left(), named);
}
