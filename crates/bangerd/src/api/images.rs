//! Images and kernels.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use banger_api::images::{Deleted, ImageView, ImportRequest, KernelView, PullRequest};
use banger_api::operation::Accepted;
use banger_api::{ApiError, routes};

use super::body::{Json as Body, PathParams};
use super::vms::accepted;
use super::{Answer, Shared, detached};

/// All images.
#[utoipa::path(get, path = routes::IMAGES, tag = "images", operation_id = "image_list",
    responses(
        (status = 200, description = "As it is now", body = [ImageView]),
        (status = "default", description = "Why not", body = ApiError)
    ))]
pub async fn list(State(api): Shared) -> Answer<Json<Vec<ImageView>>> {
    Ok(Json(api.engine.images().await?))
}

/// One image.
#[utoipa::path(get, path = routes::IMAGE, tag = "images", operation_id = "image_show",
    params(("image" = String, Path, description = "name, id or unique prefix of an id")),
    responses(
        (status = 200, description = "As it is now", body = ImageView),
        (status = "default", description = "Why not", body = ApiError)
    ))]
pub async fn show(
    State(api): Shared,
    PathParams(image): PathParams<String>,
) -> Answer<Json<ImageView>> {
    Ok(Json(api.engine.image(&image).await?))
}

/// Delete an image that no VM uses.
#[utoipa::path(delete, path = routes::IMAGE, tag = "images", operation_id = "image_delete",
    params(("image" = String, Path, description = "name, id or unique prefix of an id")),
    responses(
        (status = 200, description = "Deleted", body = Deleted),
        (status = "default", description = "Why not", body = ApiError)
    ))]
pub async fn delete(
    State(api): Shared,
    PathParams(image): PathParams<String>,
) -> Answer<Json<Deleted>> {
    Ok(Json(detached(async move { api.engine.delete_image(&image).await }).await?))
}

/// Fetch an image by a built-in recipe.
#[utoipa::path(post, path = routes::IMAGE_PULL, tag = "images", operation_id = "image_pull",
    request_body = PullRequest,
    responses(
        (status = 202, description = "Accepted: follow the operation", body = Accepted),
        (status = "default", description = "Why not", body = ApiError)
    ))]
pub async fn pull(
    State(api): Shared,
    Body(pull): Body<PullRequest>,
) -> Answer<(StatusCode, Json<Accepted>)> {
    Ok(accepted(api.engine.pull_image(&pull.name)?))
}

/// Make an image of a file of the host.
#[utoipa::path(post, path = routes::IMAGE_IMPORT, tag = "images", operation_id = "image_import",
    request_body = ImportRequest,
    responses(
        (status = 202, description = "Accepted: follow the operation", body = Accepted),
        (status = "default", description = "Why not", body = ApiError)
    ))]
pub async fn import(
    State(api): Shared,
    Body(import): Body<ImportRequest>,
) -> Answer<(StatusCode, Json<Accepted>)> {
    Ok(accepted(api.engine.import_image(&import.path, &import.name)?))
}

/// All kernels.
#[utoipa::path(get, path = routes::KERNELS, tag = "images", operation_id = "kernel_list",
    responses(
        (status = 200, description = "As it is now", body = [KernelView]),
        (status = "default", description = "Why not", body = ApiError)
    ))]
pub async fn kernels(State(api): Shared) -> Answer<Json<Vec<KernelView>>> {
    Ok(Json(api.engine.kernels().await?))
}

/// Delete a kernel that no VM uses.
#[utoipa::path(delete, path = routes::KERNEL, tag = "images", operation_id = "kernel_delete",
    params(("kernel" = String, Path, description = "name, id or unique prefix of an id")),
    responses(
        (status = 200, description = "Deleted", body = Deleted),
        (status = "default", description = "Why not", body = ApiError)
    ))]
pub async fn delete_kernel(
    State(api): Shared,
    PathParams(kernel): PathParams<String>,
) -> Answer<Json<Deleted>> {
    Ok(Json(detached(async move { api.engine.delete_kernel(&kernel).await }).await?))
}

/// Fetch a kernel.
#[utoipa::path(post, path = routes::KERNEL_PULL, tag = "images", operation_id = "kernel_pull",
    request_body = PullRequest,
    responses(
        (status = 202, description = "Accepted: follow the operation", body = Accepted),
        (status = "default", description = "Why not", body = ApiError)
    ))]
pub async fn pull_kernel(
    State(api): Shared,
    Body(pull): Body<PullRequest>,
) -> Answer<(StatusCode, Json<Accepted>)> {
    Ok(accepted(api.engine.pull_kernel(&pull.name)?))
}
