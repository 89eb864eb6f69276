//! Programs that the helper runs as root: only programs that no other user can replace.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use banger_base::HostHint;
use banger_sys::programs::find_program;

use crate::error::{Kind, RootError};

/// Folders searched for Firecracker and its jailer, after the helper's own.
const FOLDERS: &str = "/usr/local/lib/banger:/usr/lib/banger:/usr/local/bin:/usr/bin";

/// The programs of a VM. Their paths are resolved on every use, because they may be installed
/// later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// Firecracker: a name or a path.
    pub firecracker: PathBuf,
    /// The jailer: a name or a path.
    pub jailer: PathBuf,
    /// Folders in which names are looked up, in the syntax of `PATH`.
    pub search_path: OsString,
    /// Cache of checked versions.
    pub shim: PathBuf,
}

impl Programs {
    /// The programs in the folder of the helper and in the system's folders.
    ///
    /// # Errors
    /// The path of the helper's own program is unknown.
    pub fn installed() -> Result<Self, RootError> {
        let own = std::env::current_exe()
            .map_err(|error| RootError::system("find the path of this program", &error))?;
        let beside = own.parent().unwrap_or(Path::new("/")).to_owned();
        let mut search_path = beside.clone().into_os_string();
        search_path.push(":");
        search_path.push(FOLDERS);
        Ok(Self {
            firecracker: "firecracker".into(),
            jailer: "jailer".into(),
            search_path,
            shim: beside.join("banger-shim"),
        })
    }

    /// Paths of the VMM, with every link resolved, and of the jailer.
    ///
    /// # Errors
    /// A program is missing, or another user can replace it.
    pub fn jailed(&self) -> Result<(PathBuf, PathBuf), RootError> {
        let get = |wanted: &Path, name: &str| {
            let path = find_program(wanted, &self.search_path).ok_or_else(|| {
                let text = format!("the program `{}` was not found", wanted.display());
                RootError::new(Kind::HostNotReady, text)
                    .with_hint(HostHint::InstallFirecracker { program: name.to_owned() })
            })?;
            let real = fs::canonicalize(&path)
                .map_err(|error| RootError::on_path("find", &path, &error))?;
            trusted(&real)?;
            Ok::<_, RootError>(real)
        };
        Ok((get(&self.firecracker, "firecracker")?, get(&self.jailer, "jailer")?))
    }

    /// File name of the VMM's program, which is part of the jail's path.
    ///
    /// # Errors
    /// Those of [`Self::jailed`].
    pub fn vmm_name(&self) -> Result<String, RootError> {
        let (firecracker, _) = self.jailed()?;
        let name = firecracker.file_name().and_then(|name| name.to_str());
        Ok(name.unwrap_or("firecracker").to_owned())
    }
}

/// Oldest supported version: the first that describes devices through ACPI.
const OLDEST: (u32, u32) = (1, 8);
/// First unsupported version.
const TOO_NEW: u32 = 2;

/// Identity of a program whose version is known: path, inode, ctime in seconds.
type Seen = (PathBuf, u64, i64);

/// Cache of the version of one program.
#[derive(Debug, Clone, Default)]
pub struct Versions(Arc<Mutex<Option<(Seen, String)>>>);

impl Versions {
    /// The version of Firecracker.
    ///
    /// # Errors
    /// A program is missing, can be replaced by another user, or has an unsupported version.
    pub fn check(&self, programs: &Programs) -> Result<String, RootError> {
        let (firecracker, _) = programs.jailed()?;
        let meta = fs::metadata(&firecracker)
            .map_err(|error| RootError::on_path("find", &firecracker, &error))?;
        let seen = (firecracker.clone(), meta.ino(), meta.ctime());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, version)) = known.as_ref()
            && *before == seen
        {
            return Ok(version.clone());
        }
        let output = Command::new(&firecracker)
            .arg("--version")
            .env_clear()
            .output()
            .map_err(|error| RootError::on_path("run", &firecracker, &error))?;
        let version = supported(&String::from_utf8_lossy(&output.stdout))?;
        *known = Some((seen, version.clone()));
        Ok(version)
    }
}

/// Parses `Firecracker v1.12.1` and checks that the version is supported.
fn supported(output: &str) -> Result<String, RootError> {
    let word = output.lines().next().and_then(|line| line.strip_prefix("Firecracker v"));
    let version = word.map(str::trim).unwrap_or_default();
    let mut numbers = version.split(['.', '-']).map(|number| number.parse::<u32>().ok());
    let (major, minor) = (numbers.next().flatten(), numbers.next().flatten());
    let (Some(major), Some(minor)) = (major, minor) else {
        return Err(RootError::new(Kind::HostNotReady, "Firecracker did not print its version"));
    };
    if (major, minor) < OLDEST || major >= TOO_NEW {
        let text = format!("Firecracker {version} is not supported");
        return Err(RootError::new(Kind::HostNotReady, text)
            .with_hint(HostHint::InstallFirecracker { program: "firecracker".into() }));
    }
    Ok(version.to_owned())
}

/// Refuses a program if users other than root can change it or a folder on its path.
///
/// # Errors
/// `Refused`, naming that file or folder.
pub fn trusted(program: &Path) -> Result<(), RootError> {
    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    for (level, path) in program.ancestors().enumerate() {
        let meta = fs::metadata(path).map_err(|error| RootError::on_path("find", path, &error))?;
        // In a sticky folder, other users cannot replace root's files.
        let sticky = level > 0 && meta.mode() & STICKY != 0;
        if meta.uid() != 0 || (meta.mode() & OTHERS_WRITE != 0 && !sticky) {
            let text = format!(
                "`{}` is not run as root: users other than root can change `{}`",
                program.display(),
                path.display()
            );
            return Err(RootError::new(Kind::Refused, text)
                .with_hint(HostHint::ProtectProgram { path: program.display().to_string() }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn supported_versions() {
        assert_eq!(supported("Firecracker v1.12.1\n\nx").unwrap(), "1.12.1");
        assert_eq!(supported("Firecracker v1.14.0-dev\n").unwrap(), "1.14.0-dev");
        for bad in ["", "Firecracker v1.7.9", "Firecracker v2.0.0", "Firecracker vx", "bash 5"] {
            assert_eq!(supported(bad).unwrap_err().kind, Kind::HostNotReady, "{bad}");
        }
    }

    #[test]
    fn programs_are_resolved_on_every_use() {
        let folder = tempfile::tempdir().unwrap();
        let programs = Programs {
            firecracker: "env".into(),
            jailer: "true".into(),
            search_path: folder.path().into(),
            shim: PathBuf::new(),
        };
        let error = programs.jailed().unwrap_err();
        assert!(error.message.contains("`env`"), "{error:?}");
        // Links are resolved before ownership is checked.
        for name in ["env", "true"] {
            std::os::unix::fs::symlink(format!("/usr/bin/{name}"), folder.path().join(name))
                .unwrap();
        }
        let (firecracker, _) = programs.jailed().unwrap();
        assert!(firecracker.starts_with("/usr/bin"), "{firecracker:?}");
    }

    #[test]
    fn programs_that_other_users_can_change_are_refused() {
        trusted(Path::new("/usr/bin/env")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("firecracker");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(trusted(&path).unwrap_err().kind, Kind::Refused);
    }
}
