//! The programs under test, as `cargo build` left them.

use std::fs;
use std::path::{Path, PathBuf};

/// Folder with the programs of this build: that of the test itself, without `deps`.
fn folder() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    let folder = test.parent().unwrap_or(Path::new("."));
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    folder.to_owned()
}

/// A program of this build.
///
/// # Panics
/// The program is not built: run `cargo build --workspace` first.
pub fn program(name: &str) -> PathBuf {
    let path = folder().join(name);
    assert!(path.exists(), "{} is missing: run `make test`, or build first", path.display());
    path
}

/// The fake guest under a name that selects its behavior: a link beside the programs.
///
/// # Panics
/// The link cannot be created.
pub fn fake_guest(behavior: &str) -> PathBuf {
    let fakes = folder().join("fakes");
    let named = fakes.join(format!("fake-guest-{behavior}"));
    let linked = fs::create_dir_all(&fakes)
        .and_then(|()| std::os::unix::fs::symlink(program("fake-guest"), &named));
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            panic!("cannot link the fake guest to {}: {error}", named.display())
        }
        _ => named,
    }
}

/// The fake Firecracker or jailer, in this folder, under a name that selects its behavior. It is a
/// copy: the helper checks the resolved path, which only root may write.
///
/// # Panics
/// The copy cannot be made.
pub fn fake_firecracker(folder: &Path, behavior: &str) -> PathBuf {
    let named = folder.join(format!("fake-firecracker-{behavior}"));
    let copied = fs::create_dir_all(folder)
        .and_then(|()| fs::copy(program("fake-firecracker"), &named).map(|_| ()));
    if let Err(error) = copied {
        panic!("cannot copy the fake Firecracker to {}: {error}", named.display());
    }
    named
}
