//! Images whose root file system stays in the user's file, and their promotion to managed ones.
//!
//! The file is recorded with its digest and its times, and is checked at each start. It is never
//! written to and never deleted.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use banger_api::ByteString;
use banger_api::images::{TakenName, own_kernel_name};
use serde::{Deserialize, Serialize};

use super::capture::copy_ranges;
use super::convert::Input;
use super::worker::{self, Amendments};
use super::{Image, ImageError, ImageRecord, ImageStore, ROOT_DISK, sources};
use crate::ext4::volume::{State, Volume, Window};
use crate::fetch::{self, FetchError, FileDigest, Flight, PathContext, Progress};
use crate::kernels::{ImageDisk, KernelFiles, KernelStore};

/// The file of a registered image, as it was when it was registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisteredFile {
    /// Its absolute path.
    pub path: ByteString,
    seen: Seen,
}

/// An image to make of a file that stays where it is.
pub struct Registration<'a> {
    /// An ext4 file system.
    pub path: &'a Path,
    /// Name of the image.
    pub name: &'a str,
    /// Whether the name moves from another image.
    pub taken: TakenName,
    /// The kernel of its VMs, unless they ask for another; `None` for the default.
    pub kernel: Option<GivenKernel<'a>>,
    /// Where that kernel is kept.
    pub kernels: &'a KernelStore,
}

/// The kernel that is given to an image.
#[derive(Debug, Clone, Copy)]
pub enum GivenKernel<'a> {
    /// The one that the image contains.
    Contained,
    /// One of files.
    Files(KernelFiles<'a>),
}

/// What changes with the content of a file: stat(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    bytes: u64,
    mtime_s: i64,
    mtime_ns: i64,
    device: u64,
    inode: u64,
}

impl Seen {
    fn of(file: &File) -> std::io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            bytes: meta.len(),
            mtime_s: meta.mtime(),
            mtime_ns: meta.mtime_nsec(),
            device: meta.dev(),
            inode: meta.ino(),
        })
    }
}

fn digest_of(file: &File) -> std::io::Result<FileDigest> {
    let (bytes, sha256) = (file.metadata()?.len(), fetch::digest_of_blocks(file)?);
    Ok(FileDigest { name: ROOT_DISK.into(), bytes, sha256 })
}

impl RegisteredFile {
    /// The file.
    pub fn path(&self) -> PathBuf {
        self.path.as_path().to_owned()
    }

    /// Why the file is not what was registered, as a predicate. One with other times, such as a
    /// copy of it, is read whole.
    pub(super) fn problem(&self, digest: &[FileDigest]) -> Option<String> {
        let changed = || -> std::io::Result<bool> {
            let file = File::open(self.path())?;
            if Seen::of(&file)? == self.seen {
                return Ok(false);
            }
            Ok(digest != [digest_of(&file)?])
        };
        match changed() {
            Ok(false) => None,
            Ok(true) => Some("has changed since it was registered".into()),
            Err(error) => Some(format!("cannot be read: {error}")),
        }
    }
}

/// Checks that a file can be used as it is: an ext4 that was unmounted.
fn check(file: &File, path: &Path) -> Result<(), ImageError> {
    let bad = |why: String| ImageError::NotRegistrable { path: path.to_owned(), why };
    if !sources::is_ext4(file).at("read", path)? {
        return Err(bad("it is no ext4 file system".into()));
    }
    let copy = file.try_clone().at("open", path)?;
    let window = Window::new(copy, 0, u64::MAX).at("look at", path)?;
    let volume = Volume::open(window).map_err(|error| bad(error.to_string()))?;
    match volume.state() {
        State::Clean => Ok(()),
        State::Dirty => Err(bad("its file system was not unmounted cleanly".into())),
    }
}

impl ImageStore {
    /// Makes an image of a file that stays where it is.
    ///
    /// # Errors
    /// A bad or a taken name; a file that is not a clean ext4 with a root file system; a kernel
    /// that cannot boot guests; cancellation.
    pub fn register(
        &self,
        registration: &Registration<'_>,
        progress: &dyn Progress,
    ) -> Result<Image, ImageError> {
        self.alone(registration.name, progress, || self.make_registered(registration, progress))
    }

    fn make_registered(
        &self,
        registration: &Registration<'_>,
        progress: &dyn Progress,
    ) -> Result<String, ImageError> {
        let &Registration { path, name, taken, kernel, .. } = registration;
        let file = File::open(path).at("open", path)?;
        if !file.metadata().at("look at", path)?.is_file() {
            let why = "it is not a regular file".to_owned();
            return Err(ImageError::NotRegistrable { path: path.to_owned(), why });
        }
        let seen = Seen::of(&file).at("look at", path)?;
        check(&file, path)?;
        let staging = self.store.stage()?;
        let object = staging.join("object");
        fs::create_dir(&object).at("make the folder", &object)?;
        let (input, amendments) = (Input::File(path), Amendments::Inspect);
        let job = worker::Job { input, object: &object, amendments, tools: &self.tools, progress };
        let found = worker::run(self.conversion, job)?;
        progress.stage("compute the fingerprint");
        let files = vec![digest_of(&file).at("read", path)?];
        if Seen::of(&file).at("look at", path)? != seen {
            return Err(ImageError::SourceChanged { path: path.to_owned() });
        }
        let (fingerprint, id) = fetch::id_of(&files);
        let record = ImageRecord {
            id,
            source: format!("registered file {}", path.display()),
            provenance: found.source,
            system: found.facts.system,
            virtual_bytes: seen.bytes,
            init: found.init,
            opencode: found.opencode,
            packages: found.facts.packages,
            hidden_by_overlay: found.hidden_by_overlay,
            checked_for_overlay: true,
            config: None,
            signature: None,
            own_kernel: kernel.is_some(),
            created_at: fetch::now(),
            fingerprint,
            files,
            built: None,
            committed: None,
            registered: Some(RegisteredFile { path: path.into(), seen }),
        };
        progress.go_on()?;
        self.check_taken(name, taken, &record.id)?;
        registration.keep_kernel(&record.id, progress)?;
        self.store.publish(&object, &record, |known| self.is_intact(known))?;
        // The same file may have been registered before without a kernel.
        let known = self.store.record(&record.id)?;
        if record.own_kernel && !known.own_kernel {
            self.store.replace_record(&ImageRecord { own_kernel: true, ..known })?;
        }
        self.store.move_name(name, &record.id)?;
        Ok(record.id)
    }

    /// Copies the file of a registered image into the store. The image stays the same, with its id,
    /// its names and its VMs. An image that is in the store stays as it is.
    ///
    /// # Errors
    /// No such image; a file that changed or cannot be read; no space; cancellation.
    pub fn promote(&self, wanted: &str, progress: &dyn Progress) -> Result<Image, ImageError> {
        loop {
            let image = self.resolve(wanted)?;
            let Some(registered) = image.record.registered.clone() else { return Ok(image) };
            // Two promotions of one image run one after the other.
            if let Flight::Leader(_lead) = self.flight.join(&image.record.id, progress)? {
                self.copy_in(&image, &registered, progress)?;
                self.seed_best_effort(&image.record.id, progress);
                return Ok(self.resolve(&image.record.id)?);
            }
        }
    }

    fn copy_in(
        &self,
        image: &Image,
        registered: &RegisteredFile,
        progress: &dyn Progress,
    ) -> Result<(), ImageError> {
        let path = registered.path();
        let staging = self.store.stage()?;
        let source = File::open(&path).at("open", &path)?;
        let bytes = source.metadata().at("look at", &path)?.len();
        fetch::need_space(staging.path(), fetch::used_bytes(&path))?;
        let copy = staging.join(ROOT_DISK);
        let options = || {
            use std::os::unix::fs::OpenOptionsExt;
            File::options().read(true).write(true).create_new(true).mode(0o600).open(&copy)
        };
        let target = options().at("create", &copy)?;
        progress.stage("copy the file");
        copy_ranges(
            (&source, &path),
            &target,
            (bytes, std::iter::once(0..bytes).collect()),
            progress,
        )?;
        progress.stage("compute the fingerprint");
        if image.record.files != [digest_of(&target).at("read", &copy)?] {
            let why = "has changed since it was registered".to_owned();
            return Err(image.damaged(why).into());
        }
        progress.go_on()?;
        let record = ImageRecord { registered: None, ..image.record.clone() };
        // Until the record says so, the copy is not used: a crash in between leaves the image as it
        // was, and the next promotion replaces the copy.
        self.store.amend(&record, &copy, ROOT_DISK)?;
        Ok(())
    }
}

impl Registration<'_> {
    /// Puts the given kernel into the store, under the name of that of the image with this id. If
    /// the image is not made after all, nothing uses the kernel and a prune removes it.
    fn keep_kernel(&self, id: &str, progress: &dyn Progress) -> Result<(), ImageError> {
        match self.kernel {
            None => {}
            Some(GivenKernel::Contained) => {
                let image = ImageDisk { id, name: self.name, disk: self.path };
                self.kernels.of_image(image, progress)?;
            }
            Some(GivenKernel::Files(files)) => {
                let name = own_kernel_name(id);
                self.kernels.import(files, &name, TakenName::Replace, progress)?;
            }
        }
        Ok(())
    }
}

impl Image {
    /// Fails if the file of a registered image is not what was registered.
    pub(super) fn check_registered(&self) -> Result<(), FetchError> {
        let registered = self.record.registered.as_ref();
        match registered.and_then(|registered| registered.problem(&self.record.files)) {
            Some(why) => Err(self.damaged(why)),
            None => Ok(()),
        }
    }
}
