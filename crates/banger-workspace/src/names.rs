//! Paths that a guest names: only those that git itself would check out, with no way out of the
//! work tree or into `.git`.

use banger_archive::is_git_folder;

/// Longest path of a guest, in bytes.
const MAX_LENGTH: usize = 4095;
/// Longest name of a file, in bytes.
const MAX_NAME: usize = 255;

/// Why a path of a guest is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Empty, absolute, with `.`, `..` or an empty part.
    Outside,
    /// Longer than a path of the host may be.
    TooLong,
    /// A part is `.git`, or a name that some file systems take for it.
    GitFolder,
}

impl Refusal {
    /// As a part of a sentence.
    pub fn text(self) -> &'static str {
        match self {
            Self::Outside => "leads out of the work tree",
            Self::TooLong => "is too long",
            Self::GitFolder => "leads into `.git`",
        }
    }
}

/// Checks a path of a guest.
///
/// # Errors
/// Why it must not be written on the host.
pub fn check(path: &[u8]) -> Result<(), Refusal> {
    if path.len() > MAX_LENGTH {
        return Err(Refusal::TooLong);
    }
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." | b".." => return Err(Refusal::Outside),
            part if part.len() > MAX_NAME => return Err(Refusal::TooLong),
            part if part.contains(&0) => return Err(Refusal::Outside),
            part if is_git_folder(part) => return Err(Refusal::GitFolder),
            _ => {}
        }
    }
    Ok(())
}

/// Whether this is the list of submodules, which names addresses to fetch from: changes of it stay
/// in the guest.
pub fn is_submodule_list(path: &[u8]) -> bool {
    path.eq_ignore_ascii_case(b".gitmodules")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_work_tree_and_out_of_git() {
        for path in ["", "/x", "a//b", "a/", "..", "a/../b", "./a", "a/."] {
            assert_eq!(check(path.as_bytes()), Err(Refusal::Outside), "{path}");
        }
        for path in [
            ".git",
            ".GIT/config",
            "a/.Git/hooks/x",
            "git~1",
            "GIT~1/x",
            ".git ",
            ".git. .",
            ".git::$INDEX",
            ".g\u{200c}it/x",
            "\u{feff}.git",
            ".git\\config",
        ] {
            assert_eq!(check(path.as_bytes()), Err(Refusal::GitFolder), "{path}");
        }
        assert!(is_submodule_list(b".GitModules") && !is_submodule_list(b"a/.gitmodules"));
        assert_eq!(check("x".repeat(256).as_bytes()), Err(Refusal::TooLong));
        assert_eq!(check("x/".repeat(3000).as_bytes()), Err(Refusal::TooLong));
        for path in [".gitignore", "a/.gitattributes", "git", ".github/x", "a..b", "..c", "x\u{e9}"]
        {
            assert_eq!(check(path.as_bytes()), Ok(()), "{path}");
        }
        assert_eq!(check(b"\xff\xfe"), Ok(()));
    }
}
