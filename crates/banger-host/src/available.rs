//! Whether an image or a kernel is here, or can be fetched by its name.

use banger_api::container_ref::ContainerRef;
use banger_api::hint::Kind;
use banger_api::images::{DEFAULT_IMAGE, DEFAULT_KERNEL};
use banger_api::{ApiError, ErrorCode, Hint};
use banger_image::fetch::FetchError;
use banger_image::images::ImageStore;
use banger_image::kernels::KernelStore;
use banger_image::trust::{TrustSettings, Wanted};

/// Whether something is here, could be fetched, or neither.
fn known<T>(found: Result<T, FetchError>, name: &str, recipe: &str) -> Result<(), ApiError> {
    match found {
        Ok(_) => Ok(()),
        Err(FetchError::NotFound { .. }) if name == recipe => Ok(()),
        Err(error) => Err(banger_image::advice::fetch(&error)),
    }
}

/// A name that is not here, but in a catalog, is known.
fn in_catalog(
    known: Result<(), ApiError>,
    trust: &TrustSettings,
    wanted: Wanted,
    name: &str,
) -> Result<(), ApiError> {
    match known {
        Err(error) if error.code == ErrorCode::NotFound => match trust.find(wanted, name) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(error),
            Err(error) => Err(banger_image::advice::trust(&error)),
        },
        known => known,
    }
}

/// Whether a kernel is here or can be fetched.
///
/// # Errors
/// Neither.
pub fn kernel(kernels: &KernelStore, name: &str) -> Result<(), ApiError> {
    let known = known(kernels.resolve(name), name, DEFAULT_KERNEL);
    in_catalog(known, kernels.trust(), Wanted::Kernel, name)
}

/// Whether an image is here, or can be fetched without a doubt which one it is.
///
/// # Errors
/// Neither.
pub fn image(images: &ImageStore, name: &str) -> Result<(), ApiError> {
    let known = known(images.resolve(name), name, DEFAULT_IMAGE);
    match in_catalog(known, images.trust(), Wanted::Image, name) {
        Err(error) if error.code == ErrorCode::NotFound => {
            if ContainerRef::is_explicit(name) && name.parse::<ContainerRef>().is_ok() {
                return Ok(());
            }
            // A similar name is more likely than an image of the default registry.
            if error.hints.iter().any(|hint| matches!(hint, Hint::SimilarNames { .. })) {
                return Err(error);
            }
            Err(error.with_hint(Hint::Pull { what: Kind::Image, recipe: name.to_owned() }))
        }
        other => other,
    }
}
