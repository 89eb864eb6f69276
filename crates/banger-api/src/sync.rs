//! Live folders: a folder of the host and a folder of the guest that are kept alike (docs/sync.md).

use serde::{Deserialize, Serialize};

use crate::ByteString;

/// Maximum number of live folders of a VM.
pub const MAX_FOLDERS: usize = 16;
/// Maximum number of patterns of a live folder.
pub const MAX_PATTERNS: usize = 64;
/// Maximum length of a pattern in bytes.
pub const MAX_PATTERN: usize = 256;
/// Maximum length of a path in bytes.
const MAX_PATH: usize = 4095;

/// A live folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SyncFolder {
    /// Absolute path of a folder of the host.
    pub host: ByteString,
    /// Absolute path of a folder of the guest; made if it is missing.
    pub guest: ByteString,
    /// Patterns of files that are left out, as in `.gitignore`; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub ignore: Vec<String>,
}

/// Reason why a folder cannot be a live folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSync {
    /// The path is relative, too long, the root folder, or has `..` or a zero byte.
    #[error("`{0}` is not the absolute path of a folder that can be kept alike")]
    Path(String),
    /// Two folders of the guest are the same, or one is in the other.
    #[error("`{0}` and `{1}` of the guest overlap")]
    Overlap(String, String),
    /// Too many folders.
    #[error("{0} live folders: a VM has at most {MAX_FOLDERS}")]
    TooMany(usize),
    /// Too many patterns, or one that is empty, too long or has a line end.
    #[error("a live folder has at most {MAX_PATTERNS} patterns of at most {MAX_PATTERN} bytes")]
    Patterns,
    /// There is no such folder to remove.
    #[error("there is no live folder `{0}`")]
    Unknown(String),
}

/// Checks the live folders of a VM.
///
/// # Errors
/// The first one that cannot be kept alike.
pub fn check(folders: &[SyncFolder]) -> Result<(), BadSync> {
    if folders.len() > MAX_FOLDERS {
        return Err(BadSync::TooMany(folders.len()));
    }
    for folder in folders {
        for path in [&folder.host, &folder.guest] {
            check_path(path)?;
        }
        let bad =
            |one: &String| one.is_empty() || one.len() > MAX_PATTERN || one.contains(['\n', '\0']);
        if folder.ignore.len() > MAX_PATTERNS || folder.ignore.iter().any(bad) {
            return Err(BadSync::Patterns);
        }
    }
    for (at, one) in folders.iter().enumerate() {
        for other in folders.iter().skip(at + 1) {
            let (a, b) = (one.guest.as_path(), other.guest.as_path());
            if a.starts_with(b) || b.starts_with(a) {
                return Err(BadSync::Overlap(shown(&one.guest), shown(&other.guest)));
            }
        }
    }
    Ok(())
}

fn check_path(path: &ByteString) -> Result<(), BadSync> {
    use std::path::Component;
    let bytes = path.as_bytes();
    let parts = || path.as_path().components();
    let is_good = bytes.starts_with(b"/")
        && bytes.len() <= MAX_PATH
        && !bytes.contains(&0)
        && parts().count() > 1
        && parts().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if is_good { Ok(()) } else { Err(BadSync::Path(shown(path))) }
}

fn shown(path: &ByteString) -> String {
    crate::excerpt(&path.to_string_lossy()).to_string()
}

/// The live folders after a change: `remove` names folders of the host or of the guest.
///
/// # Errors
/// A folder to remove that is unknown, or the result cannot be kept alike.
pub fn changed(
    now: &[SyncFolder],
    add: &[SyncFolder],
    remove: &[ByteString],
) -> Result<Vec<SyncFolder>, BadSync> {
    let is = |folder: &SyncFolder, path: &ByteString| folder.host == *path || folder.guest == *path;
    if let Some(unknown) = remove.iter().find(|path| !now.iter().any(|folder| is(folder, path))) {
        return Err(BadSync::Unknown(shown(unknown)));
    }
    let stays = |folder: &&SyncFolder| !remove.iter().any(|path| is(folder, path));
    let mut folders: Vec<SyncFolder> = now.iter().filter(stays).cloned().collect();
    for folder in add {
        match folders.iter_mut().find(|known| known.guest == folder.guest) {
            Some(known) => *known = folder.clone(),
            None => folders.push(folder.clone()),
        }
    }
    check(&folders)?;
    Ok(folders)
}

/// What a live folder does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    /// The VM does not run, or its agent does not answer yet.
    #[default]
    Waiting,
    /// Both folders are listed.
    Scanning,
    /// Changes are copied.
    Copying,
    /// Both folders are alike, except for problems, and are watched.
    Watching,
    /// One of the folders is missing or lost its whole content; nothing is done.
    Halted,
}

impl SyncState {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Scanning => "scanning",
            Self::Copying => "copying",
            Self::Watching => "watching",
            Self::Halted => "halted",
        }
    }
}

/// A live folder and its state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SyncView {
    /// The folder.
    #[serde(flatten)]
    pub folder: SyncFolder,
    /// What it does.
    pub state: SyncState,
    /// Why it waits or halts, or what a user should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Number of files, symlinks and folders.
    pub files: u64,
    /// Changes that are still to be made in this round.
    pub pending: u64,
    /// Milliseconds since the first change that is not copied yet; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind_ms: Option<u64>,
    /// Milliseconds that the last changes took from their notice to their copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<u64>,
    /// Number of times that both folders were found or made alike since the session began.
    pub rounds: u64,
    /// Files that were set aside because both sides changed them; at most 50.
    pub conflicts: Vec<ByteString>,
    /// What could not be copied or is left alone, with the reason; at most 50.
    pub problems: Vec<SyncProblem>,
}

/// A file or folder that is not kept alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SyncProblem {
    /// Path in the folder.
    pub path: ByteString,
    /// `host` or `guest`: the side with the problem.
    pub side: String,
    /// Why.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(host: &str, guest: &str) -> SyncFolder {
        SyncFolder { host: host.into(), guest: guest.into(), ignore: Vec::new() }
    }

    #[test]
    fn folders_are_absolute_and_do_not_overlap() {
        let good = [folder("/home/me/a", "/root/a"), folder("/home/me/a", "/root/ab")];
        assert_eq!(check(&good), Ok(()));
        for (host, guest) in
            [("a", "/b"), ("/", "/b"), ("/a", "/"), ("/a/../b", "/b"), ("/a", "/b\0"), ("", "/b")]
        {
            assert!(check(&[folder(host, guest)]).is_err(), "{host} {guest}");
        }
        for (one, other) in [("/a", "/a"), ("/a", "/a/b"), ("/a/b", "/a")] {
            let both = [folder("/x", one), folder("/y", other)];
            assert!(matches!(check(&both), Err(BadSync::Overlap(..))), "{one} {other}");
        }
        let bad = SyncFolder { ignore: vec!["a\nb".into()], ..folder("/a", "/b") };
        assert_eq!(check(&[bad]), Err(BadSync::Patterns));
        assert_eq!(check(&vec![folder("/a", "/b"); 17]), Err(BadSync::TooMany(17)));
    }

    #[test]
    fn changes_add_replace_and_remove() {
        let now = [folder("/a", "/root/a"), folder("/b", "/root/b")];
        let after = changed(&now, &[folder("/c", "/root/b")], &["/a".into()]).unwrap();
        assert_eq!(after, [folder("/c", "/root/b")]);
        let after = changed(&now, &[], &["/root/b".into()]).unwrap();
        assert_eq!(after, [folder("/a", "/root/a")]);
        assert_eq!(changed(&now, &[], &["/x".into()]), Err(BadSync::Unknown("/x".into())));
    }
}
