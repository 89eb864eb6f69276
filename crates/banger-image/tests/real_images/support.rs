//! Who watches the work, and what e2fsprogs sees in an image.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use banger_image::fetch::{Progress, Tools};

/// Programs of this machine.
pub fn tools() -> Tools {
    Tools::new(std::env::var("PATH").unwrap())
}

/// The folder of all tests, locked so that only one of them fetches.
pub fn cache() -> (PathBuf, std::fs::File) {
    let folder = match std::env::var_os("BANGER_TEST_CACHE") {
        Some(folder) => PathBuf::from(folder),
        None => std::env::temp_dir().join("banger-test-cache"),
    };
    std::fs::create_dir_all(&folder).unwrap();
    let lock = std::fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    (folder, lock)
}

/// Programs of this machine as if one of them were not installed: links in `folder` to all others.
pub fn tools_without(name: &str, folder: &Path) -> Tools {
    std::fs::create_dir_all(folder).unwrap();
    for system in ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"] {
        for entry in std::fs::read_dir(system).into_iter().flatten().flatten() {
            if entry.file_name() != name {
                // The first one counts, as in a search path.
                let _ = std::os::unix::fs::symlink(entry.path(), folder.join(entry.file_name()));
            }
        }
    }
    Tools::only(folder.to_str().unwrap())
}

/// Records progress; cancels the work when a stage begins with `cancel_at`.
#[derive(Default)]
pub struct Watch {
    pub stages: Mutex<Vec<String>>,
    pub lines: Mutex<Vec<String>>,
    pub cancel_at: Option<&'static str>,
    cancelled: AtomicBool,
}

impl Watch {
    pub fn cancelling_at(stage: &'static str) -> Self {
        Self { cancel_at: Some(stage), ..Self::default() }
    }

    pub fn saw_stage(&self, wanted: &str) -> usize {
        self.stages.lock().unwrap().iter().filter(|stage| *stage == wanted).count()
    }
}

impl Progress for Watch {
    fn stage(&self, name: &str) {
        self.stages.lock().unwrap().push(name.to_owned());
        if self.cancel_at.is_some_and(|stage| name.starts_with(stage)) {
            self.cancelled.store(true, Ordering::SeqCst);
        }
    }
    fn bytes(&self, done: u64, total: Option<u64>) {
        assert!(total.is_none_or(|total| done <= total), "{done} bytes of {total:?}");
    }
    fn log(&self, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
    }
    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }
}

/// Runs a program of e2fsprogs with this on its standard input; returns what it prints.
pub fn run(program: &str, args: &[&str], input: &str) -> String {
    let program = tools().find(program).unwrap_or_else(|| panic!("{program} is not installed"));
    let mut command = Command::new(&program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let printed = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{program:?} {args:?}: {printed}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Has e2fsck find nothing wrong.
pub fn fsck(image: &Path) {
    run("e2fsck", &["-fn", image.to_str().unwrap()], "");
}

/// A file of an image.
pub fn content(image: &Path, path: &str) -> String {
    run("debugfs", &["-R", &format!("cat \"{path}\""), image.to_str().unwrap()], "")
}

/// What debugfs prints for one command.
pub fn ask(image: &Path, command: &str) -> String {
    run("debugfs", &["-R", command, image.to_str().unwrap()], "")
}

/// A file or folder as debugfs lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub inode: String,
    /// Octal, with the file type.
    pub mode: String,
    pub uid: String,
    pub gid: String,
    pub bytes: String,
}

/// Everything in an image, by path; `lost+found` is left out.
pub fn listing(image: &Path) -> BTreeMap<String, Listed> {
    let mut all = BTreeMap::new();
    let mut folders = vec![String::new()];
    while !folders.is_empty() {
        let commands: String =
            folders.iter().map(|folder| format!("ls -p \"{folder}/\"\n")).collect();
        let printed = run("debugfs", &["-f", "-", image.to_str().unwrap()], &commands);
        let mut taken = std::mem::take(&mut folders).into_iter();
        let mut folder = String::new();
        for line in printed.lines() {
            if line.starts_with("debugfs:") {
                folder = taken.next().unwrap();
            }
            let fields: Vec<&str> = line.split('/').collect();
            let [_, inode, mode, uid, gid, name, bytes, ""] = fields[..] else { continue };
            if matches!(name, "." | "..") || (folder.is_empty() && name == "lost+found") {
                continue;
            }
            let path = format!("{folder}/{name}");
            if mode.starts_with("04") {
                folders.push(path.clone());
            }
            let text = str::to_owned;
            let listed = Listed {
                inode: text(inode),
                mode: text(mode),
                uid: text(uid),
                gid: text(gid),
                bytes: text(bytes),
            };
            all.insert(path, listed);
        }
    }
    all
}

/// What is left in a store besides whole objects and names.
pub fn half_made(store: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(store.join("staging"));
    entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

/// Whether this is the superuser; says loudly what is skipped otherwise.
pub fn is_root_for(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: only the superuser can {what}");
    }
    root
}

/// An error with its causes as one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
