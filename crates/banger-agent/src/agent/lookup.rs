//! Where a program is: `PATH`, and the folders of distributions that keep programs elsewhere.
//!
//! NixOS and Guix have nothing in `/bin` but a shell, or not even that; their init makes
//! `/run/current-system` while it boots.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::boot::uptime_ms;

/// Search path of commands, unless the image, the configuration or the request sets one.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The system that the init of NixOS and Guix activates.
const SYSTEM: &str = "/run/current-system";

/// Folders of programs beneath and beside it; each is searched where it is there.
const SYSTEM_FOLDERS: [&str; 6] = [
    "/run/wrappers/bin",
    "/run/setuid-programs",
    "/run/current-system/sw/bin",
    "/run/current-system/profile/bin",
    "/run/current-system/profile/sbin",
    "/nix/var/nix/profiles/default/bin",
];

/// An image with one of these has its programs there.
const STORES: [&str; 2] = ["/nix/store", "/gnu/store"];

/// How long after the kernel's start the init may take to make [`SYSTEM`], in milliseconds.
const BOOT_MAX_MS: u64 = 120_000;

/// Longest wait for it, and time between two looks: another program makes it.
const WAIT_MAX: Duration = Duration::from_secs(30);
const WAIT_STEP: Duration = Duration::from_millis(20);

/// [`DEFAULT_PATH`], with the folders of this image's distribution.
pub fn default_path() -> String {
    let mut path = DEFAULT_PATH.to_owned();
    for folder in SYSTEM_FOLDERS.iter().filter(|folder| Path::new(folder).is_dir()) {
        path.push(':');
        path.push_str(folder);
    }
    path
}

/// Waits until the image's programs are where they will be, on a booting NixOS or Guix.
pub fn wait_for_system() {
    let exists = |path: &str| Path::new(path).exists();
    let deadline = Instant::now() + WAIT_MAX;
    while !exists(SYSTEM)
        && STORES.into_iter().any(exists)
        && uptime_ms() < BOOT_MAX_MS
        && Instant::now() < deadline
    {
        std::thread::sleep(WAIT_STEP);
    }
}

/// The files that `program` may mean, in order: itself where it has a slash, else one in each
/// folder of `path`. At least one; empty where a name or folder contains a zero byte.
pub fn candidates(program: &OsStr, path: &OsStr) -> Vec<CString> {
    let program = program.as_bytes();
    if program.is_empty() || program.contains(&b'/') {
        return CString::new(program).into_iter().collect();
    }
    let in_folder = |folder: &[u8]| {
        // An empty part is the working folder (environ(7)).
        let folder = if folder.is_empty() { b".".as_slice() } else { folder };
        CString::new([folder, b"/", program].concat()).ok()
    };
    path.as_bytes().split(|byte| *byte == b':').filter_map(in_folder).collect()
}

/// Removes the candidates before the first file that exists, because a failing execve(2) costs
/// many times a stat(2). Returns whether one exists; if not, all stay.
pub fn skip_missing(candidates: &mut Vec<CString>) -> bool {
    let exists = |path: &CString| Path::new(OsStr::from_bytes(path.as_bytes())).exists();
    let Some(first) = candidates.iter().position(exists) else { return false };
    candidates.drain(..first);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(program: &str, path: &str) -> Vec<String> {
        let paths = candidates(OsStr::new(program), OsStr::new(path));
        paths.into_iter().map(|path| path.into_string().unwrap()).collect()
    }

    #[test]
    fn names_are_looked_for_in_order() {
        assert_eq!(found("ls", "/a:/b"), ["/a/ls", "/b/ls"]);
        assert_eq!(found("ls", "/a::/b"), ["/a/ls", "./ls", "/b/ls"]);
        assert_eq!(found("ls", ""), ["./ls"]);
    }

    #[test]
    fn a_path_is_itself() {
        for program in ["/bin/ls", "./ls", "a/b", ""] {
            assert_eq!(found(program, "/a"), [program]);
        }
    }

    #[test]
    fn missing_candidates_before_the_first_file_are_skipped() {
        let mut paths = candidates(OsStr::new("sh"), OsStr::new("/missing:/bin:/missing"));
        assert!(skip_missing(&mut paths));
        assert_eq!(paths, [c"/bin/sh".to_owned(), c"/missing/sh".to_owned()]);
        let mut paths = candidates(OsStr::new("no-such-program"), OsStr::new("/missing:/bin"));
        assert!(!skip_missing(&mut paths));
        assert_eq!(paths.len(), 2);
    }

    #[test]
    fn only_folders_that_exist_are_added() {
        let path = default_path();
        assert!(path.starts_with(DEFAULT_PATH));
        assert!(path.split(':').skip(6).all(|folder| Path::new(folder).is_dir()), "{path}");
    }
}
