//! Which files of this host an agent in a machine may have its editor read and write.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use banger_agents::acp::Files;
use banger_workspace::names;

/// A folder of this host, without symlinks in its path.
pub struct Checkout {
    pub top: PathBuf,
}

impl Files for Checkout {
    fn beneath(&self, path: &Path) -> Option<PathBuf> {
        match path.strip_prefix(&self.top) {
            Ok(beneath) => Some(beneath.to_owned()),
            // The editor may know the folder by another path.
            Err(_) => path.canonicalize().ok()?.strip_prefix(&self.top).ok().map(Path::to_owned),
        }
    }

    fn admit(&self, beneath: &Path) -> Result<(), String> {
        names::check(beneath.as_os_str().as_bytes()).map_err(|why| why.text().to_owned())?;
        // Where symlinks of the repository lead.
        let mut existing = self.top.join(beneath);
        let mut missing = PathBuf::new();
        loop {
            match existing.canonicalize() {
                Ok(real) => return self.admit_real(&real.join(&missing)),
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(format!("cannot be looked at: {error}"));
                }
                Err(_) if existing.symlink_metadata().is_ok() => {
                    return Err("is a symbolic link that leads to nothing".to_owned());
                }
                Err(_) => {}
            }
            let Some(name) = existing.file_name().map(ToOwned::to_owned) else {
                return Err("is not in the repository".to_owned());
            };
            missing = match missing.as_os_str().is_empty() {
                true => name.into(),
                false => Path::new(&name).join(missing),
            };
            existing.pop();
        }
    }
}

impl Checkout {
    fn admit_real(&self, path: &Path) -> Result<(), String> {
        let Ok(beneath) = path.strip_prefix(&self.top) else {
            return Err("leads out of the repository".to_owned());
        };
        // `join` with nothing missing adds a slash.
        let beneath: PathBuf = beneath.components().collect();
        names::check(beneath.as_os_str().as_bytes()).map_err(|why| why.text().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn symlinks_lead_neither_out_of_the_repository_nor_into_git() {
        let folder = tempfile::tempdir().unwrap();
        let outer = folder.path().canonicalize().unwrap();
        let top = outer.join("app");
        fs::create_dir_all(top.join("src")).unwrap();
        fs::create_dir_all(top.join(".git")).unwrap();
        fs::write(outer.join("secret"), "").unwrap();
        fs::write(top.join("src/a"), "").unwrap();
        for (target, link) in [
            ("src/a", "inside"),
            ("../secret", "outside"),
            ("..", "up"),
            (".git", "git"),
            ("nothing", "dangling"),
            ("loop", "loop"),
        ] {
            symlink(target, top.join(link)).unwrap();
        }
        let checkout = Checkout { top: top.clone() };
        for path in ["src/a", "src/new", "new/folder/file", "inside", ".gitignore"] {
            assert_eq!(checkout.admit(Path::new(path)), Ok(()), "{path}");
        }
        for path in [
            "",
            "outside",
            "up/secret",
            "up/x",
            "git/config",
            "git/new",
            ".git/config",
            "dangling",
            "loop",
            "src/a/b",
            ".GIT/hooks/x",
        ] {
            assert!(checkout.admit(Path::new(path)).is_err(), "{path}");
        }
        symlink(&top, outer.join("link")).unwrap();
        for path in [top.join("src"), outer.join("link/src")] {
            assert_eq!(checkout.beneath(&path).as_deref(), Some(Path::new("src")));
        }
        assert_eq!(checkout.beneath(&outer), None);
        assert_eq!(checkout.beneath(Path::new("app")), None);
    }
}
