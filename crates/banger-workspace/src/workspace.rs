//! A workspace: a repository of the host and its copy in a machine, and what changed on either
//! side.

use std::collections::BTreeSet;
use std::path::Path;

use banger_api::{ApiError, ErrorCode, Hint};

use crate::compare::Comparison;
use crate::guest::{self, Guest, Left, State};
use crate::manifest::{Entry, Manifest, Objects, is_file};
use crate::names;
use crate::origin;
use crate::place::{self, Stamps, stamp};
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::store::{Record, Store};

/// The workspace of a machine.
pub struct Workspace {
    pub(crate) store: Store,
    pub(crate) record: Record,
    pub(crate) repository: Repository,
}

/// Both sides.
pub struct Status {
    /// The guest's.
    pub guest: State,
    /// The host's.
    pub host: Manifest,
    /// What differs.
    pub changes: Comparison,
    /// The files of the host that the guest has changed, before they were read.
    pub(crate) seen: Stamps,
    /// Objects of this command.
    pub(crate) objects: Objects,
}

/// The files that a snapshot sends, as a common state. New objects go to the store.
///
/// The snapshot's own list decides: a file that was changed after it was taken is not sent, and is
/// a change of the host then.
///
/// # Errors
/// git's, the file system's.
pub fn sent(
    store: &Store,
    repository: &Repository,
    snapshot: &Snapshot,
) -> Result<Manifest, ApiError> {
    let objects = store.kept_objects(repository)?;
    let git = objects.used_by(repository.git()).with("GIT_INDEX_FILE", store.temporary("index"));
    let list = |records: &mut dyn Iterator<Item = &[u8]>| -> Vec<u8> {
        records.flat_map(|record| [record, b"\0"].concat()).collect()
    };
    let entries = list(&mut snapshot.index.iter().map(|entry| entry.line.as_slice()));
    git.filter(&["update-index", "-z", "--index-info"], entries)?;
    let gone = list(&mut snapshot.deleted.iter().map(Vec::as_slice));
    git.filter(&["update-index", "-z", "--force-remove", "--stdin"], gone)?;
    let top = repository.folder()?;
    let files = list(&mut snapshot.files().filter(|path| is_file(&top, path)));
    git.filter(&["update-index", "-z", "--add", "--replace", "--stdin"], files)?;
    Ok(Manifest::parse(&git.output(["ls-files", "--stage", "-z"])?))
}

impl Workspace {
    /// Opens the workspace of the machine `vm` that is on record in this folder.
    ///
    /// # Errors
    /// There is none; the repository is not where it was; an interrupted pull cannot be undone.
    pub fn open(folder: &Path, vm: &str) -> Result<Self, ApiError> {
        if !Store::is_at(folder) {
            return Err(origin::no_repository(folder, vm));
        }
        let store = Store::open(folder)?;
        let record = store.record()?;
        let repository = recorded(&record, vm)?;
        place::recover(&repository)?;
        Ok(Self { store, record, repository })
    }

    /// What is on record.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Looks at both sides.
    ///
    /// # Errors
    /// The guest's, git's.
    pub fn status(&mut self, guest: &dyn Guest) -> Result<Status, ApiError> {
        let state = guest::state(guest, &self.record.folder, self.record.head.as_deref())?;
        self.compare(state)
    }

    /// Compares a guest's state with the host's. What is the same on both sides is a common state
    /// from now on.
    ///
    /// # Errors
    /// git's.
    pub(crate) fn compare(&mut self, mut guest: State) -> Result<Status, ApiError> {
        self.take_arrived(&guest.files)?;
        let base = &self.record.base;
        refuse_submodule_lists(base, &mut guest);
        let changed = guest.files.0.iter().filter(|(path, entry)| base.get(path) != Some(entry));
        let changed: BTreeSet<&Vec<u8>> = changed
            .map(|(path, _)| path)
            .chain(base.0.keys().filter(|path| guest.files.get(path).is_none()))
            .collect();
        // Before their content is read, to notice whoever changes them later.
        let top = self.repository.folder()?;
        let stamps = changed.iter().map(|path| {
            // What a symlink leads to is no file of the work tree.
            ((*path).clone(), stamp(&top, path).unwrap_or_default())
        });
        let seen: Stamps = stamps.collect();
        let (host, objects) = self.host_files(changed)?;
        let mut changes = Comparison::of(base, &guest.files, &host);
        // A path that the guest must not name is not a deletion.
        let left: BTreeSet<_> = guest.left.iter().map(|left| &left.path).collect();
        changes.guest.retain(|change| !left.contains(&change.path));
        self.agree(&guest.files, &host)?;
        Ok(Status { guest, host, changes, seen, objects })
    }

    /// The host's files at the paths of the common state and `also` at these, as objects.
    pub(crate) fn host_files(
        &self,
        also: BTreeSet<&Vec<u8>>,
    ) -> Result<(Manifest, Objects), ApiError> {
        let mut paths: BTreeSet<Vec<u8>> = self.record.base.0.keys().cloned().collect();
        paths.extend(also.into_iter().cloned());
        if self.record.include_untracked {
            let [files, _] = self.repository.untracked()?;
            paths.extend(files);
        }
        let objects = self.store.new_objects(&self.repository)?;
        let index = self.store.temporary("index");
        Ok((Manifest::of_host(&self.repository, &objects, &index, &paths)?, objects))
    }

    /// Makes what a killed push has put in the guest a common state: the host may have changed it
    /// again, and the guest has not.
    fn take_arrived(&mut self, guest: &Manifest) -> Result<(), ApiError> {
        let base = &self.record.base;
        let sending = self.store.sending().0.into_iter();
        let arrived = sending.filter(|(path, entry)| {
            guest.get(path) == Some(entry) && base.get(path) != Some(entry)
        });
        let arrived: Vec<_> = arrived.map(|(path, entry)| (path, Some(entry))).collect();
        self.record_files(arrived)
    }

    /// Makes what is the same on both sides a common state.
    fn agree(&mut self, guest: &Manifest, host: &Manifest) -> Result<(), ApiError> {
        let base = &self.record.base;
        let paths: BTreeSet<&Vec<u8>> = base.0.keys().chain(guest.0.keys()).collect();
        let new: Vec<(Vec<u8>, Option<Entry>)> = paths
            .into_iter()
            .filter(|path| guest.get(path) == host.get(path) && base.get(path) != host.get(path))
            .map(|path| (path.clone(), host.get(path).cloned()))
            .collect();
        self.record_files(new)
    }

    /// Puts a new common state of some files on record.
    pub(crate) fn record_files(
        &mut self,
        files: Vec<(Vec<u8>, Option<Entry>)>,
    ) -> Result<(), ApiError> {
        if files.is_empty() {
            return Ok(());
        }
        self.store.keep(files.iter().filter_map(|(_, entry)| entry.as_ref()))?;
        let mut gone = BTreeSet::new();
        for (path, entry) in files {
            let before = match entry {
                Some(entry) => self.record.base.0.insert(path, entry),
                None => self.record.base.0.remove(&path),
            };
            gone.extend(before.map(|before| before.object));
        }
        self.store.save(&self.record)?;
        if !gone.is_empty() {
            for entry in self.record.base.0.values() {
                gone.remove(&entry.object);
            }
            self.store.drop_objects(&gone);
        }
        Ok(())
    }
}

/// The repository on record, for the machine `vm`.
fn recorded(record: &Record, vm: &str) -> Result<Repository, ApiError> {
    let shown = record.repository.display();
    let lost = |what: &str, causes: Vec<String>| {
        let mut error = ApiError::new(ErrorCode::NotFound, format!("`{shown}` is {what} any more"));
        error.causes = causes;
        let folder = String::from_utf8_lossy(&record.folder);
        let hint = format!(
            "one that was moved has to be put back; `banger cp {vm}:{folder} .` copies the \
             machine's files"
        );
        Err(error.with_hint(Hint::text(hint)))
    };
    if matches!(record.repository.try_exists(), Ok(false)) {
        return lost("not there", Vec::new());
    }
    match Repository::find(&record.repository) {
        Ok(found) if found.top() == record.repository => Ok(found),
        Ok(_) => lost("no repository", Vec::new()),
        Err(error) if error.code == ErrorCode::BadRequest => {
            lost("no repository", vec![error.message])
        }
        Err(error) => Err(error),
    }
}

/// Keeps changes of the list of submodules in the guest.
fn refuse_submodule_lists(base: &Manifest, guest: &mut State) {
    let all = base.0.keys().chain(guest.files.0.keys());
    let lists: BTreeSet<Vec<u8>> =
        all.filter(|path| names::is_submodule_list(path)).cloned().collect();
    for path in lists {
        let was = base.get(&path);
        if guest.files.get(&path) == was {
            continue;
        }
        match was {
            Some(was) => drop(guest.files.0.insert(path.clone(), was.clone())),
            None => drop(guest.files.0.remove(&path)),
        }
        let why = "is the list of submodules".to_owned();
        guest.left.push(Left { path, why, is_tracked: true });
    }
}
