//! Requests to a guest's agent over a connection that the daemon passed to the client.
//!
//! The guest is not trusted: heads, bodies and messages have size limits, and each request ends
//! within [`ANSWER_TIMEOUT`], whatever the guest sends.

use std::time::Duration;

use banger_agent_proto::exec::{Detached, ExecRequest};
use banger_agent_proto::http::{ErrorBody, Health, Ports};
use banger_agent_proto::{MAX_EXEC_BODY, MAX_HTTP_HEAD, MAX_JSON_BODY};
use banger_api::hint::VmLog;
use banger_api::{ApiError, ErrorCode, Hint, routes};
use hyper::Response;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::call::Idempotency;
use crate::client::{Client, fill};
use crate::http::{self, Call, CallError, Connection};
use crate::session::AgentRoute;

/// Time limit for a request with its whole answer, and for the start of a command.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum length of a guest's message, in characters; the rest is cut off.
const MAX_MESSAGE: usize = 1024;

/// Requests the agent's health (`GET /healthz`).
///
/// # Errors
/// No answer in time, or an answer that is not an agent's.
pub async fn health(stream: UnixStream) -> Result<Health, ApiError> {
    get(stream, "/healthz").await
}

/// Requests the ports that the guest listens on (`GET /ports`).
///
/// # Errors
/// No answer in time, or an answer that is not an agent's.
pub async fn ports(stream: UnixStream) -> Result<Ports, ApiError> {
    get(stream, "/ports").await
}

impl Client {
    /// The ports that a guest listens on.
    ///
    /// # Errors
    /// Not found, not running; an agent that does not answer; a daemon on another host; or an error
    /// of the daemon.
    pub async fn guest_ports(&self, vm: &str) -> Result<Ports, ApiError> {
        match self.agent_route(vm).await? {
            AgentRoute::Descriptor { agent, .. } => ports(agent).await,
            AgentRoute::Upgrade { .. } => {
                let text = "the ports of a guest can be read on the host of the daemon only";
                Err(ApiError::new(ErrorCode::BadRequest, text))
            }
        }
    }

    /// Starts a command that runs without a client; its output goes to a file in the guest.
    ///
    /// # Errors
    /// Not found, not running; the agent refuses the request (unknown user, missing folder), does
    /// not answer, or is of a version without this request; or an error of the daemon.
    pub async fn detach(&self, vm: &str, request: &ExecRequest) -> Result<Detached, ApiError> {
        match self.agent_route(vm).await? {
            AgentRoute::Descriptor { agent, .. } => {
                answered(agent, command_call("/detach", request)?).await
            }
            AgentRoute::Upgrade { .. } => {
                let call = command_call(&fill(routes::VM_DETACH, "vm", vm)?, request)?;
                self.ask(call, Idempotency::NotIdempotent).await
            }
        }
    }
}

/// Builds the request that runs a command.
///
/// # Errors
/// A command line that is larger than the agent accepts.
pub(crate) fn command_call(path: &str, request: &ExecRequest) -> Result<Call, ApiError> {
    let call = Call::post(path, request)?;
    if call.body.len() > MAX_EXEC_BODY {
        let text = format!(
            "arguments and environment are {} MiB, more than a program can be given",
            call.body.len() / (1024 * 1024)
        );
        return Err(ApiError::new(ErrorCode::BadRequest, text).with_hint(Hint::UseStdin));
    }
    Ok(call)
}

async fn get<T: DeserializeOwned>(stream: UnixStream, path: &str) -> Result<T, ApiError> {
    answered(stream, Call::get(path)).await
}

async fn answered<T: DeserializeOwned>(stream: UnixStream, call: Call) -> Result<T, ApiError> {
    let path = call.path.clone();
    let answer = within(ANSWER_TIMEOUT, async {
        let answer = ask(stream, call).await?;
        http::body(answer.into_body(), MAX_JSON_BODY, "the agent").await
    });
    let bytes = answer.await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let text = format!("the guest agent's answer to `{path}` is malformed");
        ApiError::new(ErrorCode::GuestFailed, text).caused_by(&error)
    })
}

/// Runs an exchange with an agent within a time limit.
pub(crate) async fn within<T>(
    limit: Duration,
    exchange: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| {
        let seconds = limit.as_secs_f32();
        let text = format!("the agent in the guest does not answer within {seconds} s");
        Err(ApiError::new(ErrorCode::GuestFailed, text)
            .with_hint(Hint::check("VM"))
            .with_hint(Hint::log("VM", VmLog::Console)))
    })
}

/// Sends a request; a status of 400 or above is an error. Has no time limit of its own.
pub(crate) async fn ask(stream: UnixStream, call: Call) -> Result<Response<Incoming>, ApiError> {
    let mut connection =
        Connection::open(stream, MAX_HTTP_HEAD).await.map_err(|e| no_answer(&e))?;
    let answer = connection.send(call).await.map_err(|error| no_answer(&error))?;
    let status = answer.status();
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(answer);
    }
    let bytes = http::body(answer.into_body(), MAX_JSON_BODY, "the agent").await?;
    let message = match serde_json::from_slice::<ErrorBody>(&bytes) {
        Ok(body) => body.error.chars().take(MAX_MESSAGE).collect(),
        Err(_) => format!("the agent refused ({status})"),
    };
    let code =
        if status.is_client_error() { ErrorCode::BadRequest } else { ErrorCode::GuestFailed };
    Err(ApiError::new(code, message))
}

fn no_answer(error: &CallError) -> ApiError {
    ApiError::new(ErrorCode::GuestFailed, "the agent in the guest does not answer").caused_by(error)
}
