//! Changes of the host into the guest's work tree, where the guest has not changed the same files.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;

use banger_api::{ApiError, ErrorCode, Hint};

use crate::compare::Change;
use crate::git::Git;
use crate::guest::{self, Guest, Look, Talk};
use crate::manifest::{Entry, Kind, Manifest, Objects};
use crate::pull::refuse_conflicts;
use crate::workspace::{Status, Workspace};

/// Times that a push looks again, if the guest changes files at the same time.
const TRIES: u32 = 3;

/// Most files whose content is replaced one by one.
const MAX_REPLACED: usize = 16;

/// Most bytes of lists that are arguments of the guest's command, and not objects: an escape has
/// five bytes for one.
const INLINE_BYTES: usize = 8 << 10;

/// What is to be sent.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// Paths that replace the guest's changes.
    pub force: Vec<Vec<u8>>,
    /// Also files that are neither tracked nor ignored, from now on.
    pub include_untracked: bool,
}

impl Workspace {
    /// Sends the changes of the host. Returns them.
    ///
    /// # Errors
    /// Files changed on both sides, but for those that are forced; the guest's, git's.
    pub fn push(
        &mut self,
        guest: &dyn Guest,
        options: &PushOptions,
    ) -> Result<Vec<Change>, ApiError> {
        self.record.include_untracked |= options.include_untracked;
        let top = self.repository.top().as_os_str().as_bytes();
        let force: Vec<_> = options.force.iter().map(|path| from_top(path, top)).collect();
        // After a killed push, a look at all files tells first what has arrived.
        if force.is_empty()
            && self.store.sending().0.is_empty()
            && let Some(pushed) = self.push_directly(guest)?
        {
            return Ok(pushed);
        }
        for _ in 1..TRIES {
            match self.push_once(guest, &force) {
                Err(error) if error.code == ErrorCode::Busy => {}
                pushed => return pushed,
            }
        }
        self.push_once(guest, &force)
    }

    /// Sends the changes without a look at all files of the guest, which takes most of the time: it
    /// refuses them if it has changed one of the same files. None: it did, or anything else is in
    /// the way; nothing was changed then.
    fn push_directly(&mut self, guest: &dyn Guest) -> Result<Option<Vec<Change>>, ApiError> {
        let (host, objects) = self.host_files(BTreeSet::new())?;
        let base = &self.record.base;
        let paths: BTreeSet<&Vec<u8>> = base.0.keys().chain(host.0.keys()).collect();
        let changes = paths.into_iter().filter(|path| base.get(path) != host.get(path));
        let changes: Vec<Change> = changes
            .map(|path| Change {
                path: path.clone(),
                base: base.get(path).cloned(),
                now: host.get(path).cloned(),
            })
            .collect();
        let sent = match self.replace(guest, &changes, &objects)? {
            Some(replaced) => replaced,
            None => self.send(guest, &changes, base, (&objects, Look::AtChanges))?,
        };
        match sent {
            Ok(()) => self.pushed(&changes).map(|()| Some(changes)),
            Err(_) => Ok(None),
        }
    }

    /// Sends a few changes of content, without a look at the rest of the work tree. None: there are
    /// other changes. The inner error is the guest's; what it has then is found by a look at all.
    fn replace(
        &self,
        guest: &dyn Guest,
        changes: &[Change],
        objects: &Objects,
    ) -> Result<Option<Result<(), ApiError>>, ApiError> {
        let files: Vec<_> = changes.iter().filter_map(replaced).collect();
        if files.is_empty() || files.len() < changes.len() || files.len() > MAX_REPLACED {
            return Ok(None);
        }
        let names = files.iter().map(|(.., now)| [now.object.as_str(), "\n"]);
        self.note_sending(changes)?;
        let talk = guest.start(&guest::replace(&self.record.folder, &files))?;
        let git = self.store.bare(objects)?;
        Ok(Some(send(&git, talk, names.flatten().collect(), &self.record.folder)))
    }

    fn push_once(&mut self, guest: &dyn Guest, force: &[Vec<u8>]) -> Result<Vec<Change>, ApiError> {
        let status = self.status(guest)?;
        let changes = self.wanted(&status, force)?;
        let how = (&status.objects, Look::AtAll);
        self.send(guest, &changes, &status.guest.files, how)??;
        self.pushed(&changes)?;
        Ok(changes)
    }

    /// Sends changes of files whose state in the guest is `there`. The inner error is the guest's.
    fn send(
        &self,
        guest: &dyn Guest,
        changes: &[Change],
        there: &Manifest,
        (objects, look): (&Objects, Look),
    ) -> Result<Result<(), ApiError>, ApiError> {
        if changes.is_empty() {
            return Ok(Ok(()));
        }
        let git = self.store.bare(objects)?;
        let sorted: BTreeSet<&Vec<u8>> = changes.iter().map(|change| &change.path).collect();
        let list = |paths: &mut dyn Iterator<Item = &&Vec<u8>>| -> Vec<u8> {
            paths.flat_map(|path| [path.as_slice(), b"\0"].concat()).collect()
        };
        let paths = list(&mut sorted.iter());
        let new = list(&mut sorted.iter().filter(|path| there.get(path).is_none()));
        let present = sorted.iter().filter_map(|path| Some((*path, there.get(path)?)));
        let expected = Manifest::lines(present);
        let store = |list: Vec<u8>| {
            let id = git.filter(&["hash-object", "-w", "--stdin"], list)?;
            Ok::<_, ApiError>(String::from_utf8_lossy(&id).trim().to_owned())
        };
        let lists = [paths, expected, index_lines(changes), new];
        let is_short = lists.iter().map(Vec::len).sum::<usize>() <= INLINE_BYTES;
        let (names, stored) = match is_short {
            true => (lists.iter().map(|list| guest::inline(list)).collect(), Vec::new()),
            false => {
                let names = lists.into_iter().map(store).collect::<Result<Vec<_>, _>>()?;
                (names.clone(), names)
            }
        };
        let objects = changes.iter().filter_map(|change| Some(&change.now.as_ref()?.object));
        let objects: String = objects.chain(&stored).flat_map(|id| [id.as_str(), "\n"]).collect();
        self.note_sending(changes)?;
        let talk = guest.start(&guest::push(&self.record.folder, &names, look))?;
        Ok(send(&git, talk, objects, &self.record.folder))
    }

    /// Notes what the guest is about to get, for a later command if this one is killed.
    fn note_sending(&self, changes: &[Change]) -> Result<(), ApiError> {
        let files =
            changes.iter().filter_map(|change| Some((change.path.clone(), change.now.clone()?)));
        self.store.note_sending(&Manifest(files.collect()))
    }

    /// Notes the new common state.
    fn pushed(&mut self, changes: &[Change]) -> Result<(), ApiError> {
        let files = changes.iter().map(|change| (change.path.clone(), change.now.clone()));
        self.record_files(files.collect())?;
        self.store.forget_sending();
        Ok(())
    }

    /// The changes of the host that are to be sent.
    fn wanted(&self, status: &Status, force: &[Vec<u8>]) -> Result<Vec<Change>, ApiError> {
        let mut changes = status.changes.host.clone();
        let conflicts: BTreeSet<&Vec<u8>> = status.changes.conflicts.iter().collect();
        if let Some(other) = force.iter().find(|path| !conflicts.contains(path)) {
            let text = format!(
                "`{}` was not changed on both sides: `--force` is for such files",
                String::from_utf8_lossy(other)
            );
            return Err(ApiError::new(ErrorCode::BadRequest, text).with_hint(Hint::text(
                "`banger vm workspace status` lists them, from the top of the repository",
            )));
        }
        let left: Vec<Vec<u8>> =
            conflicts.iter().filter(|path| !force.contains(path)).map(|p| (*p).clone()).collect();
        refuse_conflicts(&left)?;
        changes.extend(force.iter().map(|path| Change {
            path: path.clone(),
            base: status.guest.files.get(path).cloned(),
            now: status.host.get(path).cloned(),
        }));
        Ok(changes)
    }
}

/// A path as git names it in the work tree at `top`: without `.`, and without the way to `top`.
fn from_top(path: &[u8], top: &[u8]) -> Vec<u8> {
    let below = match path.strip_prefix(top) {
        Some(rest) if rest.starts_with(b"/") => rest,
        _ if path.starts_with(b"/") => return path.to_vec(),
        _ => path,
    };
    let names: Vec<&[u8]> =
        below.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
    names.join(&b'/')
}

/// Path, present and new state of a change that replaces a file by another one.
fn replaced(change: &Change) -> Option<(&[u8], &Entry, &Entry)> {
    let is_file = |entry: &&Entry| matches!(entry.kind, Kind::File | Kind::Program);
    let was = change.base.as_ref().filter(is_file)?;
    Some((&change.path, was, change.now.as_ref().filter(is_file)?))
}

/// Lines for `git update-index -z --index-info`, deletions first.
fn index_lines(changes: &[Change]) -> Vec<u8> {
    let mut lines = Vec::new();
    for change in changes.iter().filter(|change| change.now.is_none()) {
        let length = change.base.as_ref().map_or(40, |entry: &Entry| entry.object.len());
        lines.extend(format!("0 {}\t", "0".repeat(length)).bytes());
        lines.extend_from_slice(&change.path);
        lines.push(0);
    }
    let files = changes.iter().filter_map(|change| Some((&change.path, change.now.as_ref()?)));
    lines.extend(Manifest::lines(files));
    lines
}

/// Sends a pack with these objects to a command.
fn send(git: &Git, talk: Talk, objects: String, folder: &[u8]) -> Result<(), ApiError> {
    let Talk { mut output, mut input, end } = talk;
    let mut running = git
        .stream(["pack-objects", "--stdout", "-q", "--delta-base-offset"], objects.into_bytes())?;
    let sent = io::copy(&mut running.stdout, &mut input).and_then(|_| input.flush());
    drop(input);
    let packed = running.finish();
    // The command's reason comes first: the stream ends because of it.
    let _ = io::copy(&mut output, &mut io::sink());
    guest::ended(end, folder).map_err(may_be_partial)?;
    packed?;
    sent.map_err(|error| {
        ApiError::new(ErrorCode::GuestFailed, "the changes cannot be sent").caused_by(&error)
    })
}

/// The failure of a command that changes one file after the other.
fn may_be_partial(error: ApiError) -> ApiError {
    if error.code != ErrorCode::GuestFailed || !error.hints.is_empty() {
        return error;
    }
    error.with_hint(Hint::text("`banger vm workspace status` shows which changes have arrived"))
}
