//! The state of a live folder in words.

use std::io;

use banger_api::sync::{SyncFolder, SyncProblem, SyncState, SyncView};
use banger_sync::reconcile::Place;
use banger_sync::{End, Phase, Status};

/// Why a folder is not kept alike at the moment.
#[derive(Debug)]
pub struct Problem {
    pub message: String,
    /// Whether a user has to do something first.
    pub halted: bool,
}

impl Problem {
    /// It is tried again.
    pub fn wait(message: String) -> Self {
        Self { message, halted: false }
    }

    /// The file of the state.
    pub fn state(error: io::Error) -> Self {
        Self::wait(format!("the state of the live folder cannot be kept: {error}"))
    }

    /// The host's folder cannot be used.
    pub fn host_folder(error: &io::Error, folder: &SyncFolder) -> Self {
        let host = &folder.host;
        let message = match std::fs::symlink_metadata(host.as_path()) {
            Ok(meta) if meta.is_symlink() => format!(
                "`{host}` of this host is a symlink now, and nothing was copied: `banger vm set VM \
                 --unsync {host}` and `--sync` again take the folder that it leads to"
            ),
            Ok(meta) if meta.is_dir() => format!("`{host}` of this host cannot be opened: {error}"),
            _ => format!("this host has no folder `{host}`"),
        };
        Self { message, halted: true }
    }

    /// The guest's folder is missing.
    pub fn guest_missing(folder: &SyncFolder) -> Self {
        let guest = &folder.guest;
        let message = format!(
            "the guest has no folder `{guest}` any more, and nothing was removed on this host: \
             {}",
            begin_anew(folder)
        );
        Self { message, halted: true }
    }
}

fn begin_anew(folder: &SyncFolder) -> String {
    format!(
        "`banger vm set VM --unsync {}` and `--sync` again copy what the other side has",
        folder.guest
    )
}

/// Whether a session that ended is to begin again; `Ok` if it was stopped.
pub fn ended(end: End, folder: &SyncFolder) -> Result<(), Problem> {
    match end {
        End::Stopped => Ok(()),
        End::HostFolder(error) => Err(Problem::host_folder(&error, folder)),
        End::RootGone(place) => {
            let text = format!("the {}'s folder was removed or renamed", place.as_str());
            Err(Problem::wait(text))
        }
        End::Failed(error) => Err(Problem::wait(error.to_string())),
    }
}

/// The view of a folder with the status of its session, if there is one.
pub fn view(
    folder: SyncFolder,
    status: Option<Status>,
    message: Option<String>,
    halted: bool,
) -> SyncView {
    let Some(status) = status else {
        let state = if halted { SyncState::Halted } else { SyncState::Waiting };
        return SyncView { folder, state, message, ..SyncView::default() };
    };
    let (state, pending) = match status.phase {
        Phase::Scanning => (SyncState::Scanning, 0),
        Phase::Copying { done, total, .. } => (SyncState::Copying, total.saturating_sub(done)),
        Phase::Watching => (SyncState::Watching, 0),
        Phase::Halted(_) => (SyncState::Halted, 0),
    };
    let message = match (status.phase, status.unwatched.as_slice()) {
        (Phase::Halted(place), _) => Some(emptied(place, &folder)),
        (_, [place, ..]) => Some(format!(
            "the {} watches too many folders (fs.inotify.max_user_watches): changes are found \
             every 5 s",
            place.as_str()
        )),
        _ => None,
    };
    let ms = |since: std::time::Instant| u64::try_from(since.elapsed().as_millis()).ok();
    let problem = |problem: banger_sync::Problem| SyncProblem {
        path: problem.path.into(),
        side: problem.on.as_str().to_owned(),
        reason: banger_api::excerpt(&problem.why).to_string(),
    };
    SyncView {
        folder,
        state,
        message,
        files: status.files as u64,
        pending: pending as u64,
        behind_ms: status.behind_since.and_then(ms),
        lag_ms: status.lag_ms,
        rounds: status.rounds,
        conflicts: status.conflicts.into_iter().map(Into::into).collect(),
        problems: status.problems.into_iter().map(problem).collect(),
    }
}

fn emptied(place: Place, folder: &SyncFolder) -> String {
    format!(
        "the {}'s folder lost its whole content, and nothing was removed on the other side: {}",
        place.as_str(),
        begin_anew(folder)
    )
}
