//! Routes of the daemon itself.

use std::sync::OnceLock;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use banger_api::daemon::DaemonStatus;
use banger_api::doctor::{Check, Leftover, RemoveLeftovers, RemovedLeftover};
use banger_api::{ApiError, ErrorCode, routes};
use utoipa::OpenApi;

use super::body::{Json as Body, JsonOrNothing};
use super::{Answer, Description, Shared, detached};
use crate::daemon::{BUILD_ID, Host, VERSION};

/// An empty object.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// Status of the daemon.
#[utoipa::path(get, path = routes::DAEMON, tag = "daemon", operation_id = "daemon_status",
    responses(
        (status = 200, description = "the status", body = DaemonStatus),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn status(State(api): Shared) -> Json<DaemonStatus> {
    Json(DaemonStatus {
        pid: std::process::id(),
        version: VERSION.into(),
        build_id: BUILD_ID.into(),
        socket: api.socket.as_path().into(),
        log: api.log.as_path().into(),
        uptime_s: api.since.elapsed().as_secs(),
        vms: api.engine.count() as u64,
        operations: api.engine.live_operations() as u64,
        simulated: api.host == Host::Simulated,
        defaults: api.engine.defaults().clone(),
        dns: Some(api.dns.borrow().status()),
        web_listen: api.config.web_listen,
    })
}

/// Stop the daemon; VMs keep running.
#[utoipa::path(post, path = routes::DAEMON_STOP, tag = "daemon", operation_id = "daemon_stop",
    request_body = Option<Empty>,
    responses(
        (status = 202, description = "Accepted", body = Empty),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn stop(State(api): Shared, _body: JsonOrNothing<Empty>) -> (StatusCode, Json<Empty>) {
    api.stopping.request();
    (StatusCode::ACCEPTED, Json(Empty {}))
}

/// Check the host.
#[utoipa::path(get, path = routes::DOCTOR, tag = "daemon", operation_id = "doctor",
    responses(
        (status = 200, description = "the checks", body = [Check]),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn doctor(State(api): Shared) -> Answer<Json<Vec<Check>>> {
    Ok(Json(crate::doctor::checks(&api).await))
}

/// List objects on the host of VMs that are not in the database.
#[utoipa::path(get, path = routes::LEFTOVERS, tag = "daemon", operation_id = "leftover_list",
    responses(
        (status = 200, description = "the leftovers", body = [Leftover]),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn leftovers(State(api): Shared) -> Answer<Json<Vec<Leftover>>> {
    Ok(Json(api.engine.leftovers().await?))
}

/// Remove objects of VMs that are not in the database; those of running VMs and disks are kept.
#[utoipa::path(post, path = routes::LEFTOVER_REMOVALS, tag = "daemon",
    operation_id = "leftover_remove", request_body = RemoveLeftovers,
    responses(
        (status = 200, description = "the result for each", body = [RemovedLeftover]),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn remove_leftovers(
    State(api): Shared,
    Body(request): Body<RemoveLeftovers>,
) -> Answer<Json<Vec<RemovedLeftover>>> {
    let engine = api.engine.clone();
    let removed = detached(async move { Ok(engine.remove_leftovers(request.ids).await) });
    Ok(Json(removed.await?))
}

/// The OpenAPI document.
#[utoipa::path(get, path = routes::OPENAPI, tag = "daemon", operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1", body = Object,
        content_type = "application/json", example = json!({
            "openapi": "3.1.0", "info": { "title": "banger", "version": "0.1.0" }, "paths": {}
        }))))]
pub async fn openapi() -> Answer<impl IntoResponse> {
    /// It takes milliseconds to build and never changes.
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let document = match DOCUMENT.get() {
        Some(document) => document.clone(),
        None => {
            let built = serde_json::to_vec(&Description::openapi()).map_err(|error| {
                let text = "the description of the API cannot be written as JSON";
                ApiError::new(ErrorCode::Internal, text).caused_by(&error)
            })?;
            DOCUMENT.get_or_init(|| built.into()).clone()
        }
    };
    Ok(([(CONTENT_TYPE, "application/json")], document))
}
