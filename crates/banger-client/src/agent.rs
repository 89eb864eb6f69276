//! Questions to a guest's agent, over a connection that the daemon handed out.
//!
//! The guest is not trusted: heads, bodies and messages are read within limits of size, and each
//! question is answered within [`ANSWER_TIMEOUT`] or not at all, however the guest spends it.

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

use crate::call::Repeat;
use crate::client::{Client, fill};
use crate::http::{self, Call, Connection, Lost};
use crate::session::Way;

/// Longest time for a question and its whole answer, or for a command to start.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Most characters of a guest's message that are passed on.
const MAX_MESSAGE: usize = 1024;

/// Asks the agent how it is (`GET /healthz`).
///
/// # Errors
/// No answer, or one that is not an agent's.
pub async fn health(stream: UnixStream) -> Result<Health, ApiError> {
    get(stream, "/healthz").await
}

/// Asks which ports the guest listens on (`GET /ports`).
///
/// # Errors
/// No answer, or one that is not an agent's.
pub async fn ports(stream: UnixStream) -> Result<Ports, ApiError> {
    get(stream, "/ports").await
}

impl Client {
    /// Starts a command that goes on without a client, its output in a file of the guest.
    ///
    /// # Errors
    /// Not found, not running; the agent refuses the request (unknown user, missing folder), does
    /// not answer, or is of a version that cannot do this; or the daemon's.
    pub async fn detach(&self, vm: &str, request: &ExecRequest) -> Result<Detached, ApiError> {
        match self.agent_session(vm).await?.0 {
            Way::Descriptor(stream) => answered(stream, command_call("/detach", request)?).await,
            Way::Upgrade { .. } => {
                let call = command_call(&fill(routes::VM_DETACH, "vm", vm)?, request)?;
                self.ask(call, Repeat::Unsafe).await
            }
        }
    }
}

/// A request to run a command.
pub(crate) fn command_call(path: &str, request: &ExecRequest) -> Result<Call, ApiError> {
    let call = Call::post(path, request)?;
    if call.body.len() > MAX_EXEC_BODY {
        let text = format!(
            "arguments and environment are {} MiB, more than a program can be given",
            call.body.len() / (1024 * 1024)
        );
        return Err(ApiError::new(ErrorCode::BadRequest, text)
            .with_hint("pass large data on standard input (`-i`) or in a file"));
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
        let text = format!("the agent's answer to `{path}` cannot be understood");
        ApiError::new(ErrorCode::GuestFailed, text).caused_by(&error)
    })
}

/// Bounds a conversation with an agent.
pub(crate) async fn within<T>(
    limit: Duration,
    talk: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    tokio::time::timeout(limit, talk).await.unwrap_or_else(|_| {
        let seconds = limit.as_secs_f32();
        let text = format!("the agent in the guest does not answer within {seconds} s");
        Err(ApiError::new(ErrorCode::GuestFailed, text)
            .with_hint(Hint::check("VM"))
            .with_hint(Hint::log("VM", VmLog::Console)))
    })
}

/// Sends a request; an answer of 400 and above is an error. Not bounded in time.
pub(crate) async fn ask(stream: UnixStream, call: Call) -> Result<Response<Incoming>, ApiError> {
    let mut connection =
        Connection::open(stream, MAX_HTTP_HEAD).await.map_err(|e| no_answer(&e))?;
    let answer = connection.send(call).await.map_err(|lost| no_answer(&lost))?;
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

fn no_answer(lost: &Lost) -> ApiError {
    ApiError::new(ErrorCode::GuestFailed, "the agent in the guest does not answer").caused_by(lost)
}
