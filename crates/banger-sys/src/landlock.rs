//! Confines a process's access to files: landlock(7), through the `landlock` crate.
//!
//! Best effort: a kernel without Landlock confines nothing, an older kernel fewer operations.
//! Rights are granted on open descriptors, so a path cannot be replaced between check and grant.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, Scope,
};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// Newest ABI that this module uses; the crate drops the rights that the kernel does not support.
const NEWEST: ABI = ABI::V6;

/// Rights on a file, or on everything in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Reading.
    Read,
    /// Reading and executing.
    ReadExecute,
    /// Reading and writing; in a folder also creating and removing files and sockets, but not
    /// links, folders or devices.
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

/// A list of grants; everything else is denied after [`Ruleset::restrict_self`].
#[derive(Debug)]
pub struct Ruleset(RulesetCreated);

fn refused(error: landlock::RulesetError) -> io::Error {
    io::Error::other(error)
}

impl Ruleset {
    /// An empty ruleset: no file may be opened, created or removed; signals and abstract sockets
    /// reach only processes in the same domain. Open descriptors stay usable.
    ///
    /// # Errors
    /// landlock_create_ruleset(2), except that the kernel does not support it.
    pub fn new() -> io::Result<Self> {
        Self::of(BitFlags::empty())
    }

    /// As [`Ruleset::new`]; also, no TCP port may be bound or connected to (from Linux 6.7 on).
    ///
    /// # Errors
    /// As [`Ruleset::new`].
    pub fn without_network() -> io::Result<Self> {
        Self::of(AccessNet::from_all(NEWEST))
    }

    fn of(network: BitFlags<AccessNet>) -> io::Result<Self> {
        let ruleset = landlock::Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST));
        let ruleset = match network.is_empty() {
            true => ruleset,
            false => ruleset.and_then(|ruleset| ruleset.handle_access(network)),
        };
        ruleset
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

    /// Grants rights on the file at a path, following links. A path that does not exist or that the
    /// caller cannot reach is skipped.
    ///
    /// # Errors
    /// Other errors of open(2); those of [`Ruleset::grant`].
    pub fn grant_path(self, path: &Path, rights: Rights) -> io::Result<Self> {
        match open_place(path) {
            Ok(file) => self.grant(file, rights),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => Ok(self),
            Err(error) => Err(error.into()),
        }
    }

    /// Confines the calling thread and its future children irreversibly; also sets no_new_privs
    /// (prctl(2)), which landlock_restrict_self(2) requires. Neither allocates nor locks.
    ///
    /// # Errors
    /// prctl(2), landlock_restrict_self(2).
    pub fn restrict_self(self) -> io::Result<()> {
        match self.0.restrict_self() {
            Ok(_) => Ok(()),
            // Keeping the original error would allocate.
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

/// Whether the kernel enforces Landlock: landlock_create_ruleset(2) with
/// LANDLOCK_CREATE_RULESET_VERSION. It needs Linux 5.13 and can be disabled at boot.
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
    fn only_granted_access_is_allowed() {
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
        // Only the calling thread is confined.
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
                assert!(fs::write(read.join("file"), "y").is_err(), "not writable");
                assert_eq!(fs::read(&single).unwrap(), b"x");
                assert!(fs::write(&single, "y").is_err());
                let denied = fs::read(others.join("file")).unwrap_err();
                assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
                let mut text = String::new();
                io::Read::read_to_string(&mut &open_before, &mut text).unwrap();
                assert_eq!(text, "x", "open descriptors stay usable");
            }
        });
        confined.join().unwrap();
        assert_eq!(fs::read(at("others/file")).unwrap(), b"x", "this thread is not confined");
    }
}
