//! Commands in a guest over the API, for clients that cannot receive a descriptor: relays an
//! upgraded connection to the guest's agent, or starts a command that runs without a client.
//!
//! A client on this host uses the session socket instead, whose sessions survive the daemon.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use banger_agent_proto::archive::NO_PATH;
use banger_agent_proto::exec::{Detached, UPGRADE as PROTOCOL};
use banger_agent_proto::{MAX_EXEC_BODY, MAX_HTTP_HEAD, MAX_JSON_BODY};
use banger_api::{ApiError, ErrorCode, routes};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::body::PathParams;
use super::{Answer, Shared, document, given_trace, upgrade};
use crate::session;
use crate::slots::Slot;

/// Time limit for the body to arrive, and for the agent to start the command.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum length of an agent's error message in bytes.
const MAX_REFUSAL: usize = 64 * 1024;

/// Run a command in a guest: the agent's `exec`, with `Upgrade: banger-exec/1`.
#[utoipa::path(post, path = routes::VM_EXEC, tag = "vms", operation_id = "vm_exec",
    params(("vm" = String, Path, description = "name, id or unique prefix of an id")),
    request_body(content = Object, content_type = "application/json",
        description = "`ExecRequest` of the agent's protocol"),
    responses(
        (status = 101, description = "Frames of the agent's protocol follow, both ways"),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn exec(
    State(api): Shared,
    PathParams(vm): PathParams<String>,
    slot: Option<Extension<Arc<Slot>>>,
    mut request: Request,
) -> Answer<Response> {
    let client = upgrade::requested(&mut request, PROTOCOL, "a command")?;
    let trace = given_trace(request.headers());
    let body = read_body(request).await?;
    let (agent, plan) = session::connect_to(&api.engine, &vm).await?;
    let started = async {
        let headers = [(CONNECTION, "upgrade"), (UPGRADE, PROTOCOL)];
        let answer = ask(agent.into(), "/exec", &headers, body).await?;
        match answer.status() {
            StatusCode::SWITCHING_PROTOCOLS => Ok(hyper::upgrade::on(answer)),
            _ => Err(refusal(answer).await),
        }
    };
    let agent = tokio::time::timeout(START_TIMEOUT, started).await.map_err(|_| late())??;
    let command = session::Command::begin(&plan, trace.as_ref());
    let slot = slot.map(|Extension(slot)| slot);
    tokio::spawn(async move {
        relay(client, agent, slot).await;
        command.end(&api.engine);
    });
    Ok(upgrade::accepted(PROTOCOL))
}

fn late() -> ApiError {
    let seconds = START_TIMEOUT.as_secs();
    ApiError::new(ErrorCode::Timeout, format!("the command did not start within {seconds} s"))
}

async fn read_body(request: Request) -> Result<Bytes, ApiError> {
    let body = Limited::new(request.into_body(), MAX_EXEC_BODY).collect();
    let body = tokio::time::timeout(START_TIMEOUT, body).await.map_err(|_| late())?;
    let body = body.map_err(|error| {
        ApiError::new(ErrorCode::BadRequest, "the request's body is not whole or too large")
            .caused_by(&*error)
    })?;
    Ok(body.to_bytes())
}

/// Sends the request to the agent.
async fn ask(
    agent: std::os::unix::net::UnixStream,
    path: &str,
    headers: &[(HeaderName, &str)],
    body: Bytes,
) -> Result<hyper::Response<hyper::body::Incoming>, ApiError> {
    let failed = |error: &dyn std::error::Error| {
        ApiError::new(ErrorCode::GuestFailed, "the agent in the guest does not answer")
            .caused_by(error)
    };
    agent.set_nonblocking(true).map_err(|error| failed(&error))?;
    let agent = UnixStream::from_std(agent).map_err(|error| failed(&error))?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HTTP_HEAD)
        .handshake(TokioIo::new(agent))
        .await
        .map_err(|error| failed(&error))?;
    // Errors of the connection also fail the request.
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::post(path)
        .header(HOST, HeaderValue::from_static("guest"))
        .header(CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let request = request.body(Full::new(body)).map_err(|error| failed(&error))?;
    sender.send_request(request).await.map_err(|error| failed(&error))
}

/// The agent's error message, limited to [`MAX_REFUSAL`] bytes.
pub(super) async fn refusal(answer: hyper::Response<hyper::body::Incoming>) -> ApiError {
    let code = match answer.status() {
        StatusCode::NOT_FOUND => ErrorCode::OtherBuild,
        status if status.as_u16() == NO_PATH => ErrorCode::NotFound,
        status if status.is_client_error() => ErrorCode::BadRequest,
        _ => ErrorCode::GuestFailed,
    };
    let text = Limited::new(Body::new(answer.into_body()), MAX_REFUSAL).collect().await;
    let text = text.map(|text| text.to_bytes()).unwrap_or_default();
    let message = serde_json::from_slice::<banger_agent_proto::http::ErrorBody>(&text)
        .map_or_else(|_| "the agent refused".into(), |body| body.error);
    let message: String = message.chars().take(1024).flat_map(char::escape_debug).collect();
    ApiError::new(code, message)
}

/// Start a command in a guest that runs without a client: the agent's `detach`.
#[utoipa::path(post, path = routes::VM_DETACH, tag = "vms", operation_id = "vm_detach",
    params(("vm" = String, Path, description = "name, id or unique prefix of an id")),
    request_body(content = Object, content_type = "application/json",
        description = "`ExecRequest` of the agent's protocol"),
    responses(
        (status = 200, description = "what was started", body = document::Detached),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn detach(
    State(api): Shared,
    PathParams(vm): PathParams<String>,
    request: Request,
) -> Answer<axum::Json<Detached>> {
    let body = read_body(request).await?;
    let (agent, _) = session::connect(&api.engine, &vm, None).await?;
    let started = async {
        let answer = ask(agent.into(), "/detach", &[], body).await?;
        if !answer.status().is_success() {
            return Err(refusal(answer).await);
        }
        document(answer).await
    };
    let started = tokio::time::timeout(START_TIMEOUT, started).await.map_err(|_| late())??;
    Ok(axum::Json(started))
}

/// The document in an agent's answer, of at most [`MAX_JSON_BODY`] bytes.
pub(super) async fn document<T: DeserializeOwned>(
    answer: hyper::Response<hyper::body::Incoming>,
) -> Result<T, ApiError> {
    let garbage = |error: &dyn std::error::Error| {
        let text = "the agent's answer cannot be understood";
        ApiError::new(ErrorCode::GuestFailed, text).caused_by(error)
    };
    let body = Limited::new(answer.into_body(), MAX_JSON_BODY).collect().await;
    let body = body.map_err(|error| garbage(&*error))?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| garbage(&error))
}

/// Copies in both directions until both have ended. The session keeps the connection's slot.
async fn relay(client: OnUpgrade, agent: OnUpgrade, slot: Option<Arc<Slot>>) {
    let (Ok(client), Ok(agent)) = (client.await, agent.await) else { return };
    if let Some(slot) = &slot {
        slot.keep();
    }
    let (mut client, mut agent) = (TokioIo::new(client), TokioIo::new(agent));
    let copied = tokio::io::copy_bidirectional(&mut client, &mut agent);
    let ended = match &slot {
        Some(slot) => tokio::select! {
            ended = copied => ended,
            () = slot.closed() => return,
        },
        None => copied.await,
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "a relayed session ended");
    }
}
