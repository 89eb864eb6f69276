//! Kernels: fetched with the host's package tools, and stored uncompressed.
//!
//! ```text
//! <kernels>/<id>/vmlinux         uncompressed ELF, for PVH or direct start
//! <kernels>/<id>/modules.ext4    read-only disk with one folder <release>/: /lib/modules/<release>
//! <kernels>/<id>/boot-modules/   the few modules of the boot initramfs; `order` lists their files
//! <kernels>/<id>/kernel.json     the record
//! ```

mod apt;
mod boot_files;
mod build;
mod built_in;
mod bzimage;
mod deb;
mod error;
mod import;
mod modules;
mod of_image;
mod prepare;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use apt::META_PACKAGE;
pub use bzimage::KernelFormatError;
pub use error::KernelError;
pub use import::KernelFiles;
pub use modules::ModulesError;
pub use of_image::ImageDisk;

use crate::fetch::{
    self, Deleted, FetchError, FileDigest, Flight, InUse, Kind, Listing, ObjectStore, PathContext,
    Progress, Record, SingleFlight, Tools,
};
use crate::images::WorkFolder;
use crate::registry;
use crate::trust::{self, TrustSettings};

/// Files of an object.
const VMLINUX: &str = "vmlinux";
/// Disk with the modules, in the folder of a kernel.
pub const MODULES: &str = "modules.ext4";
const BOOT_MODULES: &str = "boot-modules";
const ORDER: &str = "order";

/// Minimum free bytes before a pull: for the package, the unpacked modules, and the object.
const PULL_BYTES: u64 = 700 << 20;

/// The built-in recipe.
const DEBIAN: &str = banger_api::images::DEFAULT_KERNEL;

/// The record of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelRecord {
    /// Prefix of the fingerprint.
    pub id: String,
    /// `uname -r`.
    pub release: String,
    /// Source of the kernel, for users.
    pub source: String,
    /// Version of the package.
    pub package_version: String,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// SHA-256 of all files' digests.
    pub fingerprint: String,
    /// Files of the object.
    pub files: Vec<FileDigest>,
}

impl Record for KernelRecord {
    const FILE: &'static str = "kernel.json";
    const KIND: Kind = Kind::Kernel;
    fn id(&self) -> &str {
        &self.id
    }
}

/// A stored kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its record.
    pub record: KernelRecord,
    /// Names that point to it.
    pub names: Vec<String>,
    /// Its folder.
    pub folder: PathBuf,
}

impl Kernel {
    /// The uncompressed ELF file.
    pub fn vmlinux(&self) -> PathBuf {
        self.folder.join(VMLINUX)
    }

    /// The read-only disk of its modules.
    pub fn modules_disk(&self) -> PathBuf {
        self.folder.join(MODULES)
    }

    /// The folder of modules for the boot initramfs.
    pub fn boot_modules(&self) -> PathBuf {
        self.folder.join(BOOT_MODULES)
    }

    /// File names of the boot modules in loading order.
    ///
    /// # Errors
    /// [`FetchError::Damaged`].
    pub fn boot_order(&self) -> Result<Vec<String>, FetchError> {
        let path = self.boot_modules().join(ORDER);
        let text = fs::read_to_string(&path).at("read", &path)?;
        let names: Vec<String> = text.lines().map(str::to_owned).collect();
        if let Some(bad) = names.iter().find(|name| modules::name_of(name).is_none()) {
            return Err(self.damaged(path, format!("lists `{bad}`")));
        }
        Ok(names)
    }

    /// Allocated size in bytes.
    pub fn used_bytes(&self) -> u64 {
        fetch::used_bytes(&self.folder)
    }

    fn damaged(&self, path: PathBuf, why: String) -> FetchError {
        FetchError::Damaged { kind: Kind::Kernel, id: self.record.id.clone(), path, why }
    }

    /// Checks that its files exist with the right sizes, and that the kernel is an ELF file: fast
    /// enough for every start.
    ///
    /// # Errors
    /// [`FetchError::Damaged`].
    pub fn check(&self) -> Result<(), FetchError> {
        for file in &self.record.files {
            let path = self.folder.join(&file.name);
            let length = fs::metadata(&path).map_or(0, |meta| meta.len());
            if length != file.bytes {
                let why = format!("has {length} bytes instead of {}", file.bytes);
                return Err(self.damaged(path, why));
            }
        }
        let bytes = self.record.files.iter().find(|file| file.name == VMLINUX).map(|f| f.bytes);
        prepare::check_quickly(&self.folder, bytes.unwrap_or_default())
            .map_err(|(path, why)| self.damaged(path, why))
    }

    /// Reads all files and compares fingerprints.
    ///
    /// # Errors
    /// [`FetchError::Damaged`]; cancellation.
    pub fn verify(&self, progress: &dyn Progress) -> Result<(), FetchError> {
        self.check()?;
        for file in &self.record.files {
            progress.go_on()?;
            let found = digest(&self.folder, &file.name)?;
            if found != *file {
                return Err(self.damaged(self.folder.join(&file.name), "was altered".into()));
            }
        }
        Ok(())
    }
}

fn digest(folder: &Path, name: &str) -> Result<FileDigest, FetchError> {
    let path = folder.join(name);
    let file = File::open(&path).at("open", &path)?;
    let bytes = file.metadata().at("look at", &path)?.len();
    let sha256 =
        if name == MODULES { fetch::digest_of_blocks(&file) } else { fetch::digest_of_file(&file) };
    Ok(FileDigest { name: name.to_owned(), bytes, sha256: sha256.at("read", &path)? })
}

/// The kernels of a data folder.
#[derive(Debug)]
pub struct KernelStore {
    store: ObjectStore<KernelRecord>,
    tools: Tools,
    flight: SingleFlight,
    catalogs: Catalogs,
}

/// Catalogs with kernels, and how their files are fetched.
#[derive(Debug, Clone, Default)]
pub struct Catalogs {
    /// The catalogs.
    pub trust: TrustSettings,
    /// How servers are reached.
    pub registries: registry::Settings,
    /// Where files are downloaded to.
    pub cache: Option<registry::Cache>,
}

impl KernelStore {
    /// The store in this folder.
    pub fn new(root: PathBuf, tools: Tools) -> Self {
        let (flight, catalogs) = (SingleFlight::default(), Catalogs::default());
        Self { store: ObjectStore::new(root), tools, flight, catalogs }
    }

    /// Sets the catalogs.
    #[must_use]
    pub fn with_catalogs(self, catalogs: Catalogs) -> Self {
        Self { catalogs, ..self }
    }

    /// The catalogs.
    pub fn trust(&self) -> &TrustSettings {
        &self.catalogs.trust
    }

    /// All kernels.
    pub fn list(&self) -> Listing<KernelRecord> {
        self.store.list()
    }

    /// Finds a kernel by name, id or unique prefix of an id.
    ///
    /// # Errors
    /// Not found, ambiguous, damaged.
    pub fn resolve(&self, wanted: &str) -> Result<Kernel, FetchError> {
        let (record, names) = self.store.resolve(wanted)?;
        let folder = self.store.folder(&record.id);
        Ok(Kernel { record, names, folder })
    }

    /// Fetches Debian's cloud kernel, or one of a catalog by its name. Downloads nothing if the
    /// newest version is stored. Concurrent callers share one download.
    ///
    /// # Errors
    /// Errors of apt, of the package, or of the disk; cancellation.
    pub fn pull(&self, name: &str, progress: &dyn Progress) -> Result<Kernel, KernelError> {
        if name != DEBIAN {
            if let Some(listed) = self.catalogs.trust.find(trust::Wanted::Kernel, name)? {
                return self.pull_listed(name, &listed, progress);
            }
            return Err(KernelError::UnknownRecipe { name: name.chars().take(140).collect() });
        }
        match self.flight.join(name, progress)? {
            Flight::Done(id) => Ok(self.resolve(&id)?),
            Flight::Leader(mine) => {
                let id = self.fetch(name, progress)?;
                mine.done(&id);
                Ok(self.resolve(&id)?)
            }
        }
    }

    fn fetch(&self, name: &str, progress: &dyn Progress) -> Result<String, KernelError> {
        let staging = self.store.stage()?;
        fetch::need_space(staging.path(), PULL_BYTES)?;
        let mut apt = apt::Apt::new(&self.tools, staging.path(), &apt::KERNEL);
        let package = apt.current(progress)?;
        if let Some(id) = self.has(name, &package) {
            progress.log(&format!("{} {} is here already", package.name, package.version));
            return Ok(id);
        }
        let (package, deb) = apt.download(package, progress)?;
        let (object, tree) = (staging.join("object"), staging.join("unpacked"));
        for path in [&object, &tree] {
            fs::create_dir(path).at("make the folder", path)?;
        }
        let unpacked = deb::unpack(&deb, &tree, &self.tools, progress)?;
        prepare::kernel(&unpacked.kernel, &object.join(VMLINUX), &self.tools, progress)?;
        let (source, version) = (source(&package), package.version);
        let record = self.make(&unpacked, &object, source, version, progress)?;
        progress.go_on()?;
        self.publish(name, &object, &record)?;
        Ok(record.id)
    }

    /// Publishes an object under a name.
    fn publish(&self, name: &str, object: &Path, record: &KernelRecord) -> Result<(), FetchError> {
        let whole = |known: KernelRecord| {
            let folder = self.store.folder(&known.id);
            Kernel { record: known, names: Vec::new(), folder }.check().is_ok()
        };
        self.store.publish(object, record, whole)?;
        self.store.name(name, &record.id)
    }

    /// Id of the named kernel, if it is of this package and complete.
    fn has(&self, name: &str, package: &apt::Package) -> Option<String> {
        let kernel = self.resolve(name).ok()?;
        let same = kernel.record.source == source(package)
            && kernel.record.package_version == package.version;
        (same && kernel.check().is_ok()).then_some(kernel.record.id)
    }

    /// Completes an object that has its kernel.
    fn make(
        &self,
        unpacked: &deb::Unpacked,
        object: &Path,
        source: String,
        package_version: String,
        progress: &dyn Progress,
    ) -> Result<KernelRecord, KernelError> {
        prepare::unpack_modules(&unpacked.modules(), &self.tools, progress)?;
        prepare::index_modules(unpacked, &self.tools, progress)?;
        prepare::boot_modules(unpacked, object)?;
        prepare::modules_disk(unpacked, object, progress)?;
        progress.stage("compute the fingerprint");
        let mut names = vec![VMLINUX.to_owned(), MODULES.to_owned()];
        let folder = object.join(BOOT_MODULES);
        for entry in fs::read_dir(&folder).at("read the folder", &folder)?.flatten() {
            names.push(format!("{BOOT_MODULES}/{}", entry.file_name().to_string_lossy()));
        }
        names.sort();
        let files: Result<Vec<_>, _> = names.iter().map(|name| digest(object, name)).collect();
        let files = files?;
        let (fingerprint, id) = fetch::id_of(&files);
        Ok(KernelRecord {
            id,
            release: unpacked.release.clone(),
            source,
            package_version,
            created_at: fetch::now(),
            fingerprint,
            files,
        })
    }

    /// Removes one of several names of a kernel.
    ///
    /// # Errors
    /// No such name; unlink(2).
    pub fn untag(&self, name: &str) -> Result<(), FetchError> {
        self.store.remove_name(name)
    }

    /// Deletes by name, id or prefix; refused while VMs use the kernel.
    ///
    /// # Errors
    /// Not found, in use.
    pub fn delete(&self, wanted: &str, in_use: &[InUse]) -> Result<Deleted, FetchError> {
        self.store.delete(wanted, in_use)
    }

    /// Deletes kernels without a name and without a VM, and incomplete ones of a crash; returns the
    /// former and all freed bytes.
    ///
    /// # Errors
    /// A kernel cannot be removed.
    pub fn prune(&self, in_use: &[InUse]) -> Result<(Vec<Deleted>, u64), FetchError> {
        let half_made_bytes = self.clean_staging()?;
        let deleted = self.store.prune(in_use)?;
        let bytes = deleted.iter().map(|deleted| deleted.freed_bytes).sum::<u64>();
        Ok((deleted, bytes + half_made_bytes))
    }

    /// Removes incomplete kernels of a crash; returns the freed bytes.
    ///
    /// # Errors
    /// A folder cannot be removed.
    pub fn clean_staging(&self) -> Result<u64, FetchError> {
        self.store.clean_staging(&|folder| WorkFolder::clean(folder, &self.tools))
    }
}

fn source(package: &apt::Package) -> String {
    format!("Debian package {}", package.name)
}
