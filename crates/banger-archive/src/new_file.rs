//! Files that appear under their name complete or not at all, also if the writer is killed.
//!
//! Where the file system has `O_TMPFILE` (open(2)), a file has no name before it is complete: the
//! kernel removes it with its writer. Otherwise, and for a moment when a file replaces another one,
//! it has a temporary name, `.banger-PID-START-N` (process id and start time of the writer), and a
//! lock (flock(2)) that ends with the writer. [`remove_leftovers`] removes those of dead writers.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{self, AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::beneath::{Folder, Links, Owner};

/// Start of all temporary names.
const PREFIX: &[u8] = b".banger-";

/// Maximum number of names that [`remove_leftovers`] looks at in a folder.
const MAX_NAMES: usize = 100_000;

/// Age of a leftover without a lock, a symlink or a pipe. Its writer needs it for microseconds.
const MIN_AGE: Duration = Duration::from_secs(60);

/// A file that is being written. Without [`NewFile::finish`] it is removed.
pub struct NewFile<'a> {
    folder: &'a Folder,
    /// Its temporary name, if it has one.
    name: Option<Vec<u8>>,
    file: File,
}

impl<'a> NewFile<'a> {
    /// Creates an empty file in `folder`, mode 0600, with this owner or else the caller's; without
    /// a name where the file system can do that.
    ///
    /// # Errors
    /// As openat(2), fchown(2), flock(2).
    pub fn create(folder: &'a Folder, owner: Option<Owner>) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        match fs::openat(folder, c".", flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Self { folder, name: None, file: file.into() }.owned_by(owner),
            // No such operation, or a kernel that opens the folder instead.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
                Self::create_named(folder, owner)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// The same with a temporary name, on any file system and without `/proc`.
    ///
    /// # Errors
    /// As openat(2), fchown(2), flock(2).
    pub fn create_named(folder: &'a Folder, owner: Option<Owner>) -> io::Result<Self> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..16 {
            let name = temporary_name();
            let file = match fs::openat(folder, name.as_slice(), flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => File::from(file),
                // Left by a guest that lost power.
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(errno.into()),
            };
            match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Another copy took it for a leftover before it was locked.
                Err(Errno::WOULDBLOCK) => continue,
                Ok(()) if fs::fstat(&file)?.st_nlink == 0 => continue,
                // A file system without locks: the name tells whose it is.
                Ok(()) | Err(_) => {}
            }
            return Self { folder, name: Some(name), file }.owned_by(owner);
        }
        Err(Errno::EXIST.into())
    }

    fn owned_by(self, owner: Option<Owner>) -> io::Result<Self> {
        if let Some((uid, gid)) = owner.map(Owner::ids) {
            fs::fchown(&self.file, Some(uid), Some(gid))?;
        }
        Ok(self)
    }

    /// The file.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Writes the whole content and sets the mode.
    ///
    /// # Errors
    /// As write(2), fchmod(2).
    pub fn write(&mut self, content: &[u8], mode: u32) -> io::Result<()> {
        self.file.write_all(content)?;
        Ok(fs::fchmod(&self.file, Mode::from_raw_mode(mode & 0o7777))?)
    }

    /// Gives the file its name, directly in its folder; replaces what has that name.
    ///
    /// # Errors
    /// As linkat(2), renameat(2); `name` is a folder.
    pub fn finish(mut self, name: &[u8]) -> io::Result<()> {
        let temporary = match self.name.clone() {
            Some(temporary) => temporary,
            None => match self.link(name) {
                Err(Errno::EXIST) => {
                    let temporary = temporary_name();
                    self.link(&temporary)?;
                    self.name = Some(temporary.clone());
                    temporary
                }
                linked => return Ok(linked?),
            },
        };
        fs::renameat(self.folder, temporary.as_slice(), self.folder, name)?;
        self.name = None;
        Ok(())
    }

    /// As open(2) describes it for callers without privilege.
    fn link(&self, name: &[u8]) -> rustix::io::Result<()> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        fs::linkat(CWD, path, self.folder, name, AtFlags::SYMLINK_FOLLOW)
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // After an error that is being reported.
            let _ = fs::unlinkat(self.folder, name.as_slice(), AtFlags::empty());
        }
    }
}

/// A name for a file that is being written.
pub fn temporary_name() -> Vec<u8> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static START: OnceLock<u64> = OnceLock::new();
    let pid = std::process::id();
    let start = START.get_or_init(|| start_time(pid).unwrap_or(0));
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    [PREFIX, format!("{pid}-{start}-{number}").as_bytes()].concat()
}

/// Whether a name is a temporary one.
pub fn is_temporary(name: &[u8]) -> bool {
    writer(name).is_some()
}

/// Process id and start time in a temporary name.
fn writer(name: &[u8]) -> Option<(u32, u64)> {
    let text = std::str::from_utf8(name.strip_prefix(PREFIX)?).ok()?;
    let mut numbers = text.split('-').map(|number| {
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| number.parse::<u64>().ok()).flatten()
    });
    let (pid, start, _) = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some((u32::try_from(pid).ok()?, start))
}

/// Start time of a process in clock ticks after boot: field 22 of `/proc/PID/stat`, proc(5).
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// Removes temporary files of dead writers from a folder, not from the folders in it. Does nothing
/// where it lacks permission.
pub fn remove_leftovers(folder: &Folder) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let Ok(handle) = folder.open_beneath(b".", flags, Links::Refuse) else { return };
    let Ok(names) = Dir::new(handle) else { return };
    let names = names.take(MAX_NAMES).map_while(Result::ok);
    let found: Vec<_> = names
        .map(|entry| entry.file_name().to_bytes().to_vec())
        .filter_map(|name| Some((writer(&name)?, name)))
        .collect();
    for (writer, name) in found {
        if is_leftover(folder, &name, writer) {
            let _ = fs::unlinkat(folder, name.as_slice(), AtFlags::empty());
        }
    }
}

fn is_leftover(folder: &Folder, name: &[u8], (pid, start): (u32, u64)) -> bool {
    if pid == std::process::id() || start_time(pid) == Some(start) {
        return false;
    }
    match folder.kind_of(name) {
        // A writer in another PID namespace is found by its lock.
        Some(FileType::RegularFile) => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let file: Result<OwnedFd, _> = folder.open_beneath(name, flags, Links::Refuse);
            file.is_ok_and(|file| {
                fs::flock(&file, FlockOperation::NonBlockingLockExclusive) != Err(Errno::WOULDBLOCK)
            })
        }
        Some(FileType::Symlink | FileType::Fifo) => {
            let Ok(stat) = fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
                return false;
            };
            let changed = Duration::from_secs(u64::try_from(stat.st_ctime).unwrap_or(u64::MAX));
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            now.saturating_sub(changed) > MIN_AGE
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::process::{Command, Stdio};

    use super::*;

    fn names(path: &std::path::Path) -> Vec<String> {
        let entries = std::fs::read_dir(path).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_complete_under_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        for create in [NewFile::create, NewFile::create_named] {
            for content in ["first", "second"] {
                let mut new = create(&folder, None).unwrap();
                new.write(content.as_bytes(), 0o640).unwrap();
                assert!(!names(dir.path()).contains(&"file".into()) || content == "second");
                new.finish(b"file").unwrap();
                let path = dir.path().join("file");
                assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
                assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
            }
            drop(create(&folder, None).unwrap());
            assert_eq!(names(dir.path()), ["file"]);
            std::fs::remove_file(dir.path().join("file")).unwrap();
            std::fs::create_dir(dir.path().join("folder")).unwrap();
            assert!(create(&folder, None).unwrap().finish(b"folder").is_err());
            assert_eq!(names(dir.path()), ["folder"], "nothing is left after an error");
            std::fs::remove_dir(dir.path().join("folder")).unwrap();
        }
    }

    #[test]
    fn names_have_three_numbers() {
        let name = temporary_name();
        let pid = std::process::id();
        assert_eq!(writer(&name), start_time(pid).map(|start| (pid, start)));
        for other in [".banger-1-2", ".banger-1-2-3-4", ".banger-a-2-3", ".banger-+1-2-3", "x"] {
            assert_eq!(writer(other.as_bytes()), None, "{other}");
        }
    }

    /// Another process holds its lock, as one in another PID namespace does.
    #[test]
    fn only_files_of_dead_writers_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let write = |name: &str| std::fs::write(dir.path().join(name), "part").unwrap();
        let dead = u32::MAX - 1;
        let (left, locked) = (format!(".banger-{dead}-1-0"), format!(".banger-{dead}-1-1"));
        let reused = format!(".banger-{}-1-0", std::os::unix::process::parent_id());
        for name in [&left, &locked, &reused, ".banger-1-2", ".banger-x-1-1", "file"] {
            write(name);
        }
        symlink("nowhere", dir.path().join(format!(".banger-{dead}-1-2"))).unwrap();
        let live = NewFile::create_named(&folder, None).unwrap();
        let mut holder = Command::new("flock")
            .arg(dir.path().join(&locked))
            .args(["sh", "-c", "echo held; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0; 5]).unwrap();
        remove_leftovers(&folder);
        let now = names(dir.path());
        for gone in [&left, &reused] {
            assert!(!now.contains(gone), "{now:?}");
        }
        // The symlink is young: its writer may be in another PID namespace.
        assert_eq!(now.len(), 6, "{now:?}");
        drop((holder.stdin.take(), live));
        holder.wait().unwrap();
        remove_leftovers(&folder);
        assert!(!names(dir.path()).contains(&locked));
    }

    /// The test program again, which writes until it is killed.
    #[test]
    fn a_killed_writer_leaves_nothing_that_stays() {
        const WRITE: &str = "BANGER_TEST_WRITE_IN";
        if let Some(path) = std::env::var_os(WRITE) {
            let folder = Folder::open(path.as_os_str()).unwrap();
            let mut open = [NewFile::create(&folder, None), NewFile::create_named(&folder, None)]
                .map(Result::unwrap);
            open.iter_mut().for_each(|new| new.file().write_all(b"part").unwrap());
            std::fs::write(std::path::Path::new(&path).join("written"), "").unwrap();
            loop {
                std::thread::park();
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "new_file::tests::a_killed_writer_leaves_nothing_that_stays"])
            .env(WRITE, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while !dir.path().join("written").exists() {
            assert!(writer.try_wait().unwrap().is_none(), "the writer ended");
            std::thread::yield_now();
        }
        let folder = Folder::open(dir.path()).unwrap();
        let before = names(dir.path()).len();
        remove_leftovers(&folder);
        assert_eq!(names(dir.path()).len(), before, "files of a live writer");
        writer.kill().unwrap();
        writer.wait().unwrap();
        remove_leftovers(&folder);
        assert_eq!(names(dir.path()), ["written"]);
    }
}
