//! A repository, its import into a folder of this host, and their comparison.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use banger_archive::beneath::Folder;
use banger_archive::unpack::{self, Owners, Rules, SetId, Special, Unpacked};
use banger_workspace::import::{Input, PACKS, Part, parts};
use banger_workspace::{Options, Repository, Snapshot, pack, submodules};

/// A repository, and the folder that stands for the guest's.
pub struct World {
    pub _folder: tempfile::TempDir,
    pub host: PathBuf,
    pub guest: PathBuf,
}

impl World {
    pub fn new() -> Self {
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

    pub fn git(&self, arguments: &[&str]) -> String {
        git(&self.host, arguments)
    }

    pub fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.host.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn chmod(&self, path: &str, mode: u32) {
        chmod(&self.host.join(path), mode);
    }

    pub fn link(&self, path: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.host.join(path)).unwrap();
    }

    pub fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
    }

    /// Imports; returns the bytes of the packs.
    pub fn import(&self, options: Options) -> (Snapshot, usize) {
        let repository = Repository::find(&self.host).unwrap();
        let before = state_of(&self.host);
        let mut snapshot = Snapshot::of(&repository, &options).unwrap();
        let submodules = submodules::collect(&repository, &mut snapshot, &options).unwrap();
        let packed = send(&repository, &snapshot, &self.guest);
        for one in submodules {
            send(&one.repository, &one.snapshot, &self.guest.join(one.path));
        }
        assert_eq!(state_of(&self.host), before, "the host's repository was changed");
        (snapshot, packed)
    }

    /// Both repositories look the same to git, and have the same files.
    pub fn is_equal(&self) {
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

/// Runs the import in a folder of this host; returns the bytes of the packs.
fn send(repository: &Repository, snapshot: &Snapshot, guest: &Path) -> usize {
    let objects = pack::objects(repository.git(), snapshot).unwrap();
    let mut packed = 0;
    for part in parts(snapshot, guest.as_os_str(), !objects.is_empty()) {
        match part {
            Part::Run(step) => {
                let input = match step.input {
                    Input::None => Vec::new(),
                    Input::Bytes(bytes) => bytes,
                };
                run(&step.command, input);
            }
            Part::Objects => {
                let folder = tempfile::tempdir().unwrap();
                let objects = objects.clone();
                let packs = pack::to_files(repository, objects, &folder.path().join("x")).unwrap();
                let mut archive = Vec::new();
                pack::packs(&packs, &mut archive).unwrap();
                let sizes = fs::read_dir(&packs).unwrap().flatten().filter_map(|entry| {
                    let is_pack = entry.path().extension()? == "pack";
                    is_pack.then(|| entry.metadata().unwrap().len() as usize)
                });
                packed = sizes.sum();
                unpack_to(&guest.join(PACKS), &archive);
            }
            Part::Files => {
                let mut archive = Vec::new();
                pack::files(repository, snapshot, &mut archive).unwrap();
                unpack_to(guest, &archive);
            }
        }
    }
    packed
}

fn unpack_to(folder: &Path, archive: &[u8]) {
    let rules = Rules {
        owners: Owners::Caller,
        set_id: SetId::Drop,
        special: Special::Refuse,
        top: unpack::Top::AsIs,
        max_entries: 1 << 20,
        reserve_bytes: 0,
    };
    let folder = Folder::open(folder).unwrap();
    let mut done = Unpacked::default();
    unpack::unpack(&folder, archive, &rules, &mut done).unwrap();
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
pub fn state_of(repository: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
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

pub fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub fn output(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(folder).env("GIT_OPTIONAL_LOCKS", "0");
    command.output().unwrap().stdout
}

pub fn git(folder: &Path, arguments: &[&str]) -> String {
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
