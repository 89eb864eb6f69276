//! What a process may still touch after it has confined itself: landlock(7), through the `landlock`
//! crate.
//!
//! Best effort: a kernel without Landlock confines nothing, an older one a little less. Rights are
//! granted to open descriptors, so that no name can be exchanged between look and grant.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, Scope,
};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// The newest rights that this module knows; what the kernel lacks of them is left out.
const NEWEST: ABI = ABI::V6;

/// What may be done with a file, or with everything in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Reading.
    Read,
    /// Reading and executing.
    ReadExecute,
    /// Reading and writing; in a folder also making and removing files and sockets, but neither
    /// links nor folders nor devices.
    ReadWrite,
    /// Reading, writing and ioctl(2): for device nodes.
    Device,
}

impl Rights {
    fn on(self, kind: Kind) -> BitFlags<AccessFs> {
        let file = match self {
            Self::Read => AccessFs::ReadFile.into(),
            Self::ReadExecute => AccessFs::ReadFile | AccessFs::Execute,
            Self::ReadWrite => AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate,
            Self::Device => AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev,
        };
        let folder = match self {
            Self::Read | Self::ReadExecute | Self::Device => AccessFs::ReadDir.into(),
            Self::ReadWrite => {
                AccessFs::ReadDir | AccessFs::MakeReg | AccessFs::MakeSock | AccessFs::RemoveFile
            }
        };
        match kind {
            Kind::File => file,
            Kind::Folder => file | folder,
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    File,
    Folder,
}

/// A list of grants; what it does not name is denied once [`Ruleset::restrict_self`] was called.
#[derive(Debug)]
pub struct Ruleset(RulesetCreated);

fn refused(error: landlock::RulesetError) -> io::Error {
    io::Error::other(error)
}

impl Ruleset {
    /// An empty list: no file may be opened, made or removed; signals and abstract sockets reach
    /// only the processes confined with it. Descriptors that are open already stay usable.
    ///
    /// # Errors
    /// landlock_create_ruleset(2), but for a kernel without it.
    pub fn new() -> io::Result<Self> {
        landlock::Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))
            .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
            .and_then(landlock::Ruleset::create)
            .map(Self)
            .map_err(refused)
    }

    /// Grants rights on an open file or folder.
    ///
    /// # Errors
    /// fstat(2), landlock_add_rule(2).
    pub fn grant(self, file: impl AsFd, rights: Rights) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&file)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Folder,
            _ => Kind::File,
        };
        let rule = PathBeneath::new(file, rights.on(kind));
        self.0.add_rule(rule).map(Self).map_err(refused)
    }

    /// Grants rights on what is at a path, links followed. What is not there, or cannot be reached
    /// by the caller, is left out.
    ///
    /// # Errors
    /// Others of open(2); [`Ruleset::grant`].
    pub fn grant_path(self, path: &Path, rights: Rights) -> io::Result<Self> {
        match open_place(path) {
            Ok(file) => self.grant(file, rights),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => Ok(self),
            Err(error) => Err(error.into()),
        }
    }

    /// Confines the calling thread, and what it starts, for ever; also sets no_new_privs
    /// (prctl(2)), without which landlock_restrict_self(2) is refused. Neither allocates nor locks.
    ///
    /// # Errors
    /// Those of the calls.
    pub fn restrict_self(self) -> io::Result<()> {
        match self.0.restrict_self() {
            Ok(_) => Ok(()),
            // The error would be allocated if it were kept as it is.
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

/// Whether the kernel confines at all: landlock_create_ruleset(2) with
/// LANDLOCK_CREATE_RULESET_VERSION. It came with Linux 5.13, and can be switched off at boot.
#[expect(unsafe_code, reason = "a system call without a wrapper")]
pub fn is_enforced() -> bool {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the call takes no attributes and returns a number.
    unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION)
            > 0
    }
}

fn open_place(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_what_was_granted_is_left() {
        if !is_enforced() {
            eprintln!("SKIPPED: this kernel has no Landlock");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["own", "others", "read"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("file"), "x").unwrap();
        }
        fs::write(at("single"), "x").unwrap();
        let open_before = fs::File::open(at("others/file")).unwrap();
        // Only the thread that asks is confined.
        let confined = std::thread::spawn({
            let at = |name: &str| folder.path().join(name);
            let (own, others, read) = (at("own"), at("others"), at("read"));
            let (single, absent) = (at("single"), at("absent"));
            move || {
                Ruleset::new()
                    .and_then(|rules| rules.grant_path(&own, Rights::ReadWrite))
                    .and_then(|rules| rules.grant_path(&read, Rights::Read))
                    .and_then(|rules| rules.grant_path(&absent, Rights::Read))
                    .and_then(|rules| rules.grant(fs::File::open(&single)?, Rights::Read))
                    .and_then(Ruleset::restrict_self)
                    .unwrap();
                assert_eq!(fs::read(own.join("file")).unwrap(), b"x");
                fs::write(own.join("new"), "y").unwrap();
                fs::remove_file(own.join("new")).unwrap();
                drop(UnixListener::bind(own.join("s")).unwrap());
                assert!(symlink("/etc/passwd", own.join("link")).is_err(), "no links");
                assert!(fs::create_dir(own.join("folder")).is_err(), "no folders");
                assert_eq!(fs::read(read.join("file")).unwrap(), b"x");
                assert!(fs::write(read.join("file"), "y").is_err(), "not to be written");
                assert_eq!(fs::read(&single).unwrap(), b"x");
                assert!(fs::write(&single, "y").is_err());
                let denied = fs::read(others.join("file")).unwrap_err();
                assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
                let mut text = String::new();
                io::Read::read_to_string(&mut &open_before, &mut text).unwrap();
                assert_eq!(text, "x", "what was open stays usable");
            }
        });
        confined.join().unwrap();
        assert_eq!(fs::read(at("others/file")).unwrap(), b"x", "this thread is not confined");
    }
}
