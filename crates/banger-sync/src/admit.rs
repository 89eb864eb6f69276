//! What of a listing takes part, decided by name and target alone.

use crate::tree::{Left, split};

/// Longest path, in bytes.
const MAX_PATH: usize = 4096;
/// Longest name, in bytes.
const MAX_NAME: usize = 255;
/// Most folders that a path may be deep.
const MAX_DEPTH: usize = 128;
/// Largest file, in bytes: other files wait while it is read.
pub const MAX_FILE: u64 = 4 << 30;
/// Most files and folders of a side.
pub const MAX_NODES: usize = 1_000_000;

/// Whether a name is one that a folder can have.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name != b"."
        && name != b".."
        && !name.contains(&b'/')
        && !name.contains(&0)
}

/// Whether a name never takes part: a guest that writes the repository's configuration or hooks
/// would run programs on the host. In any form that a file system takes for it.
pub fn is_never(name: &[u8]) -> bool {
    banger_archive::is_git_folder(name)
}

/// Whether a path is too long to take part.
pub fn is_too_long(path: &[u8]) -> bool {
    path.len() > MAX_PATH || path.iter().filter(|byte| **byte == b'/').count() >= MAX_DEPTH
}

/// Whether a symlink at `path` leads nowhere but into the folder: a relative target that goes up
/// at its beginning only, and not beyond the folder. After a name, `..` may lead anywhere: the name
/// may be another symlink.
///
/// # Errors
/// It leads out.
pub fn check_link(path: &[u8], target: &[u8]) -> Result<(), Left> {
    if target.is_empty() || target.len() > MAX_PATH {
        return Err(Left::TooLong);
    }
    if target.starts_with(b"/") || target.contains(&0) {
        return Err(Left::LeadsOut);
    }
    let (parent, _) = split(path);
    let mut up = crate::tree::parts(parent).count();
    let mut named = false;
    for part in crate::tree::parts(target) {
        match part {
            b"." => {}
            b".." if named || up == 0 => return Err(Left::LeadsOut),
            b".." => up -= 1,
            _ => named = true,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_stay_inside_take_part() {
        for (path, target) in
            [("a", "b"), ("a", "./b/c"), ("d/a", "../b"), ("d/e/a", "../../b/c"), ("d/a", "..")]
        {
            assert_eq!(check_link(path.as_bytes(), target.as_bytes()), Ok(()), "{path} {target}");
        }
        for (path, target) in [
            ("a", "/etc/passwd"),
            ("a", ".."),
            ("a", "../b"),
            ("d/a", "../../b"),
            // `b` may be a symlink to the folder itself.
            ("a", "b/.."),
            ("d/a", "../b/../c"),
            ("a", ""),
            ("a", "b\0"),
        ] {
            assert!(check_link(path.as_bytes(), target.as_bytes()).is_err(), "{path} {target}");
        }
    }

    #[test]
    fn names_of_repositories_never_take_part() {
        for name in [".git", ".GIT", ".git ", ".g\u{200c}it", "GIT~1"] {
            assert!(is_never(name.as_bytes()), "{name}");
        }
        for name in [".gitignore", "git", ".github"] {
            assert!(!is_never(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn names_are_names() {
        for name in ["", ".", "..", "a/b", "a\0", &"n".repeat(256)] {
            assert!(!is_name(name.as_bytes()), "{name}");
        }
        assert!(is_name(b"\xff\n"));
        assert!(is_too_long(&b"a/".repeat(129)) && !is_too_long(b"a/b"));
    }
}
