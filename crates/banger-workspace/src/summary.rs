//! The state of a workspace as programs get it, in JSON.

use serde::Serialize;

use crate::compare::{Change, Effect};
use crate::guest::{Left, MAX_COMMITS, State};
use crate::store::Record;
use crate::workspace::Status;

/// Both sides. Text of the guest may contain any characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Top folder of the work tree on this host.
    pub repository: String,
    /// Folder in the guest.
    pub folder: String,
    /// The commit at HEAD in the guest.
    pub head: Option<String>,
    /// Its branch there.
    pub branch: Option<String>,
    /// The commit that was sent.
    pub sent_head: Option<String>,
    /// Commits of the guest since then, newest first.
    pub commits: Vec<Commit>,
    /// Files that the guest changed.
    pub machine: Vec<Changed>,
    /// Files that this host changed.
    pub host: Vec<Changed>,
    /// Files that both sides changed.
    pub conflicts: Vec<String>,
    /// Files that stay in the guest.
    pub left_out: Vec<LeftOut>,
}

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Commit {
    /// Its object.
    pub id: String,
    /// First line of its message.
    pub subject: String,
}

/// A file that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Path in the work tree.
    pub path: String,
    /// `added`, `modified` or `deleted`.
    pub effect: &'static str,
}

/// A file that stays in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Path in the work tree.
    pub path: String,
    /// Why.
    pub reason: String,
}

impl Effect {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Modified => "modified",
            Self::Deleted => "deleted",
        }
    }
}

impl Summary {
    /// The summary of what was compared.
    pub fn new(record: &Record, status: &Status) -> Self {
        let Status { guest, changes, .. } = status;
        Self {
            repository: record.repository.display().to_string(),
            folder: text(&record.folder),
            head: guest.head.clone(),
            branch: guest.branch.as_deref().map(short_branch),
            sent_head: record.head.clone(),
            commits: commits(guest),
            machine: changed(&changes.guest),
            host: changed(&changes.host),
            conflicts: changes.conflicts.iter().map(|path| text(path)).collect(),
            left_out: left_out(guest),
        }
    }
}

/// Files that differ.
pub fn changed(changes: &[Change]) -> Vec<Changed> {
    let one =
        |change: &Change| Changed { path: text(&change.path), effect: change.effect().as_str() };
    changes.iter().map(one).collect()
}

/// Files that stay in the guest.
pub fn left_out(state: &State) -> Vec<LeftOut> {
    let one = |left: &Left| LeftOut { path: text(&left.path), reason: left.why.clone() };
    state.left.iter().map(one).collect()
}

fn commits(state: &State) -> Vec<Commit> {
    let commits = state.commits.iter().take(MAX_COMMITS);
    commits.map(|one| Commit { id: one.id.clone(), subject: text(&one.subject) }).collect()
}

/// The name of a branch without `refs/heads/`.
pub fn short_branch(branch: &[u8]) -> String {
    text(branch.strip_prefix(b"refs/heads/").unwrap_or(branch))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
