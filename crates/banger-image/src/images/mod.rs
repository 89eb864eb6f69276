//! Images: immutable root file systems on ext4 disks, created from archives or by recipes.
//!
//! ```text
//! <images>/<id>/root.ext4     the root disk: the lower layer of an overlay, or copied
//! <images>/<id>/image.json    the record
//! ```

mod capture;
pub mod confine;
mod convert;
mod debian_boot;
mod error;
mod overlay;
mod pull;
mod recipe;
mod recipe_progress;
mod rootfs;
mod sandbox;
mod sources;
mod unsupported;
mod upkeep;
pub mod worker;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use banger_api::container_ref::ContainerRef;
use banger_api::images::{ImageConfig, ImageSignature, Rebuild, TakenName};
pub use capture::{BuildRecord, Captured};
pub use error::ImageError;
pub use recipe::provenance as debian_provenance;
pub use rootfs::Init;
pub(crate) use sandbox::WorkFolder;
pub use sources::oci::OciError;
pub use sources::oci::manifest::{self, Digest};
pub use unsupported::UnsupportedFile;

use crate::fetch::{
    self, Deleted, FetchError, FileDigest, Flight, InUse, Kind, Listing, ObjectStore, PathContext,
    Progress, Record, SingleFlight, Staging, Tools,
};
use crate::registry;
use crate::trust::{self, TrustSettings};
use worker::{Amendments, Conversion};

/// The root disk within an object's folder.
pub const ROOT_DISK: &str = "root.ext4";
/// Offset and value of the magic number of ext4: `s_magic`, little-endian.
const EXT4_MAGIC: (u64, [u8; 2]) = (1024 + 56, [0x53, 0xef]);

/// Record of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRecord {
    /// Beginning of the fingerprint.
    pub id: String,
    /// Origin as text: a recipe or a file.
    pub source: String,
    /// Details of the origin: the recipe's contents, or the archive's SHA-256.
    pub provenance: String,
    /// Name of the distribution, from os-release.
    pub system: Option<String>,
    /// Length of the root disk in bytes.
    pub virtual_bytes: u64,
    /// The init; `None` if the agent is the init.
    pub init: Option<Init>,
    /// Number of installed packages, if known.
    pub packages: Option<u64>,
    /// What an overlay would not show as it is; the image is then not used beneath one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_by_overlay: Option<String>,
    /// Whether the import looked for such files; images of earlier versions lack the fact.
    #[serde(default)]
    pub checked_for_overlay: bool,
    /// How a container of the image runs; images of earlier versions and of other sources lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ImageConfig>,
    /// The signature that was verified when it was pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<ImageSignature>,
    /// Whether VMs boot the kernel that the image contains, unless another one is asked for.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub own_kernel: bool,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// SHA-256 over all files' digests.
    pub fingerprint: String,
    /// Its files.
    pub files: Vec<FileDigest>,
    /// How it was built, if it was built in a VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<BuildRecord>,
}

impl Record for ImageRecord {
    const FILE: &'static str = "image.json";
    const KIND: Kind = Kind::Image;
    fn id(&self) -> &str {
        &self.id
    }
}

/// An image in the store.
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
    /// The root disk, which must not be written to.
    pub fn root_disk(&self) -> PathBuf {
        self.folder.join(ROOT_DISK)
    }

    fn damaged(&self, why: String) -> FetchError {
        let (kind, id) = (Kind::Image, self.record.id.clone());
        FetchError::Damaged { kind, id, path: self.root_disk(), why }
    }

    /// Checks that the disk exists, has the right length and is ext4; called at every start.
    ///
    /// # Errors
    /// [`FetchError::Damaged`].
    pub fn check(&self) -> Result<(), FetchError> {
        use std::os::unix::fs::FileExt;
        let (offset, magic) = EXT4_MAGIC;
        let mut found = [0; 2];
        let checked = File::open(self.root_disk()).and_then(|file| {
            let length = file.metadata()?.len();
            file.read_exact_at(&mut found, offset)?;
            Ok(length)
        });
        match checked {
            Err(error) => Err(self.damaged(format!("cannot be read: {error}"))),
            Ok(length) if length != self.record.virtual_bytes => {
                let wants = self.record.virtual_bytes;
                Err(self.damaged(format!("has {length} bytes instead of {wants}")))
            }
            Ok(_) if found != magic => Err(self.damaged("is no ext4 file system".into())),
            Ok(_) => Ok(()),
        }
    }

    /// Compares the fingerprint of the whole disk.
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

/// Origin of an image.
enum Origin<'a> {
    Recipe,
    File { path: &'a Path, origin: &'a str, taken: TakenName, signature: Option<ImageSignature> },
}

/// The images of a data folder.
#[derive(Debug)]
pub struct ImageStore {
    store: ObjectStore<ImageRecord>,
    tools: Tools,
    conversion: Conversion,
    flight: SingleFlight,
    registries: registry::Settings,
    layers: registry::Cache,
    trust: TrustSettings,
}

impl ImageStore {
    /// The store in this folder; the layers of pulls are in a folder beside it.
    pub fn new(root: PathBuf, tools: Tools) -> Self {
        let layers = registry::Cache::new(root.with_file_name("layers"));
        let (store, flight) = (ObjectStore::new(root), SingleFlight::default());
        let (registries, conversion) = (registry::Settings::default(), Conversion::InProcess);
        let trust = TrustSettings::default();
        Self { store, tools, conversion, flight, registries, layers, trust }
    }

    /// Sets the process of conversions.
    #[must_use]
    pub fn converting(self, conversion: Conversion) -> Self {
        Self { conversion, ..self }
    }

    /// All images.
    pub fn list(&self) -> Listing<ImageRecord> {
        self.store.list()
    }

    /// Resolves a name, an id or a unique prefix of an id.
    ///
    /// # Errors
    /// Not found, ambiguous, damaged.
    pub fn resolve(&self, wanted: &str) -> Result<Image, FetchError> {
        let found = self.store.resolve(wanted);
        // An image of a registry in another spelling than its name.
        let (record, names) = match (found, wanted.parse::<ContainerRef>()) {
            (Err(FetchError::NotFound { kind, wanted, names }), Ok(other)) => self
                .store
                .resolve(&other.to_string())
                .map_err(|_| FetchError::NotFound { kind, wanted, names })?,
            (found, _) => found?,
        };
        let folder = self.store.folder(&record.id);
        Ok(Image { record, names, folder })
    }

    /// Creates the image of a built-in recipe, or of a registry. An intact image of the same recipe
    /// is kept, unless `rebuild` is set. Concurrent callers share one build.
    ///
    /// # Errors
    /// Missing requirements of mmdebstrap; its errors; those of a registry; cancellation.
    pub fn pull(
        &self,
        name: &str,
        rebuild: Rebuild,
        progress: &dyn Progress,
    ) -> Result<Image, ImageError> {
        if name != recipe::DEBIAN {
            let unknown = || ImageError::UnknownRecipe { name: name.chars().take(140).collect() };
            if let Some(listed) = self.trust.find(trust::Wanted::Image, name)? {
                return self.pull_listed(name, &listed, progress);
            }
            return self.pull_container(&name.parse().map_err(|_| unknown())?, progress);
        }
        match self.flight.join(name, progress)? {
            Flight::Done(id) => Ok(self.resolve(&id)?),
            Flight::Leader(lead) => {
                let known = self.resolve(name).ok().filter(|known| {
                    known.record.provenance == recipe::provenance() && known.check().is_ok()
                });
                let id = match known {
                    Some(known) if rebuild == Rebuild::IfOutdated => {
                        let made = &known.record.created_at;
                        progress.stage(&format!("up to date: made {made} by the same recipe"));
                        known.record.id
                    }
                    _ => self.make(name, &Origin::Recipe, progress)?,
                };
                lead.done(&id);
                Ok(self.resolve(&id)?)
            }
        }
    }

    /// Creates an image from the archive of a root file system, plain or compressed; `origin` is
    /// the origin as text. `taken` decides whether the name moves from another image.
    ///
    /// # Errors
    /// A bad or a taken name; an archive that cannot be used; no space; cancellation.
    pub fn import(
        &self,
        path: &Path,
        origin: &str,
        name: &str,
        taken: TakenName,
        progress: &dyn Progress,
    ) -> Result<Image, ImageError> {
        self.store.check_name(name)?;
        loop {
            // Imports under the same name run one after the other; the last one gets the name.
            if let Flight::Leader(_lead) = self.flight.join(name, progress)? {
                let file = Origin::File { path, origin, taken, signature: None };
                let id = self.make(name, &file, progress)?;
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
        let (path, amendments) = match origin {
            Origin::Recipe => {
                recipe::debian(&archive, &self.tools, progress)?;
                (archive.as_path(), Amendments::Debian)
            }
            Origin::File { path, .. } => (*path, Amendments::Plain),
        };
        let tools = &self.tools;
        let job = worker::Job { archive: path, object: &object, amendments, tools, progress };
        let converted = worker::run(self.conversion, job)?;
        progress.stage("compute the fingerprint");
        let files = vec![digest(&object)?];
        let (fingerprint, id) = fetch::id_of(&files);
        let (source, provenance) = match origin {
            Origin::Recipe => ("recipe debian".to_owned(), recipe::provenance()),
            Origin::File { origin, .. } => ((*origin).to_owned(), converted.source),
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
            checked_for_overlay: true,
            config: converted.config,
            signature: match origin {
                Origin::Recipe => None,
                Origin::File { signature, .. } => signature.clone(),
            },
            own_kernel: false,
            created_at: fetch::now(),
            fingerprint,
            files,
            built: None,
        };
        progress.go_on()?;
        if let Origin::File { taken, .. } = origin {
            self.check_taken(name, *taken, &record.id)?;
        }
        let whole = |known: ImageRecord| {
            let folder = self.store.folder(&known.id);
            // A new import completes the record of an earlier version.
            let complete = known.checked_for_overlay;
            complete && Image { record: known, names: Vec::new(), folder }.check().is_ok()
        };
        self.store.publish(&object, &record, whole)?;
        self.store.move_name(name, &record.id)?;
        Ok(record.id)
    }

    /// Creates a staging folder for an upload.
    ///
    /// # Errors
    /// mkdir(2).
    pub fn stage(&self) -> Result<Staging, FetchError> {
        self.store.stage()
    }

    /// Points a name to an image. Another image whose only name this was keeps a name
    /// (`Self::replaced`).
    ///
    /// # Errors
    /// An invalid name; write(2).
    pub fn tag(&self, id: &str, name: &str) -> Result<(), FetchError> {
        self.store.move_name(name, id)
    }

    /// Moved names, with the ids of the images that had them before.
    ///
    /// # Errors
    /// unlink(2).
    pub fn replaced(&self) -> Result<Vec<(String, String)>, FetchError> {
        self.store.replaced()
    }

    /// Forgets the move of a name.
    ///
    /// # Errors
    /// unlink(2).
    pub fn settled(&self, name: &str) -> Result<(), FetchError> {
        self.store.settled(name)
    }

    /// Removes a name.
    ///
    /// # Errors
    /// unlink(2).
    pub fn untag(&self, name: &str) -> Result<(), FetchError> {
        self.store.remove_name(name)
    }

    /// Deletes by name, id or prefix; refused while VMs use the image.
    ///
    /// # Errors
    /// Not found, in use.
    pub fn delete(&self, wanted: &str, in_use: &[InUse]) -> Result<Deleted, FetchError> {
        self.store.delete(wanted, in_use)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The record of an import by a version that did not look for files that an overlay hides.
    const EARLIER: &str = r#"{"id":"31d52b1d95af71ad","source":"rootfs.tar",
        "provenance":"archive with SHA-256 00","system":null,"virtual_bytes":1,"init":null,
        "packages":null,"created_at":"2026-01-01T00:00:00Z","fingerprint":"00","files":[]}"#;

    #[test]
    fn an_overlay_needs_an_image_that_was_checked() {
        let mut record: ImageRecord = serde_json::from_str(EARLIER).unwrap();
        assert!(record.check_overlay().unwrap_err().contains("import it again"));
        record.checked_for_overlay = true;
        assert_eq!(record.check_overlay(), Ok(()));
        record.hidden_by_overlay = Some("`/etc/x`".into());
        assert!(record.check_overlay().unwrap_err().contains("`/etc/x`"));
        let mut made: ImageRecord = serde_json::from_str(EARLIER).unwrap();
        made.provenance = recipe::provenance();
        assert_eq!(made.check_overlay(), Ok(()));
    }
}
