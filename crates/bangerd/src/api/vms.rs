//! Routes of VMs.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use banger_api::boot::{BootView, Wait, WaitFor};
use banger_api::container_ref::is_image_reference;
use banger_api::filter::{self, BadFilter, MAX_FILTERS, VmFilter};
use banger_api::idempotency::BadKey;
use banger_api::images::is_ref_name;
use banger_api::opencode::VmSecrets;
use banger_api::operation::Accepted;
use banger_api::sync::SyncView;
use banger_api::vm::{CreateVm, VmAction, VmDetails, VmHealth, VmSummary};
use banger_api::{ApiError, ErrorCode, routes};
use banger_engine::once::{Given, KeyedRequest};
use sha2::{Digest, Sha256};

use super::body::{Json as Body, PathParams, QueryParams};
use super::{Answer, Shared, detached};

/// All VMs, or those that match the filters, sorted by name.
#[utoipa::path(get, path = routes::VMS, tag = "vms", operation_id = "vm_list",
    params(("filter" = inline(Option<Vec<VmFilter>>), Query, min_items = 1, max_items = 64,
        description = "`label=KEY`, `label=KEY=VALUE`, `name=PATTERN`, `image=PATTERN` or \
            `state=STATE`; `*` in a pattern stands for any text; each label and one of each other \
            key must match; at most 64")),
    responses(
        (status = 200, description = "the list", body = [VmSummary]),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn list(
    State(api): Shared,
    QueryParams(query): QueryParams<Vec<(String, String)>>,
) -> Answer<Json<Vec<VmSummary>>> {
    let filters = filters(&query)?;
    let mut vms = api.engine.list().await;
    vms.retain(|vm| filter::matches(&filters, vm));
    Ok(Json(vms))
}

/// The filters of a query, which has no other parameters.
fn filters(query: &[(String, String)]) -> Result<Vec<VmFilter>, ApiError> {
    let bad = |error: BadFilter| ApiError::new(ErrorCode::BadRequest, error.to_string());
    if query.len() > MAX_FILTERS {
        return Err(bad(BadFilter::TooMany(query.len())));
    }
    let filter = |(name, value): &(String, String)| match name.as_str() {
        "filter" => value.parse().map_err(bad),
        other => {
            let shown = banger_api::excerpt(other);
            let text = format!("`{shown}` is not a parameter of the list of VMs: `filter` is");
            Err(ApiError::new(ErrorCode::BadRequest, text))
        }
    };
    query.iter().map(filter).collect()
}

/// Create a VM and, unless requested otherwise, start it.
#[utoipa::path(post, path = routes::VMS, tag = "vms", operation_id = "vm_create",
    request_body = CreateVm,
    params(("Idempotency-Key" = Option<String>, Header, nullable = false, min_length = 1,
        max_length = 255, pattern = "^[!-~]+$",
        description = "the client's own id of this request: for a day, the same request with it is \
            answered as the first one was, and one with other values is refused")),
    responses(
        (status = 202, description = "accepted: follow the operation", body = Accepted,
            headers(("Idempotent-Replayed" = String,
                description = "`true`: the answer to an earlier request with this key"))),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn create(
    State(api): Shared,
    headers: HeaderMap,
    Body(vm): Body<CreateVm>,
) -> Answer<Response> {
    let keyed = keyed(&headers, &vm)?;
    if let Some(image) = &vm.image {
        is_reference("image", image, is_image_reference)?;
    }
    if let Some(kernel) = &vm.kernel {
        is_reference("kernel", kernel, is_ref_name)?;
    }
    let created = detached(async move {
        match keyed {
            Some(keyed) => api.engine.create_once(vm, keyed).await,
            None => Ok((api.engine.create(vm).await?, Given::Now)),
        }
    });
    let (answer, given) = created.await?;
    let mut answer = accepted(answer).into_response();
    if given == Given::Before {
        let replayed = HeaderValue::from_static("true");
        answer.headers_mut().insert(routes::REPLAYED_HEADER, replayed);
    }
    Ok(answer)
}

/// The key of a request, and a digest of its values.
fn keyed(headers: &HeaderMap, vm: &CreateVm) -> Result<Option<KeyedRequest>, ApiError> {
    let Some(key) = headers.get(routes::IDEMPOTENCY_HEADER) else { return Ok(None) };
    let bad = |error: &dyn std::error::Error| {
        ApiError::new(ErrorCode::BadRequest, "the header `Idempotency-Key` is invalid")
            .caused_by(error)
    };
    let key = key.to_str().map_err(|error| bad(&error))?;
    let key = key.parse().map_err(|error: BadKey| bad(&error))?;
    let values = serde_json::to_vec(vm).map_err(|error| bad(&error))?;
    let digest = Sha256::digest(&values);
    let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Some(KeyedRequest { key, digest }))
}

/// Details of one VM.
#[utoipa::path(get, path = routes::VM, tag = "vms", operation_id = "vm_show",
    params(("vm" = String, Path, description = "name, id or unique prefix of an id")),
    responses(
        (status = 200, description = "the present state", body = VmDetails),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn show(
    State(api): Shared,
    PathParams(vm): PathParams<String>,
) -> Answer<Json<VmDetails>> {
    let mut details = api.engine.show(&vm).await?;
    details.sync = api.live_folders.views(&details.summary.id);
    Ok(Json(details))
}

/// The live folders of a VM with their state.
#[utoipa::path(get, path = routes::VM_SYNC, tag = "vms", operation_id = "vm_sync",
    params(
        ("vm" = String, Path, description = "name, id or unique prefix of an id"),
        ("look" = Option<bool>, Query,
            description = "look at both folders as a whole, without waiting for it")
    ),
    responses(
        (status = 200, description = "the present state", body = [SyncView]),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn live_folders(
    State(api): Shared,
    PathParams(vm): PathParams<String>,
    QueryParams(query): QueryParams<Look>,
) -> Answer<Json<Vec<SyncView>>> {
    let vm = api.engine.resolve(&vm)?;
    if query.look == Some(true) {
        api.live_folders.look(&vm);
    }
    Ok(Json(api.live_folders.views(&vm)))
}

/// The query of [`live_folders`].
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Look {
    look: Option<bool>,
}

/// Request an action on a VM.
#[utoipa::path(post, path = routes::VM_ACTION, tag = "vms", operation_id = "vm_action",
    params(("vm" = String, Path, description = "name, id or unique prefix of an id")),
    request_body = VmAction,
    responses(
        (status = 202, description = "accepted: follow the operation", body = Accepted),
        (status = 200, description = "nothing to do", body = Accepted),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn action(
    State(api): Shared,
    PathParams(vm): PathParams<String>,
    Body(action): Body<VmAction>,
) -> Answer<(StatusCode, Json<Accepted>)> {
    Ok(accepted(detached(async move { api.engine.request(&vm, action).await }).await?))
}

/// Check the agent of a VM.
#[utoipa::path(get, path = routes::VM_HEALTH, tag = "vms", operation_id = "vm_health",
    params(("vm" = String, Path, description = "name, id or unique prefix of an id")),
    responses(
        (status = 200, description = "the present state", body = VmHealth),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn health(
    State(api): Shared,
    PathParams(vm): PathParams<String>,
) -> Answer<Json<VmHealth>> {
    Ok(Json(api.engine.health(&vm).await?))
}

/// Secrets of one VM, such as the password of its opencode server.
#[utoipa::path(get, path = routes::VM_SECRETS, tag = "vms", operation_id = "vm_secrets",
    params(("vm" = String, Path, description = "name, id or unique prefix of an id")),
    responses(
        (status = 200, description = "the secrets", body = VmSecrets),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn secrets(
    State(api): Shared,
    PathParams(vm): PathParams<String>,
) -> Answer<Json<VmSecrets>> {
    Ok(Json(api.engine.secrets(&vm).await?))
}

/// Wait for a stage of a VM's start; returns the state of the guest's boot.
#[utoipa::path(get, path = routes::VM_BOOT, tag = "vms", operation_id = "vm_boot",
    params(
        ("vm" = String, Path, description = "name, id or unique prefix of an id"),
        ("wait" = WaitFor, Query, description = "the stage"),
        ("timeout_ms" = u64, Query, description = "timeout in milliseconds"),
    ),
    responses(
        (status = 200, description = "the stage was reached, or the timeout passed",
            body = BootView),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn boot(
    State(api): Shared,
    PathParams(vm): PathParams<String>,
    QueryParams(wait): QueryParams<Wait>,
) -> Answer<Json<BootView>> {
    Ok(Json(api.engine.wait_boot(&vm, wait).await?.1))
}

/// Names and ids use the same characters.
fn is_reference(what: &str, name: &str, allowed: fn(&str) -> bool) -> Result<(), ApiError> {
    if allowed(name) {
        return Ok(());
    }
    let shown = banger_api::excerpt(name);
    let text = format!("`{what}` is `{shown}`, not a name or an id");
    Err(ApiError::new(ErrorCode::BadRequest, text))
}

/// `202` with the operation to follow, `200` where there is nothing to do.
pub(super) fn accepted(accepted: Accepted) -> (StatusCode, Json<Accepted>) {
    let status = match accepted.operation {
        Some(_) => StatusCode::ACCEPTED,
        None => StatusCode::OK,
    };
    (status, Json(accepted))
}
