//! Images of files that stay where they are, in this host's stores.

use std::sync::Arc;

use banger_api::ApiError;
use banger_engine::drivers::{GivenKernel, KernelFiles, Progress, Registration};
use banger_image::images;
use banger_image::kernels;

use crate::failure::blocking;
use crate::images_driver::LocalImages;
use crate::relay::Relay;

impl LocalImages {
    /// Makes an image of a file, with a kernel of its own if one is given; returns its id.
    pub(crate) async fn register(
        &self,
        registration: Registration,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError> {
        let (images, kernels) = (self.images.clone(), self.kernels.clone());
        progress.stage("register_image");
        blocking(move || {
            let Registration { rootfs, name, taken, kernel } = &registration;
            let kernel = kernel.as_ref().map(given);
            let wanted = images::Registration {
                path: rootfs,
                name,
                taken: *taken,
                kernel,
                kernels: &kernels,
            };
            let registered = images.register(&wanted, &Relay { progress });
            registered
                .map(|image| image.record.id)
                .map_err(|error| banger_image::advice::image(&error))
        })
        .await
    }
}

fn given(kernel: &GivenKernel) -> images::GivenKernel<'_> {
    match kernel {
        GivenKernel::Contained => images::GivenKernel::Contained,
        GivenKernel::Files(KernelFiles { path, modules }) => {
            let files = kernels::KernelFiles { file: path, modules: modules.as_deref() };
            images::GivenKernel::Files(files)
        }
    }
}
