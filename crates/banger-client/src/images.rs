//! Calls for images and kernels.

use banger_api::images::{
    Deleted, ImageHistoryEntry, ImagePullRequest, ImageView, ImportRequest, KernelBuildRequest,
    KernelImportRequest, KernelView, PullRequest, TagRequest,
};
use banger_api::operation::Accepted;
use banger_api::routes;

use crate::call::Idempotency;
use crate::client::{Client, Result, fill};
use crate::http::Call;

impl Client {
    /// All images.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn images(&self) -> Result<Vec<ImageView>> {
        self.ask(Call::get(routes::IMAGES), Idempotency::Idempotent).await
    }

    /// One image.
    ///
    /// # Errors
    /// Not found, ambiguous, or the daemon's.
    pub async fn image(&self, image: &str) -> Result<ImageView> {
        self.ask(Call::get(fill(routes::IMAGE, "image", image)?), Idempotency::Idempotent).await
    }

    /// An image, and the images from which it was made.
    ///
    /// # Errors
    /// Not found, ambiguous, or the daemon's.
    pub async fn image_history(&self, image: &str) -> Result<Vec<ImageHistoryEntry>> {
        let path = fill(routes::IMAGE_HISTORY, "image", image)?;
        self.ask(Call::get(path), Idempotency::Idempotent).await
    }

    /// Installed packages of an image with their versions.
    ///
    /// # Errors
    /// Not found, ambiguous, or the daemon's.
    pub async fn image_packages(&self, image: &str) -> Result<Vec<String>> {
        let path = fill(routes::IMAGE_PACKAGES, "image", image)?;
        self.ask(Call::get(path), Idempotency::Idempotent).await
    }

    /// Removes an image.
    ///
    /// # Errors
    /// Not found, ambiguous, used by a VM, or the daemon's.
    pub async fn delete_image(&self, image: &str) -> Result<Deleted> {
        self.ask(Call::delete(fill(routes::IMAGE, "image", image)?), Idempotency::NotIdempotent)
            .await
    }

    /// Creates an image from a built-in recipe.
    ///
    /// # Errors
    /// An unknown recipe, or the daemon's.
    pub async fn pull_image(&self, request: &ImagePullRequest) -> Result<Accepted> {
        self.ask(Call::post(routes::IMAGE_PULL, request)?, Idempotency::Idempotent).await
    }

    /// Creates an image from a file.
    ///
    /// # Errors
    /// A bad name or path, or the daemon's.
    pub async fn import_image(&self, request: &ImportRequest) -> Result<Accepted> {
        self.ask(Call::post(routes::IMAGE_IMPORT, request)?, Idempotency::NotIdempotent).await
    }

    /// Adds a name to an image.
    ///
    /// # Errors
    /// Not found, a name of another image, or the daemon's.
    pub async fn tag_image(&self, image: &str, request: &TagRequest) -> Result<ImageView> {
        let route = fill(routes::IMAGE_TAGS, "image", image)?;
        self.ask(Call::post(route, request)?, Idempotency::Idempotent).await
    }

    /// Removes one of several names of an image.
    ///
    /// # Errors
    /// Not found, the last name, or the daemon's.
    pub async fn untag_image(&self, name: &str) -> Result<ImageView> {
        self.ask(Call::delete(fill(routes::IMAGE_TAG, "name", name)?), Idempotency::NotIdempotent)
            .await
    }

    /// All kernels.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn kernels(&self) -> Result<Vec<KernelView>> {
        self.ask(Call::get(routes::KERNELS), Idempotency::Idempotent).await
    }

    /// Removes a kernel.
    ///
    /// # Errors
    /// Not found, ambiguous, used by a VM, or the daemon's.
    pub async fn delete_kernel(&self, kernel: &str) -> Result<Deleted> {
        self.ask(Call::delete(fill(routes::KERNEL, "kernel", kernel)?), Idempotency::NotIdempotent)
            .await
    }

    /// Fetches a kernel.
    ///
    /// # Errors
    /// An unknown recipe, or the daemon's.
    pub async fn pull_kernel(&self, request: &PullRequest) -> Result<Accepted> {
        self.ask(Call::post(routes::KERNEL_PULL, request)?, Idempotency::Idempotent).await
    }

    /// Builds a kernel by a recipe.
    ///
    /// # Errors
    /// An unknown recipe, or the daemon's.
    pub async fn build_kernel(&self, request: &KernelBuildRequest) -> Result<Accepted> {
        self.ask(Call::post(routes::KERNEL_BUILD, request)?, Idempotency::NotIdempotent).await
    }

    /// Creates a kernel from files.
    ///
    /// # Errors
    /// A bad name or path, or the daemon's.
    pub async fn import_kernel(&self, request: &KernelImportRequest) -> Result<Accepted> {
        self.ask(Call::post(routes::KERNEL_IMPORT, request)?, Idempotency::NotIdempotent).await
    }
}
