//! Kernels of VMs: stored ones, fetched ones, and those that images contain.

use std::sync::Arc;

use banger_api::ApiError;
use banger_api::images::own_kernel_name;
use banger_api::operation::stage;
use banger_engine::drivers::Progress;
use banger_image::fetch::FetchError;
use banger_image::images::Image;
use banger_image::kernels::{self, Kernel};

use crate::failure::blocking;
use crate::images_driver::LocalImages;
use crate::relay::Relay;

impl LocalImages {
    /// A stored kernel; fetched if it is missing.
    pub(crate) async fn kernel(
        &self,
        name: &str,
        progress: Arc<dyn Progress>,
    ) -> Result<Kernel, ApiError> {
        match self.kernels.resolve(name) {
            Ok(kernel) => Ok(kernel),
            Err(FetchError::NotFound { .. }) => self.fetch_kernel(name, progress).await,
            Err(error) => Err(banger_image::advice::fetch(&error)),
        }
    }

    /// The kernel that an image contains.
    pub(crate) async fn own_kernel(
        &self,
        image: &Image,
        progress: Arc<dyn Progress>,
    ) -> Result<Kernel, ApiError> {
        let name = own_kernel_name(&image.record.id);
        if let Ok(kernel) = self.kernels.resolve(&name) {
            return Ok(kernel);
        }
        progress.stage(stage::OWN_KERNEL);
        let (store, image) = (self.kernels.clone(), image.clone());
        blocking(move || {
            let (id, disk) = (image.record.id.as_str(), image.root_disk());
            let name = image.names.first().map_or(id, String::as_str);
            let of = kernels::ImageDisk { id, name, disk: &disk };
            store
                .of_image(of, &Relay { progress })
                .map_err(|error| banger_image::advice::kernel(&error))
        })
        .await
    }

    /// Builds a kernel by a recipe.
    pub(crate) async fn built_kernel(
        &self,
        name: &str,
        log: Box<dyn std::io::Write + Send>,
        progress: Arc<dyn Progress>,
    ) -> Result<Kernel, ApiError> {
        progress.stage(stage::BUILD_KERNEL);
        let (store, name) = (self.kernels.clone(), name.to_owned());
        blocking(move || {
            store
                .build(&name, log, &Relay { progress })
                .map_err(|error| banger_image::advice::kernel(&error))
        })
        .await
    }

    pub(crate) async fn fetch_kernel(
        &self,
        name: &str,
        progress: Arc<dyn Progress>,
    ) -> Result<Kernel, ApiError> {
        progress.stage(stage::PULL_KERNEL);
        let (store, name) = (self.kernels.clone(), name.to_owned());
        blocking(move || {
            store
                .pull(&name, &Relay { progress })
                .map_err(|error| banger_image::advice::kernel(&error))
        })
        .await
    }
}
