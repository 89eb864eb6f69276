//! Routes of the host's disk.

use axum::Json;
use axum::extract::State;
use banger_api::disk::{DiskPrune, DiskPruned, DiskUsage};
use banger_api::{ApiError, routes};

use super::body::Json as Body;
use super::{Answer, Shared, detached};

/// What is stored on the host's disk, and what of it nothing uses.
#[utoipa::path(get, path = routes::DISK, tag = "daemon", operation_id = "disk_usage",
    responses(
        (status = 200, description = "the use", body = DiskUsage),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn usage(State(api): Shared) -> Answer<Json<DiskUsage>> {
    Ok(Json(api.engine.disk_usage().await?))
}

/// Remove stored objects that nothing uses.
///
/// An object that is used by now stays, with its error in the answer.
#[utoipa::path(post, path = routes::DISK_PRUNES, tag = "daemon", operation_id = "disk_prune",
    request_body = DiskPrune,
    responses(
        (status = 200, description = "the result for each object", body = DiskPruned),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn prune(State(api): Shared, Body(prune): Body<DiskPrune>) -> Answer<Json<DiskPruned>> {
    Ok(Json(detached(async move { api.engine.prune_disk(prune).await }).await?))
}
