//! Images: root file systems kept as immutable ext4 disks, made of archives or by recipes.
//!
//! ```text
//! <images>/<id>/root.ext4     the root disk: read beneath a layer, or copied and grown
//! <images>/<id>/image.json    the record
//! ```

mod convert;
mod foreign;
mod overlay;
mod recipe;
mod rootfs;
mod sandbox;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use foreign::Foreign;
pub use recipe::provenance as debian_provenance;
pub use rootfs::Init;

use crate::ext4::Ext4Error;
use crate::fetch::{
    self, Deleted, FetchError, FileDigest, Flight, InUse, Kind, Listing, ObjectStore, Place,
    Progress, Record, SingleFlight, Source, Tools,
};
use convert::Amend;

/// The root disk within an object's folder.
pub const ROOT_DISK: &str = "root.ext4";
/// Where the magic number of ext4 is, and the number: `s_magic`, little-endian.
const EXT4_MAGIC: (u64, [u8; 2]) = (1024 + 56, [0x53, 0xef]);

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// What everything stored can suffer from.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// No recipe has this name.
    #[error("there is no recipe for an image `{name}`, only `{}`", recipe::DEBIAN)]
    UnknownRecipe {
        /// The name.
        name: String,
    },
    /// An archive that cannot be used.
    #[error("`{}` cannot be made an image", path.display())]
    BadArchive {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Ext4Error,
    },
    /// An archive of something else.
    #[error("`{}` is no root file system: it has neither /bin, /sbin, /usr nor any program",
        path.display())]
    NotARootFs {
        /// The file.
        path: PathBuf,
    },
    /// A file of another kind than a root file system's archive.
    #[error("`{}` is {}", path.display(), found.what)]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its kind.
        found: Foreign,
    },
    /// A file that changed while it was read.
    #[error("`{}` changed while it was read", path.display())]
    SourceChanged {
        /// The file.
        path: PathBuf,
    },
    /// An ordinary user without ids for a user namespace.
    #[error("`{}` has no ids for the user `{user}`, which mmdebstrap needs", file.display())]
    NoSubordinateIds {
        /// /etc/subuid or /etc/subgid.
        file: PathBuf,
        /// Name or number.
        user: String,
    },
}

/// What is written down about an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRecord {
    /// Beginning of the fingerprint.
    pub id: String,
    /// Where it came from, for people: a recipe or a file.
    pub source: String,
    /// More about that: the recipe's contents, or the archive's SHA-256.
    pub provenance: String,
    /// The distribution's own name.
    pub system: Option<String>,
    /// Length of the root disk in bytes.
    pub virtual_bytes: u64,
    /// Its init; none means that the agent is the init.
    pub init: Option<Init>,
    /// Packages installed, where that is known.
    pub packages: Option<u64>,
    /// What an overlay would not show as it is; the image is then not used beneath one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_by_overlay: Option<String>,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// SHA-256 over all files' digests.
    pub fingerprint: String,
    /// The files it consists of.
    pub files: Vec<FileDigest>,
}

impl Record for ImageRecord {
    const FILE: &'static str = "image.json";
    const KIND: Kind = Kind::Image;
    fn id(&self) -> &str {
        &self.id
    }
}

/// An image on the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its record.
    pub record: ImageRecord,
    /// Names that point to it.
    pub names: Vec<String>,
    /// Its folder.
    pub folder: PathBuf,
}

impl Image {
    /// The root disk; never to be written to.
    pub fn root_disk(&self) -> PathBuf {
        self.folder.join(ROOT_DISK)
    }

    fn damaged(&self, why: String) -> FetchError {
        let (kind, id) = (Kind::Image, self.record.id.clone());
        FetchError::Damaged { kind, id, path: self.root_disk(), why }
    }

    /// Looks whether its disk is there, of the right length, and ext4: cheap enough for every
    /// start.
    ///
    /// # Errors
    /// [`FetchError::Damaged`].
    pub fn check(&self) -> Result<(), FetchError> {
        use std::os::unix::fs::FileExt;
        let (offset, magic) = EXT4_MAGIC;
        let mut found = [0; 2];
        let looked = File::open(self.root_disk()).and_then(|file| {
            let length = file.metadata()?.len();
            file.read_exact_at(&mut found, offset)?;
            Ok(length)
        });
        match looked {
            Err(error) => Err(self.damaged(format!("cannot be read: {error}"))),
            Ok(length) if length != self.record.virtual_bytes => {
                let wants = self.record.virtual_bytes;
                Err(self.damaged(format!("has {length} bytes instead of {wants}")))
            }
            Ok(_) if found != magic => Err(self.damaged("is no ext4 file system".into())),
            Ok(_) => Ok(()),
        }
    }

    /// Reads all of it and compares fingerprints.
    ///
    /// # Errors
    /// [`FetchError::Damaged`].
    pub fn verify(&self) -> Result<(), FetchError> {
        self.check()?;
        if self.record.files != [digest(&self.folder)?] {
            return Err(self.damaged("was altered".into()));
        }
        Ok(())
    }
}

fn digest(folder: &Path) -> Result<FileDigest, FetchError> {
    let path = folder.join(ROOT_DISK);
    let file = File::open(&path).at("open", &path)?;
    let bytes = file.metadata().at("look at", &path)?.len();
    let sha256 = fetch::digest_of_blocks(&file).at("read", &path)?;
    Ok(FileDigest { name: ROOT_DISK.into(), bytes, sha256 })
}

/// Where an image comes from.
enum Origin<'a> {
    Recipe,
    File(&'a Path),
}

/// All images of a data folder.
#[derive(Debug)]
pub struct ImageStore {
    store: ObjectStore<ImageRecord>,
    tools: Tools,
    flight: SingleFlight,
}

impl ImageStore {
    /// The store in this folder.
    pub fn new(root: PathBuf, tools: Tools) -> Self {
        Self { store: ObjectStore::new(root), tools, flight: SingleFlight::default() }
    }

    /// All images.
    pub fn list(&self) -> Listing<ImageRecord> {
        self.store.list()
    }

    /// The image of a name, an id or a unique prefix of one.
    ///
    /// # Errors
    /// Not found, ambiguous, damaged.
    pub fn resolve(&self, wanted: &str) -> Result<Image, FetchError> {
        let (record, names) = self.store.resolve(wanted)?;
        let folder = self.store.folder(&record.id);
        Ok(Image { record, names, folder })
    }

    /// Makes the image of a built-in recipe, anew even if there is one. Callers at the same time
    /// share the work.
    ///
    /// # Errors
    /// What mmdebstrap needs and does not find; its failures; cancellation.
    pub fn pull(&self, name: &str, progress: &dyn Progress) -> Result<Image, ImageError> {
        if name != recipe::DEBIAN {
            return Err(ImageError::UnknownRecipe { name: name.chars().take(140).collect() });
        }
        match self.flight.join(name, progress)? {
            Flight::Done(id) => Ok(self.resolve(&id)?),
            Flight::Leader(mine) => {
                let id = self.make(name, &Origin::Recipe, progress)?;
                mine.done(&id);
                Ok(self.resolve(&id)?)
            }
        }
    }

    /// Makes an image of a rootfs tar: plain, gzip, zstd or xz. A name that exists is moved to it.
    ///
    /// # Errors
    /// A bad name; an archive that cannot be used; no space; cancellation.
    pub fn import(
        &self,
        path: &Path,
        name: &str,
        progress: &dyn Progress,
    ) -> Result<Image, ImageError> {
        self.store.check_name(name)?;
        loop {
            // Another archive under the same name waits for its turn, then takes the name.
            if let Flight::Leader(_mine) = self.flight.join(name, progress)? {
                let id = self.make(name, &Origin::File(path), progress)?;
                return Ok(self.resolve(&id)?);
            }
        }
    }

    fn make(
        &self,
        name: &str,
        origin: &Origin<'_>,
        progress: &dyn Progress,
    ) -> Result<String, ImageError> {
        let staging = self.store.stage()?;
        let object = staging.join("object");
        fs::create_dir(&object).at("make the folder", &object)?;
        let archive = staging.join("rootfs.tar");
        let (path, amend): (_, Amend<'_>) = match origin {
            Origin::Recipe => {
                recipe::debian(&archive, &self.tools, progress)?;
                (archive.as_path(), &recipe::amend)
            }
            Origin::File(path) => (*path, &|_| Ok(())),
        };
        let source = Source::open(path)?;
        let converted = convert::convert(&source, &object, amend, &self.tools, progress)?;
        progress.stage("compute the fingerprint");
        let files = vec![digest(&object)?];
        let (fingerprint, id) = fetch::id_of(&files);
        let (source, provenance) = match origin {
            Origin::Recipe => ("recipe debian".to_owned(), recipe::provenance()),
            Origin::File(path) => (
                format!("file {}", path.display()),
                format!("archive with SHA-256 {}", converted.source_sha256),
            ),
        };
        let record = ImageRecord {
            id,
            source,
            provenance,
            system: converted.facts.system,
            virtual_bytes: converted.virtual_bytes,
            init: converted.init,
            packages: converted.facts.packages,
            hidden_by_overlay: converted.hidden_by_overlay,
            created_at: fetch::now(),
            fingerprint,
            files,
        };
        progress.go_on()?;
        let whole = |known: ImageRecord| {
            let folder = self.store.folder(&known.id);
            Image { record: known, names: Vec::new(), folder }.check().is_ok()
        };
        self.store.publish(&object, &record, whole)?;
        self.store.name(name, &record.id)?;
        Ok(record.id)
    }

    /// Deletes by name, id or prefix; refused while VMs need it.
    ///
    /// # Errors
    /// Not found, in use.
    pub fn delete(&self, wanted: &str, in_use: &[InUse]) -> Result<Deleted, FetchError> {
        self.store.delete(wanted, in_use)
    }

    /// Deletes what has no name and no VM, and what a crash left half-made; returns the former, and
    /// all bytes freed.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn prune(&self, in_use: &[InUse]) -> Result<(Vec<Deleted>, u64), FetchError> {
        let half_made_bytes = self.clean_staging()?;
        let deleted = self.store.prune(in_use)?;
        let bytes = deleted.iter().map(|deleted| deleted.freed_bytes).sum::<u64>();
        Ok((deleted, bytes + half_made_bytes))
    }

    /// Removes what a crash left half-made; returns the bytes freed.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn clean_staging(&self) -> Result<u64, FetchError> {
        self.store.clean_staging(&|folder| sandbox::clean(folder, &self.tools))
    }
}
