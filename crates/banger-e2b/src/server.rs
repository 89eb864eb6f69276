//! The server: which part of it answers a request, and who may send it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use banger_api::{ApiError, ErrorCode};
use banger_client::Client;

use crate::access::{self, Secret};
use crate::failure::{Code, Failure};
use crate::sandboxes::{Sandbox, Sandboxes};
use crate::{Options, filesystem, ports, process_rpc, rest, transfer};

/// Header with the id of a sandbox.
const SANDBOX_HEADER: &str = "e2b-sandbox-id";
/// Header with the token of a sandbox.
const TOKEN_HEADER: &str = "x-access-token";
/// Header with the key.
const KEY_HEADER: &str = "x-api-key";
/// Bytes of the id of a server.
const ID_BYTES: usize = 6;

/// State of the server.
pub struct Server {
    /// The daemon.
    pub client: Client,
    /// What was asked for.
    pub options: Options,
    /// Id of this server, in a label of its machines.
    pub id: String,
    /// The key of clients.
    pub key: Secret,
    /// What follows `PORT-SANDBOX.` in the name of a port.
    pub domain: String,
    /// Its sandboxes.
    pub sandboxes: Arc<Sandboxes>,
}

impl Server {
    /// A server without sandboxes that listens on this port.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(client: Client, options: Options, port: u16) -> Result<Self, ApiError> {
        let failed = |error: &dyn std::error::Error| {
            ApiError::new(ErrorCode::Internal, "no random numbers").caused_by(error)
        };
        let mut id = [0; ID_BYTES];
        getrandom::fill(&mut id).map_err(|error| failed(&error))?;
        Ok(Self {
            client,
            options,
            id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
            key: Secret::new().map_err(|error| failed(&error))?,
            domain: format!("localhost:{port}"),
            sandboxes: Arc::default(),
        })
    }
}

/// The routes.
pub fn router(server: Arc<Server>) -> Router {
    // Each part has limits of its own.
    Router::new().fallback(answer).layer(DefaultBodyLimit::disable()).with_state(server)
}

async fn answer(State(server): State<Arc<Server>>, request: Request) -> Response {
    if let Some(port) = ports::named(request.headers()) {
        return ports::answer(&server, port, request).await;
    }
    let path = request.uri().path();
    let rpc = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    match rpc {
        Some(("process.Process", method)) => {
            let method = method.to_owned();
            match admitted(&server, &request) {
                Ok(sandbox) => {
                    process_rpc::answer(&server.client, &sandbox, &method, request).await
                }
                Err(failure) => failure.rpc(),
            }
        }
        Some(("filesystem.Filesystem", method)) => {
            let method = method.to_owned();
            match admitted(&server, &request) {
                Ok(sandbox) => filesystem::answer(&server.client, &sandbox, &method, request).await,
                Err(failure) => failure.rpc(),
            }
        }
        _ if path == "/files" => match admitted(&server, &request) {
            Ok(sandbox) => transfer::answer(&server.client, &sandbox, request).await,
            Err(failure) => failure.rest(),
        },
        _ if path == "/health" => match admitted(&server, &request) {
            Ok(sandbox) => health(&server, &sandbox).await,
            Err(failure) => failure.rest(),
        },
        _ => match check_key(&server, &request) {
            Ok(()) => rest::answer(&server, request).await,
            Err(failure) => failure.rest(),
        },
    }
}

fn check_key(server: &Server, request: &Request) -> Result<(), Failure> {
    if !server.key.is_in(request.headers(), KEY_HEADER) {
        let text = "the API key is not that of this server: set `E2B_API_KEY` to the one that \
            `banger serve` has printed at its start";
        return Err(Failure::new(Code::Unauthenticated, text));
    }
    access::check_version(request.headers())
}

/// The sandbox of a request to E2B's agent, if the request has the token of the sandbox. The
/// version was checked when the client got the token; RPC libraries name themselves here.
fn admitted(server: &Server, request: &Request) -> Result<Arc<Sandbox>, Failure> {
    let headers = request.headers();
    let id = headers.get(SANDBOX_HEADER).and_then(|value| value.to_str().ok());
    let id = id.ok_or_else(|| {
        let text = "the request names no sandbox: set `E2B_SANDBOX_URL` to the address of this \
            server, and use a supported version of the SDK";
        Failure::invalid(text)
    })?;
    let sandbox = server.sandboxes.get(id).ok_or_else(|| Failure::gone(id))?;
    if !sandbox.token.is_in(headers, TOKEN_HEADER) {
        let text = "the token is not that of the sandbox: `Sandbox.connect` gets it";
        return Err(Failure::new(Code::Unauthenticated, text));
    }
    Ok(sandbox)
}

/// Whether a sandbox runs.
async fn health(server: &Server, sandbox: &Sandbox) -> Response {
    match server.client.vm(sandbox.id()).await {
        Ok(_) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Err(error) if error.code == ErrorCode::NotFound => {
            server.sandboxes.forget(sandbox.id());
            Failure::gone(sandbox.id()).rest()
        }
        Err(error) => Failure::from(error).rest(),
    }
}
