//! The state of a session, as it is shown.

use std::time::Instant;

use crate::reconcile::Place;
use crate::side_tree::SideTree;
use crate::transfer::Problem;

/// Most paths in a status.
pub(crate) const MAX_SHOWN: usize = 50;

/// What a session does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// It lists the folders.
    #[default]
    Scanning,
    /// It copies.
    Copying {
        /// Changes that were begun.
        done: usize,
        /// Number of changes.
        total: usize,
        /// Bytes copied.
        bytes: u64,
    },
    /// Both folders are alike, except for the problems.
    Watching,
    /// The folder of one side has no content any more; nothing is done until it has, or the base
    /// is removed.
    Halted(Place),
}

/// State of a session.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// What it does.
    pub phase: Phase,
    /// Files, symlinks and folders on the host.
    pub files: usize,
    /// Files that were set aside and are still there.
    pub conflicts: Vec<Vec<u8>>,
    /// What could not be done, or is left alone.
    pub problems: Vec<Problem>,
    /// Number of rounds after which both folders were alike.
    pub rounds: u64,
    /// Milliseconds between the first notice of a change and its copy, in the last round.
    pub lag_ms: Option<u64>,
    /// When the first change was noticed that is not copied yet.
    pub behind_since: Option<Instant>,
    /// Whether a part of the folders is not watched: they are looked at every few seconds.
    pub unwatched: Vec<Place>,
}

/// Collects conflicts, of the guest's tree only where the host's has none, and what is left alone.
pub(crate) fn look(
    tree: &SideTree,
    place: Place,
    conflicts: &mut Vec<Vec<u8>>,
    problems: &mut Vec<Problem>,
) {
    for (path, note) in tree.notes() {
        if note.is_conflict && conflicts.len() < MAX_SHOWN && !conflicts.contains(path) {
            conflicts.push(path.clone());
        }
        if let Some(left) = note.left
            && problems.len() < MAX_SHOWN
        {
            let why = left.reason().to_owned();
            problems.push(Problem { path: path.clone(), on: place, why });
        }
    }
}
