//! Images: immutable root file systems on ext4 disks, created from archives or by recipes.
//!
//! ```text
//! <images>/<id>/root.ext4     the root disk: the lower layer of an overlay, or copied
//! <images>/<id>/image.json    the record
//! <images>/<id>/work.ext4     the work seed, if `/root` has many files
//! <images>/<id>/work.json     its record
//! ```

mod capture;
mod clean;
mod commit;
pub mod confine;
mod convert;
mod debian_boot;
mod error;
mod image;
mod overlay;
mod packages;
mod pull;
mod recipe;
mod recipe_progress;
mod registered;
mod rootfs;
mod sandbox;
mod sources;
mod unsupported;
mod upkeep;
mod work_seed;
pub mod worker;

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use banger_api::container_ref::ContainerRef;
use banger_api::images::{CommittedFrom, ImageConfig, ImageSignature, Rebuild, TakenName};
pub use capture::{BuildRecord, Captured};
pub use commit::Committed;
pub use convert::Input;
pub use error::ImageError;
pub use image::Image;
use image::digest;
pub use recipe::provenance as debian_provenance;
pub use registered::{GivenKernel, RegisteredFile, Registration};
pub use rootfs::Init;
pub(crate) use sandbox::WorkFolder;
pub use sources::oci::OciError;
pub use sources::oci::manifest::{self, Digest};
pub use sources::vm_disk::VmDisk;
pub use unsupported::UnsupportedFile;
pub use work_seed::{WORK_SEED, WorkSeed};

use crate::fetch::{
    self, Deleted, FetchError, FileDigest, Flight, InUse, Kind, Listing, ObjectStore, PathContext,
    Progress, Record, SingleFlight, Staging, Tools,
};
use crate::registry;
use crate::trust::{self, TrustSettings};
use worker::{Amendments, Conversion};

/// The root disk within an object's folder.
pub const ROOT_DISK: &str = "root.ext4";

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
    /// Whether it has opencode, whose server its VMs start; images of earlier versions lack the
    /// fact.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub opencode: bool,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// SHA-256 over all files' digests.
    pub fingerprint: String,
    /// Its files.
    pub files: Vec<FileDigest>,
    /// How it was built, if it was built in a VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<BuildRecord>,
    /// The VM whose disk it was, if it was made by a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<CommittedFrom>,
    /// The file with the root file system, if it is not in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered: Option<RegisteredFile>,
}

impl Record for ImageRecord {
    const FILE: &'static str = "image.json";
    const KIND: Kind = Kind::Image;
    fn id(&self) -> &str {
        &self.id
    }
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
        let file = Origin::File { path, origin, taken, signature: None };
        self.alone(name, progress, || self.make(name, &file, progress))
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
        let input = Input::File(path);
        let job = worker::Job { input, object: &object, amendments, tools, progress };
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
            opencode: converted.opencode,
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
            committed: None,
            registered: None,
        };
        progress.go_on()?;
        if let Origin::File { taken, .. } = origin {
            self.check_taken(name, *taken, &record.id)?;
        }
        // A new import completes the record of an earlier version.
        let whole = |known: ImageRecord| known.checked_for_overlay && self.is_intact(known);
        work_seed::record(&object, &record.fingerprint)?;
        self.store.publish(&object, &record, whole)?;
        self.store.move_name(name, &record.id)?;
        Ok(record.id)
    }

    /// Whether the files of an image are those of its record.
    fn is_intact(&self, record: ImageRecord) -> bool {
        let folder = self.store.folder(&record.id);
        Image { record, names: Vec::new(), folder }.check().is_ok()
    }

    /// Makes an image under a name. Works under the same name run one after the other; the last one
    /// gets the name.
    fn alone(
        &self,
        name: &str,
        progress: &dyn Progress,
        make: impl FnOnce() -> Result<String, ImageError>,
    ) -> Result<Image, ImageError> {
        self.store.check_name(name)?;
        loop {
            if let Flight::Leader(_lead) = self.flight.join(name, progress)? {
                return Ok(self.resolve(&make()?)?);
            }
        }
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
