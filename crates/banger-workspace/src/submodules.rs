//! Submodules of a repository, each sent as a repository of its own at its path. Nothing is
//! fetched: what is not checked out on this host is not sent.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use banger_api::{ApiError, ErrorCode, Hint};

use crate::repository::Repository;
use crate::snapshot::{Options, Snapshot, Submodules};

/// Most submodules of a repository, with those of its submodules.
const MAX_SUBMODULES: usize = 500;
/// Most submodules in each other.
const MAX_DEPTH: usize = 8;

/// A submodule that is sent.
#[derive(Debug, Clone)]
pub struct Submodule {
    /// Its path from the top folder of the outermost repository.
    pub path: PathBuf,
    /// The repository.
    pub repository: Repository,
    /// What is sent of it.
    pub snapshot: Snapshot,
}

/// The submodules of a repository, outer ones first. Those that are not checked out add a warning
/// to `snapshot`.
///
/// # Errors
/// One that leads out of the repository, too many; git's.
pub fn collect(
    top: &Repository,
    snapshot: &mut Snapshot,
    options: &Options,
) -> Result<Vec<Submodule>, ApiError> {
    let mut found: Vec<Submodule> = Vec::new();
    let homes = [canonical(top.top())?, canonical(&top.common_dir()?)?];
    let mut warnings = Vec::new();
    let outer = (PathBuf::new(), top.clone(), snapshot.submodules.clone(), 0);
    let mut queue = std::collections::VecDeque::from([outer]);
    while let Some((prefix, repository, submodules, depth)) = queue.pop_front() {
        for (path, commit) in submodules {
            let shown = prefix.join(OsStr::from_bytes(&path));
            if depth >= MAX_DEPTH || found.len() >= MAX_SUBMODULES {
                let text = format!(
                    "`{}` has more than {MAX_SUBMODULES} submodules, or more than {MAX_DEPTH} in \
                     each other",
                    top.top().display()
                );
                return Err(ApiError::new(ErrorCode::BadRequest, text).with_hint(by_copy()));
            }
            let Some(inner) = checked_out(&repository, &path, &homes)? else {
                warnings.push(format!(
                    "the submodule `{}` is not checked out here: its folder stays empty",
                    shown.display()
                ));
                continue;
            };
            let mut of_it = Options {
                include_untracked: options.include_untracked,
                submodules: Submodules::Send,
                list_staged: options.list_staged,
                ..Options::default()
            };
            // A checkout of another revision has the submodule's commit of that revision.
            of_it.from = options.from.is_some().then(|| commit.clone());
            let mut snapshot = Snapshot::of(&inner, &of_it)?;
            match of_it.from {
                Some(_) => snapshot.branch = None,
                // For a comparison with what the outer repository has of it.
                None => snapshot.add_commit(&inner, &commit)?,
            }
            queue.push_back((shown.clone(), inner.clone(), snapshot.submodules.clone(), depth + 1));
            found.push(Submodule { path: shown, repository: inner, snapshot });
        }
    }
    snapshot.warnings.extend(warnings);
    Ok(found)
}

/// The repository of a submodule; `None` if it is not checked out. Neither its path nor its `.git`
/// may lead to another repository of the host.
fn checked_out(
    outer: &Repository,
    path: &[u8],
    homes: &[PathBuf],
) -> Result<Option<Repository>, ApiError> {
    let folder = outer.top().join(OsStr::from_bytes(path));
    let elsewhere = || {
        let text = format!("the submodule `{}` leads to another place", folder.display());
        ApiError::new(ErrorCode::BadRequest, text).with_hint(by_copy())
    };
    let mut here = outer.top().to_owned();
    for part in Path::new(OsStr::from_bytes(path)).components() {
        let std::path::Component::Normal(part) = part else { return Err(elsewhere()) };
        here.push(part);
        match here.symlink_metadata() {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(elsewhere()),
            Err(_) => return Ok(None),
        }
    }
    if folder.join(".git").symlink_metadata().is_err() {
        return Ok(None);
    }
    let inner = Repository::find(&folder).map_err(|error| elsewhere().caused_by(&error))?;
    let git_dir = canonical(inner.git_dir())?;
    let is_own = canonical(&folder)? == canonical(inner.top())?
        && homes.iter().any(|home| git_dir.starts_with(home));
    if is_own { Ok(Some(inner)) } else { Err(elsewhere()) }
}

fn canonical(path: &Path) -> Result<PathBuf, ApiError> {
    path.canonicalize().map_err(|error| {
        let text = format!("`{}` cannot be opened", path.display());
        ApiError::new(ErrorCode::NotFound, text).caused_by(&error)
    })
}

/// The way to send a folder whatever git makes of it.
pub(crate) fn by_copy() -> Hint {
    Hint::text("`banger run PATH --copy` sends the folder with everything in it")
}
