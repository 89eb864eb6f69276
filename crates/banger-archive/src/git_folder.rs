//! Names that lead into the folder of a git repository.

/// Whether some file system takes this name for `.git`: in any case of letters, and as HFS+, NTFS
/// and ext4 with `casefold` do.
///
/// A guest that writes a repository's hooks or configuration would run programs on the host. git
/// has the same list (`core.protectHFS`, `core.protectNTFS`), with fewer invisible characters.
pub fn is_git_folder(name: &[u8]) -> bool {
    // Those that are not UTF-8 stay.
    let text = String::from_utf8_lossy(name);
    let plain: String = text.chars().filter(|character| !is_ignorable(*character)).collect();
    // NTFS ignores what follows a colon (a stream), and spaces and dots at the end.
    let plain = plain.split([':', '\\']).next().unwrap_or_default();
    let plain = plain.trim_end_matches([' ', '.']);
    plain.eq_ignore_ascii_case(".git") || plain.eq_ignore_ascii_case("git~1")
}

/// Whether a character is one that comparisons of names skip: Unicode's
/// `Default_Ignorable_Code_Point` (DerivedCoreProperties.txt).
fn is_ignorable(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories_are_known_in_any_form() {
        for name in [
            ".git",
            ".GIT",
            ".Git",
            "GIT~1",
            ".git ",
            ".git. .",
            ".git::$INDEX",
            ".g\u{200c}it",
            "\u{feff}.git",
            ".gi\u{ad}t",
            ".git\\config",
        ] {
            assert!(is_git_folder(name.as_bytes()), "{name:?}");
        }
        for name in [".gitignore", "git", ".github", ".gıt", "git~2", "x.git"] {
            assert!(!is_git_folder(name.as_bytes()), "{name:?}");
        }
        assert!(!is_git_folder(b".git\xff"));
    }
}
