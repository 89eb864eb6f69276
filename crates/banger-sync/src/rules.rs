//! Ignored files: the rules of `.gitignore` files and of the user, as git reads them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::tree;

/// Name of the files with rules.
pub const FILE: &[u8] = b".gitignore";
/// Most bytes that are read of one such file.
pub const MAX_BYTES: u64 = 1 << 20;
/// Size of such a file from which on it is not read.
pub const MAX_READ: u64 = 64 << 20;

/// The rules of all folders.
#[derive(Debug, Default)]
pub struct Rules {
    user: Option<Gitignore>,
    /// By path of the folder, with the content of its file.
    folders: BTreeMap<Vec<u8>, (Vec<u8>, Gitignore)>,
}

impl Rules {
    /// Rules with these patterns of the user, which come after those of all files.
    ///
    /// # Errors
    /// The first pattern that is malformed, with the problem.
    pub fn new(patterns: &[String]) -> Result<Self, (String, String)> {
        let mut builder = GitignoreBuilder::new("");
        for pattern in patterns {
            let added = builder.add_line(None, pattern);
            added.map_err(|error| (pattern.clone(), error.to_string()))?;
        }
        let user = match builder.build() {
            Ok(rules) => (!patterns.is_empty()).then_some(rules),
            Err(error) => return Err((patterns.join(" "), error.to_string())),
        };
        Ok(Self { user, folders: BTreeMap::new() })
    }

    /// Takes the rules of a folder's file; `None`: it has none. Malformed lines are left out, as
    /// git does. Returns whether the rules changed.
    pub fn set(&mut self, folder: &[u8], content: Option<Vec<u8>>) -> bool {
        let Some(content) = content else { return self.folders.remove(folder).is_some() };
        if self.folders.get(folder).is_some_and(|(known, _)| *known == content) {
            return false;
        }
        let mut builder = GitignoreBuilder::new(path(folder));
        for line in String::from_utf8_lossy(&content).lines() {
            let _ = builder.add_line(None, line);
        }
        match builder.build() {
            Ok(rules) => drop(self.folders.insert(folder.to_vec(), (content, rules))),
            Err(_) => return self.folders.remove(folder).is_some(),
        }
        true
    }

    /// Whether a file of a folder that is not ignored itself is ignored. The last file with a rule
    /// for it decides, from the folder up to the root.
    pub fn is_ignored(&self, file: &[u8], is_folder: bool) -> bool {
        if let Some(user) = &self.user {
            let found = user.matched(path(file), is_folder);
            if !found.is_none() {
                return found.is_ignore();
            }
        }
        let (mut folder, _) = tree::split(file);
        loop {
            if let Some((_, rules)) = self.folders.get(folder) {
                let found = rules.matched(path(file), is_folder);
                if !found.is_none() {
                    return found.is_ignore();
                }
            }
            if folder.is_empty() {
                return false;
            }
            folder = tree::split(folder).0;
        }
    }
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_those_of_git() {
        let mut rules = Rules::new(&["*.tmp".into(), "!keep.tmp".into()]).unwrap();
        let root = b"target/\n*.log\n/only-here\n# text\n".to_vec();
        assert!(rules.set(b"", Some(root.clone())));
        assert!(!rules.set(b"", Some(root)), "the same content");
        rules.set(b"sub", Some(b"!wanted.log\n/local\n".to_vec()));
        for (file, is_folder, ignored) in [
            ("target", true, true),
            ("target", false, false),
            ("sub/target", true, true),
            ("a.log", false, true),
            ("sub/a.log", false, true),
            ("sub/wanted.log", false, false),
            ("only-here", false, true),
            ("sub/only-here", false, false),
            ("sub/local", false, true),
            ("local", false, false),
            ("x.tmp", false, true),
            ("sub/keep.tmp", false, false),
            ("src", true, false),
        ] {
            assert_eq!(rules.is_ignored(file.as_bytes(), is_folder), ignored, "{file}");
        }
        rules.set(b"", None);
        assert!(!rules.is_ignored(b"a.log", false));
    }

    #[test]
    fn malformed_patterns_of_the_user_are_named() {
        let (pattern, _) = Rules::new(&["ok".into(), "[z-a]".into()]).unwrap_err();
        assert_eq!(pattern, "[z-a]");
    }
}
