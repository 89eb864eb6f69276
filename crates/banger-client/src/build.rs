//! Requests for image builds.

use banger_api::build::ImageBuildRequest;
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
}
