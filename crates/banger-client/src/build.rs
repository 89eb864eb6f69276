//! Requests for images that are made of a VM's root disk, or of a file that stays.

use banger_api::build::ImageBuildRequest;
use banger_api::images::{ImageCommitRequest, ImagePromoteRequest, ImageRegisterRequest};
use banger_api::operation::Accepted;
use banger_api::{ApiError, routes};

use crate::call::Idempotency;
use crate::client::Client;
use crate::http::Call;

impl Client {
    /// Builds an image in a temporary VM.
    ///
    /// # Errors
    /// A bad value, an unknown image, or the daemon's.
    pub async fn build_image(&self, request: &ImageBuildRequest) -> Result<Accepted, ApiError> {
        self.ask(Call::post(routes::IMAGE_BUILD, request)?, Idempotency::NotIdempotent).await
    }

    /// Makes an image of the root disk of a stopped VM.
    ///
    /// # Errors
    /// A bad value, no such VM or one that is not stopped, or the daemon's.
    pub async fn commit_image(&self, request: &ImageCommitRequest) -> Result<Accepted, ApiError> {
        self.ask(Call::post(routes::IMAGE_COMMIT, request)?, Idempotency::NotIdempotent).await
    }

    /// Makes an image of a file that stays where it is.
    ///
    /// # Errors
    /// A bad value, a file that cannot be used, or the daemon's.
    pub async fn register_image(
        &self,
        request: &ImageRegisterRequest,
    ) -> Result<Accepted, ApiError> {
        self.ask(Call::post(routes::IMAGE_REGISTER, request)?, Idempotency::NotIdempotent).await
    }

    /// Copies the file of a registered image into the store.
    ///
    /// # Errors
    /// Not found, ambiguous, or the daemon's.
    pub async fn promote_image(&self, image: &str) -> Result<Accepted, ApiError> {
        let request = ImagePromoteRequest { image: image.to_owned() };
        self.ask(Call::post(routes::IMAGE_PROMOTE, &request)?, Idempotency::NotIdempotent).await
    }
}
