//! A folder of immutable objects with names.
//!
//! ```text
//! <root>/<id>/            an object: its files and its record
//! <root>/names/<name>     the id that this name points to; `%` stands for `/`
//! <root>/replaced/<name>  the id that this name pointed to before (see `replaced.rs`)
//! <root>/staging/         incomplete objects
//! ```
//!
//! A rename publishes an object's folder, which never changes afterwards. A rename also replaces a
//! name.

mod removal;

use std::fs;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::durable::{list_folder, sync, sync_all, write_durably};
use super::staging::{RemoveElsewhere, make_folders};
use super::{FetchError, Kind, PathContext, Staging};

/// The record of an object.
pub trait Record: Serialize + DeserializeOwned {
    /// File name of the record in the object's folder.
    const FILE: &'static str;
    /// Kind of the object.
    const KIND: Kind;
    /// The object's id.
    fn id(&self) -> &str;
}

/// Maximum size of a record in bytes.
const RECORD_BYTES: u64 = 4 << 20;

/// A store of objects of one kind.
#[derive(Debug)]
pub struct ObjectStore<R> {
    root: PathBuf,
    /// Held while a name moves from one object to another.
    pub(super) moves: Mutex<()>,
    records: PhantomData<fn() -> R>,
}

/// Content of a store.
#[derive(Debug)]
pub struct Listing<R> {
    /// Records with their names, sorted by first name, objects without a name last.
    pub objects: Vec<(R, Vec<String>)>,
    /// Objects with an unreadable record.
    pub broken: Vec<Broken>,
}

/// An object that exists and cannot be used.
#[derive(Debug)]
pub struct Broken {
    /// Its id.
    pub id: String,
    /// Names that point to it.
    pub names: Vec<String>,
    /// The error.
    pub error: FetchError,
}

/// A VM that uses an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    /// Id of the object.
    pub id: String,
    /// Name of the VM.
    pub vm: String,
}

/// Result of a deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// Id of the object.
    pub id: String,
    /// Removed names.
    pub names: Vec<String>,
    /// Freed bytes; 0 if only a name was removed because others remain.
    pub freed_bytes: u64,
}

impl<R: Record> ObjectStore<R> {
    /// A store in this folder, which is created when needed.
    pub fn new(root: PathBuf) -> Self {
        Self { root, moves: Mutex::default(), records: PhantomData }
    }

    /// The folder of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folder of an object.
    pub fn folder(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    pub(super) fn names_folder(&self) -> PathBuf {
        self.root.join("names")
    }

    fn staging_folder(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// Creates a staging folder.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn stage(&self) -> Result<Staging, FetchError> {
        Staging::new(&self.staging_folder())
    }

    /// Removes incomplete objects of a crash, each after `before` has removed its resources
    /// elsewhere; returns the freed bytes.
    ///
    /// # Errors
    /// A folder cannot be removed.
    pub fn clean_staging(&self, before: RemoveElsewhere<'_>) -> Result<u64, FetchError> {
        super::staging::clean(&self.staging_folder(), before)
    }

    /// Publishes the folder `made` (in a staging folder) as the object of this record. If the
    /// object exists and `whole` is true for it, it stays and `made` is dropped; a damaged one is
    /// replaced.
    ///
    /// # Errors
    /// rename(2), write(2), fsync(2).
    pub fn publish(
        &self,
        made: &Path,
        record: &R,
        whole: impl FnOnce(R) -> bool,
    ) -> Result<(), FetchError> {
        let target = self.folder(record.id());
        let text = serde_json::to_vec_pretty(record)
            .map_err(|error| FetchError::io("write", &made.join(R::FILE), error.into()))?;
        write_durably(&made.join(R::FILE), &text)?;
        sync_all(made)?;
        let staging = self.stage()?;
        if target.exists() {
            if self.record(record.id()).is_ok_and(whole) {
                return Ok(());
            }
            fs::rename(&target, staging.join("damaged")).at("replace", &target)?;
        }
        match fs::rename(made, &target) {
            // Another process published the same content first.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            published => published.at("publish", &target),
        }?;
        sync(&self.root)
    }

    /// Replaces the record of an object atomically.
    ///
    /// # Errors
    /// write(2), rename(2), fsync(2).
    pub fn replace_record(&self, record: &R) -> Result<(), FetchError> {
        let folder = self.folder(record.id());
        let target = folder.join(R::FILE);
        let text = serde_json::to_vec_pretty(record)
            .map_err(|error| FetchError::io("write", &target, error.into()))?;
        let staging = self.stage()?;
        let staged = staging.join(R::FILE);
        write_durably(&staged, &text)?;
        fs::rename(&staged, &target).at("write", &target)?;
        sync(&folder)
    }

    /// Gives an object one more file, `made` (in a staging folder), and then the record that tells
    /// of it. Each is one rename; a crash between them leaves a file that the record does not name.
    ///
    /// # Errors
    /// No such object; rename(2), write(2), fsync(2).
    pub fn amend(&self, record: &R, made: &Path, file: &str) -> Result<(), FetchError> {
        let folder = self.folder(record.id());
        let path = folder.join(R::FILE);
        let text = serde_json::to_vec_pretty(record)
            .map_err(|error| FetchError::io("write", &path, error.into()))?;
        let staged = made.with_file_name(R::FILE);
        write_durably(&staged, &text)?;
        sync(made)?;
        fs::rename(made, folder.join(file)).at("publish", &folder)?;
        sync(&folder)?;
        fs::rename(&staged, &path).at("write", &path)?;
        sync(&folder)
    }

    /// Points a name to an object.
    ///
    /// # Errors
    /// An invalid name; rename(2), write(2).
    pub fn name(&self, name: &str, id: &str) -> Result<(), FetchError> {
        check_name::<R>(name)?;
        self.write_id(&self.names_folder(), name, id)
    }

    /// Writes an id to a file of a folder, atomically and durably.
    pub(super) fn write_id(&self, folder: &Path, name: &str, id: &str) -> Result<(), FetchError> {
        make_folders(folder)?;
        let staging = self.stage()?;
        let staged = staging.join("name");
        write_durably(&staged, format!("{id}\n").as_bytes())?;
        let target = folder.join(file_of(name));
        fs::rename(&staged, &target).at("write", &target)?;
        sync(folder)
    }

    /// Checks a name.
    ///
    /// # Errors
    /// [`FetchError::BadName`].
    pub fn check_name(&self, name: &str) -> Result<(), FetchError> {
        check_name::<R>(name)
    }

    /// The id of a name, if the name exists.
    pub(super) fn id_of_name(&self, name: &str) -> Option<String> {
        check_name::<R>(name).ok()?;
        Self::read_id(&self.names_folder().join(file_of(name)))
    }

    /// The id in a file.
    pub(super) fn read_id(path: &Path) -> Option<String> {
        let text = fs::read_to_string(path).ok()?;
        Some(text.trim().to_owned()).filter(|id| is_id(id))
    }

    pub(super) fn names_of(&self, id: &str) -> Vec<String> {
        let mut names: Vec<String> = list_names(&self.names_folder())
            .into_iter()
            .filter(|name| self.id_of_name(name).as_deref() == Some(id))
            .collect();
        names.sort();
        names
    }

    fn ids(&self) -> Vec<String> {
        list_folder(&self.root).into_iter().filter(|name| is_id(name)).collect()
    }

    /// The record of an object.
    ///
    /// # Errors
    /// The record does not exist or is unreadable.
    pub fn record(&self, id: &str) -> Result<R, FetchError> {
        let path = self.folder(id).join(R::FILE);
        let damaged = |why: String| FetchError::Damaged {
            kind: R::KIND,
            id: id.to_owned(),
            path: path.clone(),
            why,
        };
        let meta =
            fs::metadata(&path).map_err(|error| damaged(format!("is not there: {error}")))?;
        if meta.len() > RECORD_BYTES {
            return Err(damaged(format!("has {} bytes", meta.len())));
        }
        let text = fs::read(&path).at("read", &path)?;
        let record: R = serde_json::from_slice(&text)
            .map_err(|error| damaged(format!("cannot be understood: {error}")))?;
        if record.id() != id {
            return Err(damaged(format!("is of `{}`", record.id())));
        }
        Ok(record)
    }

    /// Resolves a name, an id, or a unique prefix (at least 4 digits) of an id. A name takes
    /// precedence.
    ///
    /// # Errors
    /// Not found, or ambiguous.
    pub fn find(&self, wanted: &str) -> Result<String, FetchError> {
        let not_found = || FetchError::NotFound {
            kind: R::KIND,
            wanted: wanted.chars().take(80).collect(),
            names: list_names(&self.names_folder()),
        };
        if let Some(id) = self.id_of_name(wanted) {
            return if self.folder(&id).exists() { Ok(id) } else { Err(not_found()) };
        }
        if wanted.len() < 4 || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(not_found());
        }
        let mut fitting: Vec<String> =
            self.ids().into_iter().filter(|id| id.starts_with(wanted)).collect();
        fitting.sort();
        match fitting.len() {
            0 => Err(not_found()),
            1 => Ok(fitting.remove(0)),
            _ => Err(FetchError::Ambiguous {
                kind: R::KIND,
                wanted: wanted.to_owned(),
                candidates: fitting,
            }),
        }
    }

    /// Record and names of the object that [`Self::find`] returns.
    ///
    /// # Errors
    /// Those of [`Self::find`]; an unreadable record.
    pub fn resolve(&self, wanted: &str) -> Result<(R, Vec<String>), FetchError> {
        let id = self.find(wanted)?;
        Ok((self.record(&id)?, self.names_of(&id)))
    }

    /// All objects, sorted by first name, objects without a name last.
    pub fn list(&self) -> Listing<R> {
        let mut listing = Listing { objects: Vec::new(), broken: Vec::new() };
        for id in self.ids() {
            let names = self.names_of(&id);
            match self.record(&id) {
                Ok(record) => listing.objects.push((record, names)),
                Err(error) => listing.broken.push(Broken { id, names, error }),
            }
        }
        listing.objects.sort_by_cached_key(|(record, names)| {
            (names.is_empty(), names.first().cloned(), record.id().to_owned())
        });
        listing.broken.sort_by_key(|broken| broken.id.clone());
        listing
    }
}

/// The file of a name: names of images of a registry contain slashes, and no name a `%`.
pub(super) fn file_of(name: &str) -> String {
    name.replace('/', "%")
}

/// The names in a folder.
pub(super) fn list_names(folder: &Path) -> Vec<String> {
    list_folder(folder).into_iter().map(|file| file.replace('%', "/")).collect()
}

fn check_name<R: Record>(name: &str) -> Result<(), FetchError> {
    // A name that looks like an id would hide that id.
    let is_name = match R::KIND {
        Kind::Image => banger_api::container_ref::is_image_name(name),
        Kind::Kernel => banger_api::images::is_ref_name(name),
    };
    if is_name && !is_id(name) {
        return Ok(());
    }
    Err(FetchError::BadName { kind: R::KIND, name: name.chars().take(140).collect() })
}

fn is_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub struct Note {
        id: String,
        text: String,
    }

    impl Record for Note {
        const FILE: &'static str = "note.json";
        const KIND: Kind = Kind::Image;
        fn id(&self) -> &str {
            &self.id
        }
    }

    pub const A: &str = "aaaa000000000001";
    pub const B: &str = "aaaa000000000002";

    pub fn add(store: &ObjectStore<Note>, id: &str, names: &[&str]) {
        let staging = store.stage().unwrap();
        let made = staging.join("object");
        fs::create_dir(&made).unwrap();
        fs::write(made.join("file"), vec![1; 100_000]).unwrap();
        let note = Note { id: id.into(), text: "x".into() };
        store.publish(&made, &note, |_| true).unwrap();
        for name in names {
            store.name(name, id).unwrap();
        }
    }

    pub fn store() -> (tempfile::TempDir, ObjectStore<Note>) {
        let folder = tempfile::tempdir().unwrap();
        let store = ObjectStore::new(folder.path().join("deep/store"));
        (folder, store)
    }

    fn staged(store: &ObjectStore<Note>) -> usize {
        list_folder(&store.staging_folder()).len()
    }

    #[test]
    fn names_ids_and_prefixes_find_and_a_name_wins() {
        let (_folder, store) = store();
        assert!(store.list().objects.is_empty());
        add(&store, A, &["debian", "aaaa"]);
        add(&store, B, &[]);
        for wanted in ["debian", A, "aaaa000000000001", "aaaa"] {
            assert_eq!(store.find(wanted).unwrap(), A, "{wanted}");
        }
        let error = store.find("aaaa00").unwrap_err().to_string();
        assert_eq!(error, format!("image `aaaa00` is ambiguous: {A}, {B}"));
        for missing in ["", "aaa", "bbbb", "../names", "debian2", "staging", "names"] {
            let error = store.find(missing).unwrap_err();
            assert!(matches!(error, FetchError::NotFound { .. }), "{missing}: {error}");
        }
        let (note, names) = store.resolve("debian").unwrap();
        assert_eq!((note.id.as_str(), names), (A, vec!["aaaa".to_owned(), "debian".to_owned()]));
    }

    #[test]
    fn bad_names_are_refused() {
        let (_folder, store) = store();
        for name in ["", "-x", "X", "a/b", "..", ".", "a b", A, &"x".repeat(129)] {
            let error = store.name(name, A).unwrap_err();
            assert!(matches!(error, FetchError::BadName { .. }), "{name}");
        }
    }

    #[test]
    fn delete_removes_a_name_or_an_unused_object() {
        let (_folder, store) = store();
        add(&store, A, &["one", "two"]);
        let users = [InUse { id: A.into(), vm: "otter".into() }];
        let only_name = store.delete("one", &users).unwrap();
        assert_eq!((only_name.freed_bytes, only_name.names), (0, vec!["one".to_owned()]));
        let error = store.delete("two", &users).unwrap_err();
        assert_eq!(error.to_string(), "image `two` is used by otter");
        assert!(store.delete(A, &users).is_err());
        let deleted = store.delete("two", &[]).unwrap();
        assert!(deleted.freed_bytes >= 100_000);
        assert!(matches!(store.find("two"), Err(FetchError::NotFound { .. })));
        assert_eq!((store.ids().len(), staged(&store)), (0, 0));
    }

    #[test]
    fn pruning_spares_names_and_vms() {
        let (_folder, store) = store();
        let c = "cccc000000000003";
        add(&store, A, &["kept"]);
        add(&store, B, &[]);
        add(&store, c, &[]);
        let deleted = store.prune(&[InUse { id: B.into(), vm: "v".into() }]).unwrap();
        assert_eq!(deleted.iter().map(|deleted| deleted.id.as_str()).collect::<Vec<_>>(), [c]);
        let left: Vec<String> = store.list().objects.into_iter().map(|(note, _)| note.id).collect();
        assert_eq!(left, [A, B]);
    }

    #[test]
    fn a_damaged_object_is_listed_as_such_and_replaced_when_made_again() {
        let (_folder, store) = store();
        for damage in ["", "{", "{\"id\":\"bbbb000000000000\",\"text\":\"\"}"] {
            add(&store, A, &["x"]);
            fs::write(store.folder(A).join(Note::FILE), damage).unwrap();
            let listing = store.list();
            assert!(listing.objects.is_empty());
            assert_eq!((listing.broken[0].id.as_str(), listing.broken[0].names.len()), (A, 1));
            assert!(matches!(store.resolve("x"), Err(FetchError::Damaged { .. })));
        }
        add(&store, A, &[]);
        assert_eq!(store.resolve("x").unwrap().0.text, "x");
        fs::remove_file(store.folder(A).join("file")).unwrap();
        let staging = store.stage().unwrap();
        let made = staging.join("object");
        fs::create_dir(&made).unwrap();
        fs::write(made.join("file"), "whole").unwrap();
        let note = Note { id: A.into(), text: "x".into() };
        store.publish(&made, &note, |_| false).unwrap();
        assert_eq!(fs::read(store.folder(A).join("file")).unwrap(), b"whole");
    }

    #[test]
    fn a_name_to_nothing_is_not_found() {
        let (_folder, store) = store();
        store.name("ghost", A).unwrap();
        assert!(matches!(store.find("ghost"), Err(FetchError::NotFound { .. })));
        fs::write(store.names_folder().join("odd"), "../../etc").unwrap();
        assert!(matches!(store.find("odd"), Err(FetchError::NotFound { .. })));
    }
}
