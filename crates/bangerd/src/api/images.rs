//! Routes of images and kernels.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use banger_api::build::ImageBuildRequest;
use banger_api::filter::image_pattern;
use banger_api::images::{
    Deleted, ImageCommitRequest, ImageHistoryEntry, ImagePromoteRequest, ImagePullRequest,
    ImageRegisterRequest, ImageUpload, ImageView, ImportRequest, KernelBuildRequest,
    KernelImportRequest, KernelView, PullRequest, Rebuild, TagRequest, TakenName,
};
use banger_api::operation::Accepted;
use banger_api::{ApiError, ErrorCode, routes};
use banger_engine::drivers::KernelFiles;

use super::body::{Json as Body, PathParams, QueryParams};
use super::document::Binary;
use super::upload;
use super::vms::accepted;
use super::{Answer, Shared, detached};

/// Query of the lists.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Named {
    /// Only objects with a name that matches; `*` stands for any text.
    #[param(pattern = r"^[A-Za-z0-9._*:/@\[\]-]{1,255}$", nullable = false)]
    name: Option<String>,
}

impl Named {
    /// Removes the objects without such a name.
    fn retain<T>(&self, objects: &mut Vec<T>, names: fn(&T) -> &[String]) -> Result<(), ApiError> {
        let Some(pattern) = &self.name else { return Ok(()) };
        let pattern = image_pattern(pattern)
            .map_err(|error| ApiError::new(ErrorCode::BadRequest, error.to_string()))?;
        objects.retain(|object| names(object).iter().any(|name| pattern.matches(name)));
        Ok(())
    }
}

/// All images, or those whose name matches.
#[utoipa::path(get, path = routes::IMAGES, tag = "images", operation_id = "image_list",
    params(Named),
    responses(
        (status = 200, description = "the list", body = [ImageView]),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn list(
    State(api): Shared,
    QueryParams(query): QueryParams<Named>,
) -> Answer<Json<Vec<ImageView>>> {
    let mut images = api.engine.images().await?;
    query.retain(&mut images, |image| &image.names)?;
    Ok(Json(images))
}

/// One image.
#[utoipa::path(get, path = routes::IMAGE, tag = "images", operation_id = "image_show",
    params(("image" = String, Path, description = "name, id or unique prefix of an id")),
    responses(
        (status = 200, description = "the present state", body = ImageView),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn show(
    State(api): Shared,
    PathParams(image): PathParams<String>,
) -> Answer<Json<ImageView>> {
    Ok(Json(api.engine.image(&image).await?))
}

/// An image, and the images from which it was made in VMs, the newest first.
///
/// Ends with an image that was pulled, imported or registered, or with one that was deleted.
#[utoipa::path(get, path = routes::IMAGE_HISTORY, tag = "images", operation_id = "image_history",
    params(("image" = String, Path, description = "name, id or unique prefix of an id")),
    responses(
        (status = 200, description = "the chain", body = [ImageHistoryEntry]),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn history(
    State(api): Shared,
    PathParams(image): PathParams<String>,
) -> Answer<Json<Vec<ImageHistoryEntry>>> {
    Ok(Json(api.engine.image_history(&image).await?))
}

/// Installed packages of an image with their versions.
#[utoipa::path(get, path = routes::IMAGE_PACKAGES, tag = "images", operation_id = "image_packages",
    params(("image" = String, Path, description = "name, id or unique prefix of an id")),
    responses(
        (status = 200, description = "name and version of each, sorted", body = [String],
            example = json!(["bash 5.2.37-2", "git 1:2.47.3-0"])),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn packages(
    State(api): Shared,
    PathParams(image): PathParams<String>,
) -> Answer<Json<Vec<String>>> {
    Ok(Json(api.engine.image_packages(&image).await?))
}

/// Delete an image that no VM uses.
#[utoipa::path(delete, path = routes::IMAGE, tag = "images", operation_id = "image_delete",
    params(("image" = String, Path, description = "name, id or unique prefix of an id")),
    responses(
        (status = 200, description = "Deleted", body = Deleted),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn delete(
    State(api): Shared,
    PathParams(image): PathParams<String>,
) -> Answer<Json<Deleted>> {
    Ok(Json(detached(async move { api.engine.delete_image(&image).await }).await?))
}

/// Add a name to an image.
#[utoipa::path(post, path = routes::IMAGE_TAGS, tag = "images", operation_id = "image_tag",
    params(("image" = String, Path, description = "name, id or unique prefix of an id")),
    request_body = TagRequest,
    responses(
        (status = 200, description = "the present state", body = ImageView),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn tag(
    State(api): Shared,
    PathParams(image): PathParams<String>,
    Body(tag): Body<TagRequest>,
) -> Answer<Json<ImageView>> {
    let taken = TakenName::replacing(tag.replace);
    let tagged = async move { api.engine.tag_image(&image, &tag.name, taken).await };
    Ok(Json(detached(tagged).await?))
}

/// Remove a name of an image that has other names.
#[utoipa::path(delete, path = routes::IMAGE_TAG, tag = "images", operation_id = "image_untag",
    params(("name" = String, Path, description = "the name")),
    responses(
        (status = 200, description = "the present state", body = ImageView),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn untag(
    State(api): Shared,
    PathParams(name): PathParams<String>,
) -> Answer<Json<ImageView>> {
    Ok(Json(detached(async move { api.engine.untag_image(&name).await }).await?))
}

/// Build an image from a built-in recipe.
#[utoipa::path(post, path = routes::IMAGE_PULL, tag = "images", operation_id = "image_pull",
    request_body = ImagePullRequest,
    responses(
        (status = 202, description = "accepted: follow the operation", body = Accepted),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn pull(
    State(api): Shared,
    Body(pull): Body<ImagePullRequest>,
) -> Answer<(StatusCode, Json<Accepted>)> {
    let rebuild = if pull.refresh { Rebuild::Always } else { Rebuild::IfOutdated };
    let pulled = async move { api.engine.pull_image(&pull.name, rebuild).await };
    Ok(accepted(detached(pulled).await?))
}

/// Import an image from a file or folder of the host.
#[utoipa::path(post, path = routes::IMAGE_IMPORT, tag = "images", operation_id = "image_import",
    request_body = ImportRequest,
    responses(
        (status = 202, description = "accepted: follow the operation", body = Accepted),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn import(
    State(api): Shared,
    Body(import): Body<ImportRequest>,
) -> Answer<(StatusCode, Json<Accepted>)> {
    let taken = TakenName::replacing(import.replace);
    let imported =
        async move { api.engine.import_image(import.path.as_path(), &import.name, taken).await };
    Ok(accepted(detached(imported).await?))
}

/// Build an image in a temporary VM.
///
/// The VM is created from another image, gets files, packages and what a script does, and is
/// stopped; its root disk becomes the image. The output is in the notes of the operation.
#[utoipa::path(post, path = routes::IMAGE_BUILD, tag = "images", operation_id = "image_build",
    request_body = ImageBuildRequest,
    responses(
        (status = 202, description = "accepted: follow the operation", body = Accepted),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn build(
    State(api): Shared,
    Body(build): Body<ImageBuildRequest>,
) -> Answer<(StatusCode, Json<Accepted>)> {
    let built = async move { api.engine.build_image(build).await };
    Ok(accepted(detached(built).await?))
}

/// Make an image of the root disk of a stopped VM.
///
/// Caches, logs, histories and the identity of the machine are left out; so is the work disk, which
/// is `/root`. Until the operation ends, requests to the VM wait.
#[utoipa::path(post, path = routes::IMAGE_COMMIT, tag = "images", operation_id = "image_commit",
    request_body = ImageCommitRequest,
    responses(
        (status = 202, description = "accepted: follow the operation", body = Accepted),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn commit(
    State(api): Shared,
    Body(commit): Body<ImageCommitRequest>,
) -> Answer<(StatusCode, Json<Accepted>)> {
    let committed = async move { api.engine.commit_image(commit).await };
    Ok(accepted(detached(committed).await?))
}

/// Make an image of a file of the host that stays where it is.
///
/// The file must be an ext4 file system. It is checked at each start of a VM, and never written to
/// or deleted.
#[utoipa::path(post, path = routes::IMAGE_REGISTER, tag = "images", operation_id = "image_register",
    request_body = ImageRegisterRequest,
    responses(
        (status = 202, description = "accepted: follow the operation", body = Accepted),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn register(
    State(api): Shared,
    Body(request): Body<ImageRegisterRequest>,
) -> Answer<(StatusCode, Json<Accepted>)> {
    let registered = async move { api.engine.register_image(request).await };
    Ok(accepted(detached(registered).await?))
}

/// Copy the file of a registered image into the store.
///
/// The image keeps its id, names and VMs. Without an operation if its file is in the store.
#[utoipa::path(post, path = routes::IMAGE_PROMOTE, tag = "images", operation_id = "image_promote",
    request_body = ImagePromoteRequest,
    responses(
        (status = 200, description = "it is in the store", body = Accepted),
        (status = 202, description = "accepted: follow the operation", body = Accepted),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn promote(
    State(api): Shared,
    Body(request): Body<ImagePromoteRequest>,
) -> Answer<(StatusCode, Json<Accepted>)> {
    let promoted = async move { api.engine.promote_image(&request.image).await };
    Ok(accepted(detached(promoted).await?))
}

/// Import an image from the body: a file as in an import from the host.
///
/// The operation starts when the body is complete; if the client disconnects before, nothing is
/// left.
#[utoipa::path(post, path = routes::IMAGE_UPLOAD, tag = "images", operation_id = "image_upload",
    params(ImageUpload),
    request_body(content = Binary, content_type = "application/octet-stream"),
    responses(
        (status = 202, description = "accepted: follow the operation", body = Accepted),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn upload(
    State(api): Shared,
    QueryParams(upload): QueryParams<ImageUpload>,
    request: Request,
) -> Answer<(StatusCode, Json<Accepted>)> {
    let taken = TakenName::replacing(upload.replace);
    let archive = api.engine.upload(&upload.name, taken).await?;
    if let Err(error) = upload::receive(request.into_body(), &archive.path).await {
        return Err(api.engine.with_prune(error).await.into());
    }
    let imported = async move { api.engine.import_archive(archive, &upload.name, taken).await };
    Ok(accepted(detached(imported).await?))
}

/// All kernels, or those whose name matches.
#[utoipa::path(get, path = routes::KERNELS, tag = "images", operation_id = "kernel_list",
    params(Named),
    responses(
        (status = 200, description = "the list", body = [KernelView]),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn kernels(
    State(api): Shared,
    QueryParams(query): QueryParams<Named>,
) -> Answer<Json<Vec<KernelView>>> {
    let mut kernels = api.engine.kernels().await?;
    query.retain(&mut kernels, |kernel| &kernel.names)?;
    Ok(Json(kernels))
}

/// Delete a kernel that no VM uses.
#[utoipa::path(delete, path = routes::KERNEL, tag = "images", operation_id = "kernel_delete",
    params(("kernel" = String, Path, description = "name, id or unique prefix of an id")),
    responses(
        (status = 200, description = "Deleted", body = Deleted),
        (status = "default", description = "the error", body = ApiError)
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
        (status = 202, description = "accepted: follow the operation", body = Accepted),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn pull_kernel(
    State(api): Shared,
    Body(pull): Body<PullRequest>,
) -> Answer<(StatusCode, Json<Accepted>)> {
    let pulled = async move { api.engine.pull_kernel(&pull.name).await };
    Ok(accepted(detached(pulled).await?))
}

/// Build a kernel.
#[utoipa::path(post, path = routes::KERNEL_BUILD, tag = "images", operation_id = "kernel_build",
    request_body = KernelBuildRequest,
    responses(
        (status = 202, description = "accepted: follow the operation", body = Accepted),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn build_kernel(
    State(api): Shared,
    Body(build): Body<KernelBuildRequest>,
) -> Answer<(StatusCode, Json<Accepted>)> {
    let built = async move { api.engine.build_kernel(&build.name).await };
    Ok(accepted(detached(built).await?))
}

/// Import a kernel from files of the host.
#[utoipa::path(post, path = routes::KERNEL_IMPORT, tag = "images", operation_id = "kernel_import",
    request_body = KernelImportRequest,
    responses(
        (status = 202, description = "accepted: follow the operation", body = Accepted),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn import_kernel(
    State(api): Shared,
    Body(import): Body<KernelImportRequest>,
) -> Answer<(StatusCode, Json<Accepted>)> {
    let taken = TakenName::replacing(import.replace);
    let path = import.path.as_path().to_owned();
    let modules = import.modules.map(|modules| modules.as_path().to_owned());
    let files = KernelFiles { path, modules };
    let imported = async move { api.engine.import_kernel(files, &import.name, taken).await };
    Ok(accepted(detached(imported).await?))
}
