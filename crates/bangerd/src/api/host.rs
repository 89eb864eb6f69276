//! Route of the host's resources.

use axum::Json;
use axum::extract::State;
use banger_api::host::HostView;
use banger_api::{ApiError, routes};

use super::{Answer, Shared};

/// The host's CPUs, memory and disk, and what VMs reserve or use of them.
#[utoipa::path(get, path = routes::HOST, tag = "daemon", operation_id = "host",
    responses(
        (status = 200, description = "the resources", body = HostView),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn host(State(api): Shared) -> Answer<Json<HostView>> {
    Ok(Json(api.engine.host_view().await?))
}
