//! Repositories are imported into a folder of this host with the commands for a guest, and compared
//! by git.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod hostile;
mod large;
mod local;
mod pull;
mod push;
mod push_blocked;
mod submodules;
mod workspace;
mod world;

use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use banger_workspace::{Options, Repository, Snapshot, pack};

use world::{World, git, output};

#[test]
fn files_arrive_as_they_are() {
    let world = World::new();
    world.write("same.txt", "same\n");
    world.write("changed.txt", "old\n");
    world.write("sub/gone.txt", "gone\n");
    world.write("renamed.txt", "renamed\nand long enough\n");
    world.write("tool.sh", "#!/bin/sh\n");
    world.write("dos.txt", "a\r\nb\r\n");
    world.write("crlf.bat", "rem\r\n");
    world.write("lf.bat", "rem\n");
    world.write(".gitattributes", "*.bat eol=crlf\n");
    world.write(OsStr::from_bytes(b"n\xff \n.txt"), "odd\n");
    world.write("-dash", "dash\n");
    world.write(".gitignore", "*.log\n");
    world.write("sub/.gitignore", "!kept.log\n");
    world.write("sub/kept.log", "kept\n");
    symlink("same.txt", world.host.join("link")).unwrap();
    world.commit("first");
    world.git(&["remote", "add", "origin", "https://example.org/x.git"]);
    world.git(&["checkout", "-q", "-b", "feature/one"]);

    world.write("changed.txt", "new\n");
    world.write(OsStr::from_bytes(b"n\xff \n.txt"), "odder\n");
    fs::remove_file(world.host.join("sub/gone.txt")).unwrap();
    world.git(&["mv", "renamed.txt", "moved.txt"]);
    fs::set_permissions(world.host.join("tool.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(world.host.join("link")).unwrap();
    symlink("changed.txt", world.host.join("link")).unwrap();
    world.write("staged.txt", "staged\n");
    world.git(&["add", "staged.txt"]);
    world.write("staged.txt", "and changed\n");
    let repository = Repository::find(&world.host).unwrap();
    let listed = Options { list_staged: true, ..Options::default() };
    let snapshot = Snapshot::of(&repository, &listed).unwrap();
    assert!(snapshot.staged.contains(&b"staged.txt".to_vec()), "{:?}", snapshot.staged);
    world.write("intended.txt", "intended\n");
    world.git(&["add", "-N", "intended.txt"]);
    world.write("untracked.txt", "untracked\n");
    world.write("build.log", "ignored\n");

    let (snapshot, _) = world.import(Options::default());
    assert_eq!(snapshot.left_out, 1);
    world.is_equal();
    assert!(!world.guest.join("untracked.txt").exists());
    assert_eq!(git(&world.guest, &["config", "remote.origin.url"]), "https://example.org/x.git\n");
    assert_eq!(git(&world.guest, &["config", "--local", "user.name"]), "Ada\n");
    assert_eq!(git(&world.guest, &["log", "--format=%s"]), "first\n");
    git(&world.guest, &["commit", "-q", "-a", "-m", "second"]);
}

#[test]
fn other_repositories_among_untracked_files_are_named() {
    let world = World::new();
    world.write("a", "a\n");
    world.commit("first");
    world.write("nest/x", "x\n");
    git(&world.host.join("nest"), &["init", "-q"]);
    let repository = Repository::find(&world.host).unwrap();
    let options = Options { include_untracked: true, ..Options::default() };
    let snapshot = Snapshot::of(&repository, &options).unwrap();
    assert_eq!(snapshot.warnings, ["`nest` is a repository of its own, which is not sent"]);
    assert_eq!(snapshot.files().count(), 0);
}

#[test]
fn untracked_files_come_if_asked_for() {
    let world = World::new();
    world.write(".gitignore", "*.log\n");
    world.commit("first");
    world.write("new/deep/file", "new\n");
    world.write("x.log", "ignored\n");
    let (snapshot, _) = world.import(Options { include_untracked: true, ..Options::default() });
    assert_eq!(snapshot.left_out, 0);
    assert_eq!(fs::read(world.guest.join("new/deep/file")).unwrap(), b"new\n");
    assert!(!world.guest.join("x.log").exists());
    world.is_equal();
}

#[test]
fn odd_states_arrive() {
    // No commit.
    let world = World::new();
    world.write("staged", "staged\n");
    world.git(&["add", "staged"]);
    world.import(Options::default());
    world.is_equal();
    let empty = World::new();
    empty.import(Options::default());
    empty.is_equal();

    // A detached HEAD, in a second work tree.
    let world = World::new();
    world.write("a", "1\n");
    world.commit("one");
    world.write("a", "2\n");
    world.commit("two");
    let second = world.host.with_file_name("second");
    world.git(&["worktree", "add", "-q", "--detach", second.to_str().unwrap(), "HEAD~1"]);
    let world = World { host: second, ..world };
    world.import(Options::default());
    world.is_equal();

    // A merge with a conflict.
    let world = World::new();
    world.write("a", "base\n");
    world.write("b", "base\n");
    world.commit("base");
    world.git(&["checkout", "-q", "-b", "other"]);
    world.write("a", "theirs\n");
    fs::remove_file(world.host.join("b")).unwrap();
    world.commit("theirs");
    world.git(&["checkout", "-q", "main"]);
    world.write("a", "ours\n");
    world.write("b", "ours\n");
    world.commit("ours");
    output(&world.host, &["merge", "-q", "other"]);
    assert!(world.git(&["status"]).contains("Unmerged paths"));
    world.import(Options::default());
    world.is_equal();
    world.write("a", "merged\n");
    git(&world.guest, &["commit", "-q", "-a", "-m", "merged"]);
    let merge = git(&world.guest, &["cat-file", "commit", "HEAD"]);
    assert_eq!(merge.matches("parent ").count(), 2, "{merge}");

    // A sparse checkout.
    let world = World::new();
    world.write("in/a", "a\n");
    world.write("out/b", "b\n");
    world.commit("first");
    world.git(&["sparse-checkout", "set", "in"]);
    world.import(Options::default());
    world.is_equal();
    assert!(!world.guest.join("out").exists());
}

#[test]
fn a_new_branch_begins_where_it_is_asked_to() {
    let world = World::new();
    world.write("a", "1\n");
    world.write("old", "old\n");
    world.commit("one");
    world.write("a", "2\n");
    fs::remove_file(world.host.join("old")).unwrap();
    world.commit("two");
    world.write("a", "3\n");
    let options = |branch: &str, from: Option<&str>| Options {
        branch: Some(branch.to_owned()),
        from: from.map(str::to_owned),
        ..Options::default()
    };
    world.import(options("try/one", Some("main~1")));
    let guest = |question: &[&str]| git(&world.guest, question);
    assert_eq!(guest(&["status", "--short", "--branch"]), "## try/one\n");
    assert_eq!(guest(&["log", "--format=%s"]), "one\n");
    assert_eq!(fs::read(world.guest.join("a")).unwrap(), b"1\n");
    fs::remove_dir_all(&world.guest).unwrap();
    world.import(options("two", None));
    assert_eq!(guest(&["status", "--short", "--branch"]), "## two\n M a\n");

    let repository = Repository::find(&world.host).unwrap();
    let refused = |options: Options| Snapshot::of(&repository, &options).unwrap_err().message;
    assert!(refused(options("a..b", None)).contains("`a..b` is no name of a branch"));
    assert!(refused(options("-x", None)).contains("`-x`"));
    assert!(refused(options("x", Some("nope"))).contains("has no commit `nope`"));
    assert!(refused(options("x", Some("--help"))).contains("has no commit `--help`"));
    let empty = World::new();
    let repository = Repository::find(&empty.host).unwrap();
    let refused = Snapshot::of(&repository, &options("x", Some("HEAD"))).unwrap_err().message;
    assert!(refused.contains("has no commit `HEAD`"), "{refused}");
}

#[test]
fn only_what_is_needed_is_sent() {
    let world = World::new();
    let mut random = fs::File::open("/dev/urandom").unwrap();
    for number in 0..4 {
        let mut bytes = vec![0; 1 << 20];
        random.read_exact(&mut bytes).unwrap();
        world.write("large", bytes);
        world.commit(&format!("number {number}"));
    }
    fs::remove_file(world.host.join("large")).unwrap();
    world.write("small", "small\n");
    world.commit("small");
    let (_, packed) = world.import(Options::default());
    assert!(packed < 2000, "{packed} bytes of a history of 4 MiB");
    world.is_equal();
}

#[test]
fn nothing_of_the_repository_runs() {
    let world = World::new();
    world.write(".gitattributes", "*.txt filter=evil diff=evil merge=evil\n*.md filter=a=b\n");
    world.write("a.txt", "a\n");
    world.write("a.md", "a\n");
    world.commit("first");
    let proof = world.host.with_file_name("proof");
    let program = format!("touch {}; cat", proof.display());
    for setting in [
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        // A name that `-c` would end too early.
        "filter.a=b.clean",
        "filter.a=b.smudge",
        "diff.evil.textconv",
        "diff.evil.command",
        "diff.external",
        "core.fsmonitor",
        "core.sshCommand",
        "core.pager",
        "uploadpack.packObjectsHook",
    ] {
        world.git(&["config", setting, &program]);
    }
    world.git(&["config", "filter.evil.required", "true"]);
    for hook in ["post-index-change", "post-checkout", "reference-transaction", "pre-commit"] {
        let path = world.host.join(".git/hooks").join(hook);
        fs::write(&path, format!("#!/bin/sh\n{program}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // Of the same size and time as the index: git would have to compare the content.
    fs::write(world.host.join("a.txt"), "b\n").unwrap();
    fs::write(world.host.join("a.md"), "b\n").unwrap();
    let repository = Repository::find(&world.host).unwrap();
    let snapshot = Snapshot::of(&repository, &Options::default()).unwrap();
    let objects = pack::objects(repository.git(), &snapshot).unwrap();
    let folder = tempfile::tempdir().unwrap();
    pack::to_files(&repository, objects, folder.path()).unwrap();
    assert!(!proof.exists(), "a program of the repository ran");
}

#[test]
fn what_cannot_be_sent_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: &Path| {
        let error = Repository::find(path).unwrap_err();
        (error.message.clone(), error.hint().unwrap_or_default())
    };
    let (message, hint) = refused(folder.path());
    assert!(message.ends_with("is not in a git repository"), "{message}");
    assert!(hint.contains("git init"), "{hint}");
    let bare = folder.path().join("bare");
    git(folder.path(), &["init", "-q", "--bare", bare.to_str().unwrap()]);
    assert!(refused(&bare).0.contains("bare repository"));
    assert!(refused(Path::new("/nonexistent")).0.contains("cannot be opened"));
    let world = World::new();
    assert!(refused(&world.host.join(".git")).0.contains("`.git`"));
    world.write("a", "a\n");
    world.commit("first");
    let cache = "160000,1111111111111111111111111111111111111111,lib";
    world.git(&["update-index", "--add", "--cacheinfo", cache]);
    let repository = Repository::find(&world.host).unwrap();
    let error = Snapshot::of(&repository, &Options::default()).unwrap_err();
    assert!(error.message.contains("submodules (1), such as `lib`"), "{}", error.message);
}
