//! Programs that run as root on behalf of a user: only such as no user can replace.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use banger_sys::programs::find_program;

use crate::error::{Kind, RootError};

/// Folders in which the helper looks for Firecracker and its jailer, beside its own.
const FOLDERS: &str = "/usr/local/lib/banger:/usr/lib/banger:/usr/local/bin:/usr/bin";

/// Which programs; where they are is looked up each time, since a user may install them meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// The VMM: a name, or a path.
    pub firecracker: PathBuf,
    /// What puts it into its jail: a name, or a path.
    pub jailer: PathBuf,
    /// Where names are looked up, written as in `PATH`.
    pub search_path: String,
    /// What owns both.
    pub shim: PathBuf,
}

impl Programs {
    /// As the helper finds them: beside itself and in the system's folders.
    ///
    /// # Errors
    /// The helper cannot tell where it is itself.
    pub fn installed() -> Result<Self, RootError> {
        let own = std::env::current_exe()
            .map_err(|error| RootError::system("tell where this program is", &error))?;
        let beside = own.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Self {
            firecracker: "firecracker".into(),
            jailer: "jailer".into(),
            search_path: format!("{}:{FOLDERS}", beside.display()),
            shim: beside.join("banger-shim"),
        })
    }

    /// The VMM with every link followed, and the jailer.
    ///
    /// # Errors
    /// One of them is missing, or a user could replace it.
    pub fn jailed(&self) -> Result<(PathBuf, PathBuf), RootError> {
        let get = |wanted: &Path, name: &str| {
            let path = find_program(wanted, &self.search_path).ok_or_else(|| {
                let text = format!("the program `{}` was not found", wanted.display());
                RootError::new(Kind::HostNotReady, text).with_hint(format!(
                    "put `{name}` of a release of Firecracker into /usr/local/bin"
                ))
            })?;
            let real = fs::canonicalize(&path)
                .map_err(|error| RootError::on_path("find", &path, &error))?;
            trusted(&real)?;
            Ok::<_, RootError>(real)
        };
        Ok((get(&self.firecracker, "firecracker")?, get(&self.jailer, "jailer")?))
    }

    /// Name of the VMM's program: it is part of the jail's path.
    ///
    /// # Errors
    /// Those of [`Self::jailed`].
    pub fn vmm_name(&self) -> Result<String, RootError> {
        let (firecracker, _) = self.jailed()?;
        let name = firecracker.file_name().and_then(|name| name.to_str());
        Ok(name.unwrap_or("firecracker").to_owned())
    }
}

/// Oldest version that finds its devices through ACPI, as our kernels do.
const OLDEST: (u32, u32) = (1, 8);
/// First version that nobody has looked at.
const TOO_NEW: u32 = 2;

/// A program as it was when its version was asked for: path, inode, seconds of its change.
type Seen = (PathBuf, u64, i64);

/// Versions of programs, asked for once for each program.
#[derive(Debug, Clone, Default)]
pub struct Versions(Arc<Mutex<Option<(Seen, String)>>>);

impl Versions {
    /// The version of Firecracker.
    ///
    /// # Errors
    /// A program is missing, is not to be trusted, or is of a version that is not known to work.
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

/// The version in `Firecracker v1.12.1`, if it is one that works.
fn supported(said: &str) -> Result<String, RootError> {
    let word = said.lines().next().and_then(|line| line.strip_prefix("Firecracker v"));
    let version = word.map(str::trim).unwrap_or_default();
    let mut numbers = version.split(['.', '-']).map(|number| number.parse::<u32>().ok());
    let (major, minor) = (numbers.next().flatten(), numbers.next().flatten());
    let (Some(major), Some(minor)) = (major, minor) else {
        return Err(RootError::new(Kind::HostNotReady, "Firecracker did not tell its version"));
    };
    if (major, minor) < OLDEST || major >= TOO_NEW {
        let text = format!("Firecracker {version} is not one that banger works with");
        return Err(RootError::new(Kind::HostNotReady, text)
            .with_hint("install a release from 1.8 on, before 2.0"));
    }
    Ok(version.to_owned())
}

/// Refuses a program that others than root could change: it, or a folder on the way to it.
///
/// # Errors
/// Which of them, and what to do.
pub fn trusted(program: &Path) -> Result<(), RootError> {
    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    for (level, path) in program.ancestors().enumerate() {
        let meta = fs::metadata(path).map_err(|error| RootError::on_path("find", path, &error))?;
        // In a sticky folder nobody else can replace what is root's.
        let sticky = level > 0 && meta.mode() & STICKY != 0;
        if meta.uid() != 0 || (meta.mode() & OTHERS_WRITE != 0 && !sticky) {
            let text = format!(
                "`{}` is not run as root: others than root can change `{}`",
                program.display(),
                path.display()
            );
            return Err(RootError::new(Kind::Refused, text)
                .with_hint("install it where only root can write, such as /usr/local/bin"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn versions_that_work() {
        assert_eq!(supported("Firecracker v1.12.1\n\nx").unwrap(), "1.12.1");
        assert_eq!(supported("Firecracker v1.14.0-dev\n").unwrap(), "1.14.0-dev");
        for bad in ["", "Firecracker v1.7.9", "Firecracker v2.0.0", "Firecracker vx", "bash 5"] {
            assert_eq!(supported(bad).unwrap_err().kind, Kind::HostNotReady, "{bad}");
        }
    }

    #[test]
    fn programs_are_looked_up_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let programs = Programs {
            firecracker: "env".into(),
            jailer: "true".into(),
            search_path: folder.path().display().to_string(),
            shim: PathBuf::new(),
        };
        let error = programs.jailed().unwrap_err();
        assert!(error.message.contains("`env`"), "{error:?}");
        // Links are followed before it is asked who could change them.
        for name in ["env", "true"] {
            std::os::unix::fs::symlink(format!("/usr/bin/{name}"), folder.path().join(name))
                .unwrap();
        }
        let (firecracker, _) = programs.jailed().unwrap();
        assert!(firecracker.starts_with("/usr/bin"), "{firecracker:?}");
    }

    #[test]
    fn only_what_nobody_else_can_change_is_run() {
        trusted(Path::new("/usr/bin/env")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("firecracker");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(trusted(&path).unwrap_err().kind, Kind::Refused);
    }
}
