//! A workspace whose guest is a folder of this host: its commands run through `sh`.

use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use banger_api::ApiError;
use banger_workspace::guest::{Guest, Talk};
use banger_workspace::store::{Record, Store};
use banger_workspace::{Options, Repository, Workspace, workspace};

use crate::world::{World, git, state_of};

/// The folder's end of a command.
pub struct Local;

impl Guest for Local {
    fn start(&self, command: &[OsString]) -> Result<Talk, ApiError> {
        let (program, arguments) = command.split_first().unwrap();
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut messages = child.stderr.take().unwrap();
        let end = move || {
            let mut text = Vec::new();
            messages.read_to_end(&mut text).unwrap();
            Ok((child.wait().unwrap().code().map_or(255, |code| code as u8), text))
        };
        Ok(Talk { output: Box::new(output), input: Box::new(input), end: Box::new(end) })
    }
}

/// A guest that answers with these bytes, whatever it is asked.
pub struct Liar(pub Vec<u8>);

impl Guest for Liar {
    fn start(&self, _command: &[OsString]) -> Result<Talk, ApiError> {
        Ok(Talk {
            output: Box::new(std::io::Cursor::new(self.0.clone())),
            input: Box::new(std::io::sink()),
            end: Box::new(|| Ok((0, Vec::new()))),
        })
    }
}

/// A repository on both sides, with its record.
pub struct Pair {
    pub world: World,
    store: PathBuf,
}

impl Pair {
    /// Files `a` to `d`, a program, a link and a folder, in one commit.
    pub fn new() -> Self {
        let world = World::new();
        for name in ["a", "b", "c", "d", "dir/e", "dir/f"] {
            world.write(name, format!("{name}\nline 2\nline 3\n"));
        }
        world.write("run", "#!/bin/sh\n");
        world.chmod("run", 0o755);
        world.link("link", "a");
        world.write(".gitignore", "*.o\n");
        world.commit("first");
        Self::of(world, Options::default())
    }

    /// Sends a repository.
    pub fn of(world: World, options: Options) -> Self {
        let folder = world.host.parent().unwrap().join("store");
        {
            let store = Store::open(&folder).unwrap();
            let repository = Repository::find(&world.host).unwrap();
            let snapshot = banger_workspace::Snapshot::of(&repository, &options).unwrap();
            let base = workspace::sent(&store, &repository, &snapshot).unwrap();
            let record = Record {
                repository: repository.top().to_owned(),
                folder: world.guest.clone().into_os_string().into_encoded_bytes(),
                head: snapshot.head.clone(),
                include_untracked: options.include_untracked,
                base,
            };
            store.save(&record).unwrap();
        }
        world.import(options);
        git(&world.guest, &["config", "user.name", "Agent"]);
        git(&world.guest, &["config", "user.email", "agent@example.org"]);
        Self { world, store: folder }
    }

    /// The folder of the record.
    pub fn store(&self) -> &Path {
        &self.store
    }

    pub fn open(&self) -> Workspace {
        Workspace::open(&self.store, "web").unwrap()
    }

    /// Writes a file of the guest.
    pub fn guest(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.world.guest.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Content of a file of the host; none if there is no file.
    pub fn host(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.world.host.join(path)).ok()
    }

    /// What `status` finds: a letter for the side, one for the effect, the path.
    pub fn status(&self) -> Vec<String> {
        let (before, here) = (settled(&self.world.guest), settled(&self.world.host));
        let found = self.open().status(&Local).unwrap();
        assert_eq!(settled(&self.world.guest), before, "the guest's repository was changed");
        assert_eq!(settled(&self.world.host), here, "the host's repository was changed");
        let line = |side: char| {
            move |change: &banger_workspace::compare::Change| {
                let effect = format!("{:?}", change.effect());
                format!("{side}{} {}", &effect[..1], String::from_utf8_lossy(&change.path))
            }
        };
        let (guest, host) = (&found.changes.guest, &found.changes.host);
        let both = found.changes.conflicts.iter();
        let mut lines: Vec<String> = guest.iter().map(line('g')).collect();
        lines.extend(host.iter().map(line('h')));
        lines.extend(both.map(|path| format!("C {}", String::from_utf8_lossy(path))));
        lines
    }
}

/// Names, sizes and times of everything in `.git`, but for the times of objects: git renews those
/// of objects that it would write again.
pub fn settled(repository: &Path) -> Vec<(PathBuf, u64, Option<SystemTime>)> {
    let objects = repository.join(".git/objects");
    let files = state_of(repository).into_iter();
    files
        .map(|(path, size, time)| {
            let time = (!path.starts_with(&objects)).then_some(time);
            (path, size, time)
        })
        .collect()
}
