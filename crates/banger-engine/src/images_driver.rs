//! Driver trait of images and kernels.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use banger_api::ApiError;
use banger_api::disk::{Stored, StoredKind};
use banger_api::ids::ImageId;
use banger_api::images::{Deleted, ImageView, KernelView, OWN_KERNEL, Rebuild, TakenName};

use crate::plan::BootSet;
use crate::program::ImageStart;
use crate::progress::Progress;

/// An image that lost its only name to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// The name.
    pub name: String,
    /// The image that had it.
    pub image: ImageId,
}

/// An archive to import as an image.
pub struct Archive {
    /// The file.
    pub path: PathBuf,
    /// Its source for messages: the path, or `standard input`.
    pub origin: String,
    /// Removes a temporary file when dropped.
    pub temporary: Option<Box<dyn Send + Sync>>,
}

/// Files to import as a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelFiles {
    /// Debian package, bzImage or vmlinux.
    pub path: PathBuf,
    /// Folder with the modules of a bzImage or vmlinux.
    pub modules: Option<PathBuf>,
}

/// An image whose root file system stays in a file of the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Absolute path of an ext4 file system.
    pub rootfs: PathBuf,
    /// Name of the image.
    pub name: String,
    /// Whether the name moves from another image.
    pub taken: TakenName,
    /// The kernel of its VMs; `None` for the default.
    pub kernel: Option<GivenKernel>,
}

/// The kernel that is given to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenKernel {
    /// The one that the image contains.
    Contained,
    /// One of files.
    Files(KernelFiles),
}

/// The kernel of a new VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedKernel<'a> {
    /// Named by the request: a name, an id, or [`OWN_KERNEL`].
    Named(&'a str),
    /// The default, unless the image has to boot its own.
    Default(&'a str),
}

impl<'a> WantedKernel<'a> {
    /// The kernel of a request, or the default.
    pub fn of(requested: Option<&'a str>, default: &'a str) -> Self {
        requested.map_or(Self::Default(default), Self::Named)
    }

    /// Its name.
    pub fn name(self) -> &'a str {
        match self {
            Self::Named(name) | Self::Default(name) => name,
        }
    }

    /// Whether it is the kernel that the image contains.
    pub fn is_own(self) -> bool {
        self.name() == OWN_KERNEL
    }
}

/// Images and kernels.
#[async_trait]
pub trait Images: Send + Sync {
    /// Whether `image` and `kernel` exist or can be fetched.
    fn check(&self, image: &str, kernel: WantedKernel<'_>) -> Result<(), ApiError>;
    /// Image and kernel of these names; fetches missing ones, and unpacks the kernel of an image.
    async fn boot_set(
        &self,
        image: &str,
        kernel: WantedKernel<'_>,
        progress: Arc<dyn Progress>,
    ) -> Result<BootSet, ApiError>;
    /// What an image starts: its init, or how a container of it runs.
    async fn image_start(&self, image: &ImageId) -> Result<ImageStart, ApiError>;
    /// Builds an image by a built-in recipe; returns its id.
    async fn pull_image(
        &self,
        name: &str,
        rebuild: Rebuild,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError>;
    /// Imports an image from an archive; returns its id.
    async fn import_image(
        &self,
        archive: &Archive,
        name: &str,
        taken: TakenName,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError>;
    /// Makes an image of a file that stays where it is; returns its id.
    async fn register_image(
        &self,
        registration: Registration,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError>;
    /// Copies the file of a registered image into the store; returns the id, which stays.
    async fn promote_image(
        &self,
        image: &ImageView,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError>;
    /// A new file for an uploaded archive.
    fn upload(&self) -> Result<Archive, ApiError>;
    /// Gives a name to an image, taking it from another image if necessary.
    async fn tag_image(&self, image: &ImageView, name: &str) -> Result<(), ApiError>;
    /// Images whose only name has moved to another image by a pull, import or tag, also of an
    /// earlier daemon. Each has a name of its own; the caller deletes or keeps it.
    async fn replaced(&self) -> Result<Vec<Replaced>, ApiError>;
    /// The image that had this name before has been deleted or is kept.
    async fn settled(&self, name: &str) -> Result<(), ApiError>;
    /// Removes a name of an image that has other names.
    async fn untag_image(&self, name: &str) -> Result<(), ApiError>;
    /// Removes a name of a kernel that has other names.
    async fn untag_kernel(&self, name: &str) -> Result<(), ApiError>;
    /// Removes unfinished files of earlier daemons, but not those of operations in progress;
    /// returns the freed bytes.
    async fn clean(&self) -> Result<u64, ApiError>;
    /// Fetches a kernel; returns its id.
    async fn pull_kernel(&self, name: &str, p: Arc<dyn Progress>) -> Result<String, ApiError>;
    /// Builds a kernel by a recipe; its whole output goes to the log. Returns its id.
    async fn build_kernel(
        &self,
        name: &str,
        log: Box<dyn std::io::Write + Send>,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError>;
    /// Imports a kernel from files; returns its id.
    async fn import_kernel(
        &self,
        files: &KernelFiles,
        name: &str,
        taken: TakenName,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError>;
    /// All images; `used_by` is left empty.
    async fn images(&self) -> Result<Vec<ImageView>, ApiError>;
    /// Installed packages of an image with their versions, sorted.
    async fn packages(&self, image: &ImageView) -> Result<Vec<String>, ApiError>;
    /// All kernels; `used_by` is left empty.
    async fn kernels(&self) -> Result<Vec<KernelView>, ApiError>;
    /// Removes an image that no VM uses, with all its names.
    async fn delete_image(&self, image: &ImageView) -> Result<Deleted, ApiError>;
    /// Removes a kernel that no VM uses.
    async fn delete_kernel(&self, kernel: &KernelView) -> Result<Deleted, ApiError>;
    /// Caches, logs of VMs that are gone, and unfinished objects.
    async fn files(&self) -> Result<Vec<Stored>, ApiError>;
    /// Removes one of them that is not in use; returns the freed bytes.
    async fn remove_file(&self, kind: StoredKind, id: &str) -> Result<u64, ApiError>;
}
