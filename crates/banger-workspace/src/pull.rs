//! The guest's changes: as a patch to look at, and into the work tree of the host.

use std::collections::BTreeSet;
use std::io::{self, Write};

use banger_api::{ApiError, ErrorCode, Hint};

use crate::compare::Change;
use crate::fetch::{self, Limits};
use crate::git::Git;
use crate::guest::{self, Guest, Wanted};
use crate::manifest::Entry;
use crate::place;
use crate::workspace::{Status, Workspace};

/// The guest's changes, with their content.
pub struct Fetched {
    /// Both sides.
    pub status: Status,
    /// A repository with the objects, in the workspace.
    git: Git,
    /// Trees of the changed files, before and after.
    trees: (String, String),
}

impl Workspace {
    /// Gets the guest's changes; with those of files that the host has changed too, if `all`.
    ///
    /// # Errors
    /// The guest's, git's; more than the limits.
    pub fn fetch(
        &mut self,
        guest: &dyn Guest,
        limits: &Limits,
        which: Which,
    ) -> Result<Fetched, ApiError> {
        let folder = self.record.folder.clone();
        let command = guest::look(&folder, self.record.head.as_deref(), Wanted::Objects);
        guest::with_state(guest, &command, &folder, |state, rest, mut input| {
            let status = self.compare(state)?;
            let git = self.store.bare(&status.objects)?;
            let mut changes = status.changes.guest.clone();
            if which == Which::All {
                let both = status.changes.conflicts.iter().map(|path| Change {
                    path: path.clone(),
                    base: self.record.base.get(path).cloned(),
                    now: status.guest.files.get(path).cloned(),
                });
                changes.extend(both);
                changes.retain(|change| change.base != change.now);
            }
            let new: Vec<&Entry> =
                changes.iter().filter_map(|change| change.now.as_ref()).collect();
            let bases = changes.iter().filter_map(|change| change.base.as_ref());
            let asked: Vec<&Entry> = new.iter().copied().chain(bases).collect();
            let wanted: BTreeSet<&str> = new.iter().map(|entry| entry.object.as_str()).collect();
            let (missing, lost): (BTreeSet<String>, BTreeSet<String>) =
                fetch::missing(&git, &asked)?
                    .into_iter()
                    .partition(|name| wanted.contains(name.as_str()));
            let list = missing.iter().flat_map(|name| [name, "\n"]).collect::<String>();
            // A guest that does not read says why at its end.
            let _ = input.write_all(list.as_bytes());
            drop(input);
            if !missing.is_empty() {
                fetch::receive(&git, rest, limits)?;
            }
            fetch::check(&git, &new, limits)?;
            // A file whose content at the common state is nowhere is shown as a new one.
            let is_lost = |entry: &mut Entry| lost.contains(&entry.object);
            changes.iter_mut().for_each(|change| drop(change.base.take_if(is_lost)));
            let trees = fetch::trees(&git, &changes)?;
            Ok(Fetched { status, git, trees })
        })
    }

    /// Writes the changes. The text is the guest's: it may have any bytes.
    ///
    /// # Errors
    /// git's, the receiver's.
    pub fn write(&self, fetched: &Fetched, form: Form, mut to: impl Write) -> Result<(), ApiError> {
        let form: &[&str] = match form {
            Form::Patch => &["-p", "--binary", "--full-index"],
            Form::Stat => &["--stat=80", "--summary"],
        };
        let fixed = [
            "-r",
            "--find-renames",
            "--no-ext-diff",
            "--no-textconv",
            "--no-color",
            "--src-prefix=a/",
            "--dst-prefix=b/",
        ];
        let trees = [fetched.trees.0.as_str(), fetched.trees.1.as_str()];
        let arguments = [&["diff-tree"], form, &fixed, &trees].concat();
        let mut running = fetched.git.stream(&arguments, Vec::new())?;
        io::copy(&mut running.stdout, &mut to).map_err(|error| {
            ApiError::new(ErrorCode::Internal, "the changes cannot be written").caused_by(&error)
        })?;
        running.finish()
    }

    /// Brings the guest's changes into the work tree of the host: all of them, or none. `before` is
    /// called before each effect.
    ///
    /// # Errors
    /// A file changed on both sides, or changed since `fetched`; the file system's.
    pub fn pull(&mut self, fetched: &Fetched, before: &dyn Fn()) -> Result<(), ApiError> {
        let changes = &fetched.status.changes;
        refuse_conflicts(&changes.conflicts)?;
        let objects = fetched.status.objects.used_by(self.repository.git());
        place::place(&self.repository, &objects, &changes.guest, &fetched.status.seen, before)?;
        self.keep_received(fetched)?;
        let files = changes.guest.iter().map(|change| (change.path.clone(), change.now.clone()));
        self.record_files(files.collect())
    }

    /// Keeps the contents that came from the guest, which are part of the common state now.
    fn keep_received(&self, fetched: &Fetched) -> Result<(), ApiError> {
        let changes = &fetched.status.changes.guest;
        let new: Vec<&Entry> = changes.iter().filter_map(|change| change.now.as_ref()).collect();
        let kept = self.store.kept_objects(&self.repository)?.used_by(self.repository.git());
        let missing = fetch::missing(&kept, &new)?;
        if missing.is_empty() {
            return Ok(());
        }
        fetch::copy(&fetched.git, &kept, &missing)
    }
}

/// Which changes of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those of files that the host has not changed.
    Own,
    /// All.
    All,
}

/// Form of the changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A patch that git applies.
    Patch,
    /// Files with numbers of lines, for people.
    Stat,
}

/// Most files that an error names.
const NAMED: usize = 20;

pub(crate) fn refuse_conflicts(paths: &[Vec<u8>]) -> Result<(), ApiError> {
    let Some(count) = std::num::NonZero::new(paths.len()) else { return Ok(()) };
    let (files, were) = if count.get() == 1 { ("file", "was") } else { ("files", "were") };
    let text = format!("{count} {files} {were} changed on both sides; nothing was done");
    let mut error = ApiError::new(ErrorCode::WrongState, text);
    let shown = paths.iter().take(NAMED).map(|path| String::from_utf8_lossy(path).into_owned());
    error.causes.extend(shown);
    if count.get() > NAMED {
        error.causes.push(format!("and {} more", count.get() - NAMED));
    }
    Err(error.with_hint(Hint::text(
        "`pull --branch NAME` puts the machine's changes on a branch, which git merges; \
         `push --force PATH` replaces a file of the machine",
    )))
}
