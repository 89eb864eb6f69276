//! Repositories are imported into a folder of this host with the commands for a guest, and compared
//! by git.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use banger_archive::beneath::Folder;
use banger_archive::unpack::{self, Owners, Rules, SetId, Special, Unpacked};
use banger_workspace::import::{Input, Part, parts};
use banger_workspace::{Options, Repository, Snapshot, pack};

/// A repository, and the folder that stands for the guest's.
struct World {
    _folder: tempfile::TempDir,
    host: PathBuf,
    guest: PathBuf,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = folder.path().join("host");
        fs::create_dir(&host).unwrap();
        let guest = folder.path().join("guest");
        let world = Self { _folder: folder, host, guest };
        world.git(&["init", "-q", "-b", "main"]);
        world.git(&["config", "user.name", "Ada"]);
        world.git(&["config", "user.email", "ada@example.org"]);
        world
    }

    fn git(&self, arguments: &[&str]) -> String {
        git(&self.host, arguments)
    }

    fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.host.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
    }

    /// Imports; returns the bytes of the pack.
    fn import(&self, options: Options) -> (Snapshot, usize) {
        let repository = Repository::find(&self.host).unwrap();
        let before = state_of(&self.host);
        let snapshot = Snapshot::of(&repository, &options).unwrap();
        let objects = pack::objects(repository.git(), &snapshot).unwrap();
        let mut packed = 0;
        for part in parts(&snapshot, self.guest.as_os_str(), !objects.is_empty()) {
            match part {
                Part::Run(step) => {
                    let input = match step.input {
                        Input::None => Vec::new(),
                        Input::Bytes(bytes) => bytes,
                        Input::Pack => {
                            let mut bytes = Vec::new();
                            let mut running =
                                pack::pack(repository.git(), objects.clone()).unwrap();
                            running.stdout.read_to_end(&mut bytes).unwrap();
                            running.finish().unwrap();
                            packed = bytes.len();
                            bytes
                        }
                    };
                    run(&step.command, input);
                }
                Part::Files => {
                    let mut archive = Vec::new();
                    pack::files(&repository, &snapshot, &mut archive).unwrap();
                    let rules = Rules {
                        owners: Owners::Caller,
                        set_id: SetId::Drop,
                        special: Special::Refuse,
                        top: unpack::Top::AsIs,
                        max_entries: 1 << 20,
                        reserve_bytes: 0,
                    };
                    let folder = Folder::open(&self.guest).unwrap();
                    let mut done = Unpacked::default();
                    unpack::unpack(&folder, archive.as_slice(), &rules, &mut done).unwrap();
                }
            }
        }
        assert_eq!(state_of(&self.host), before, "the host's repository was changed");
        (snapshot, packed)
    }

    /// Both repositories look the same to git, and have the same files.
    fn is_equal(&self) {
        for question in [
            &["status", "--porcelain=v2", "-z", "--untracked-files=no"][..],
            &["ls-files", "--stage", "-t", "-z"],
            &["diff", "--binary"],
            &["diff", "--binary", "--cached"],
        ] {
            assert_eq!(self.git(question), git(&self.guest, question), "{question:?}");
        }
        let branch = ["symbolic-ref", "--quiet", "HEAD"];
        assert_eq!(output(&self.host, &branch), output(&self.guest, &branch));
        let head = ["rev-parse", "--verify", "--quiet", "HEAD"];
        assert_eq!(output(&self.host, &head), output(&self.guest, &head));
        git(&self.guest, &["fsck", "--strict"]);
        let tracked = self.git(&["ls-files", "-z"]);
        for path in tracked.split('\0').filter(|path| !path.is_empty()) {
            let (one, two) = (self.host.join(path), self.guest.join(path));
            assert_eq!(looks(&one), looks(&two), "{path}");
        }
    }
}

/// Content or target, and the execute bit.
fn looks(path: &Path) -> Option<(Vec<u8>, bool)> {
    let found = path.symlink_metadata().ok()?;
    if found.is_symlink() {
        return Some((fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec(), false));
    }
    Some((fs::read(path).unwrap(), found.permissions().mode() & 0o100 != 0))
}

/// Names, sizes and times of everything in `.git`.
fn state_of(repository: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let (mut found, mut folders) = (Vec::new(), vec![repository.join(".git")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let data = entry.metadata().unwrap();
            if data.is_dir() {
                folders.push(entry.path());
            } else {
                found.push((entry.path(), data.len(), data.modified().unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn output(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(folder).env("GIT_OPTIONAL_LOCKS", "0");
    command.output().unwrap().stdout
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(folder).env("GIT_OPTIONAL_LOCKS", "0");
    let output = command.output().unwrap();
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {shown}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn run(command: &[OsString], input: Vec<u8>) {
    let (program, arguments) = command.split_first().unwrap();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {shown}");
}

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
    world.write(".gitattributes", "*.txt filter=evil diff=evil merge=evil\n");
    world.write("a.txt", "a\n");
    world.commit("first");
    let proof = world.host.with_file_name("proof");
    let program = format!("touch {}; cat", proof.display());
    for setting in [
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
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
    let repository = Repository::find(&world.host).unwrap();
    let snapshot = Snapshot::of(&repository, &Options::default()).unwrap();
    let objects = pack::objects(repository.git(), &snapshot).unwrap();
    let mut running = pack::pack(repository.git(), objects).unwrap();
    running.stdout.read_to_end(&mut Vec::new()).unwrap();
    running.finish().unwrap();
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
    assert!(error.message.contains("1 submodules, such as `lib`"), "{}", error.message);
}
