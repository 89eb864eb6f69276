//! The HTTP API: one handler per route, all errors as [`problem::Problem`] in JSON.
//!
//! Handlers only translate. Changes run in separate tasks, so a client that disconnects never
//! leaves an incomplete change.

mod archive;
mod body;
mod daemon;
mod disk;
mod document;
mod events;
mod examples;
mod exec;
mod hold;
mod host;
mod images;
mod lines;
mod logs;
mod metrics;
mod operations;
mod problem;
mod stats;
mod upgrade;
mod upload;
mod vms;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use banger_api::trace::{self, TraceParent};
use banger_api::{ApiError, ErrorCode, Hint, routes};
use banger_engine::Engine;
use banger_engine::trace::{Context, within};
use tokio::sync::watch;
use tracing::Instrument as _;
use utoipa::OpenApi;

use self::document::Strict;
use self::examples::Examples;
use self::problem::Problems;
use crate::config::Config;
use crate::daemon::{BUILD_ID, Host, VERSION};
use crate::dns::Listening;
use crate::feed::Feed;
use crate::live_folders::LiveFolders;
use crate::otlp;
use crate::stopping::Stopping;

/// State of the handlers.
pub struct Api {
    /// The engine with all VMs.
    pub engine: Arc<Engine>,
    /// The configuration.
    pub config: Config,
    /// Path of the API socket.
    pub socket: PathBuf,
    /// Path of the daemon's log.
    pub log: PathBuf,
    /// The state folder.
    pub state: PathBuf,
    /// Real or simulated host.
    pub host: Host,
    /// State of the DNS server.
    pub dns: watch::Receiver<Listening>,
    /// Time of the daemon's start.
    pub since: Instant,
    /// The stream of events.
    pub feed: Arc<Feed>,
    /// The live folders.
    pub live_folders: Arc<LiveFolders>,
    /// The shutdown request.
    pub stopping: Stopping,
}

type Shared = State<Arc<Api>>;

/// An [`ApiError`] as a response.
#[derive(Debug)]
pub struct Failure(pub ApiError);

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        problem::answer(status, self.0)
    }
}

/// Result of a handler.
pub type Answer<T> = Result<T, Failure>;

/// All routes.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route(routes::DAEMON, get(daemon::status))
        .route(routes::DAEMON_STOP, post(daemon::stop))
        .route(routes::DAEMON_LOGS, get(logs::daemon))
        .route(routes::EVENTS, get(events::events))
        .route(routes::HOST, get(host::host))
        .route(routes::DOCTOR, get(daemon::doctor))
        .route(routes::LEFTOVERS, get(daemon::leftovers))
        .route(routes::LEFTOVER_REMOVALS, post(daemon::remove_leftovers))
        .route(routes::METRICS, get(metrics::metrics))
        .route(routes::OPENAPI, get(daemon::openapi))
        .route(routes::VMS, get(vms::list).post(vms::create))
        .route(routes::VM, get(vms::show))
        .route(routes::VM_ACTION, post(vms::action))
        .route(routes::VM_LOGS, get(logs::vm))
        .route(routes::VM_EXEC, post(exec::exec))
        .route(routes::VM_DETACH, post(exec::detach))
        .route(routes::VM_ARCHIVE, get(archive::download).put(archive::upload))
        .route(routes::VM_HOLD, post(hold::hold))
        .route(routes::VM_BOOT, get(vms::boot))
        .route(routes::VM_HEALTH, get(vms::health))
        .route(routes::VM_SECRETS, get(vms::secrets))
        .route(routes::VM_SYNC, get(vms::live_folders))
        .route(routes::STATS, get(stats::stats))
        .route(routes::OPERATIONS, get(operations::list))
        .route(routes::OPERATION, get(operations::show))
        .route(routes::OPERATION_EVENTS, get(operations::events))
        .route(routes::OPERATION_CANCEL, post(operations::cancel))
        .route(routes::CANCELS, post(operations::cancel_on))
        .route(routes::IMAGES, get(images::list))
        .route(routes::IMAGE, get(images::show).delete(images::delete))
        .route(routes::IMAGE_HISTORY, get(images::history))
        .route(routes::IMAGE_PACKAGES, get(images::packages))
        .route(routes::IMAGE_PULL, post(images::pull))
        .route(routes::IMAGE_IMPORT, post(images::import))
        .route(routes::IMAGE_BUILD, post(images::build))
        .route(routes::IMAGE_COMMIT, post(images::commit))
        .route(routes::IMAGE_REGISTER, post(images::register))
        .route(routes::IMAGE_PROMOTE, post(images::promote))
        .route(routes::IMAGE_UPLOAD, post(images::upload))
        .route(routes::IMAGE_TAGS, post(images::tag))
        .route(routes::IMAGE_TAG, delete(images::untag))
        .route(routes::DISK, get(disk::usage))
        .route(routes::DISK_PRUNES, post(disk::prune))
        .route(routes::KERNELS, get(images::kernels))
        .route(routes::KERNEL, delete(images::delete_kernel))
        .route(routes::KERNEL_PULL, post(images::pull_kernel))
        .route(routes::KERNEL_BUILD, post(images::build_kernel))
        .route(routes::KERNEL_IMPORT, post(images::import_kernel))
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown_route)
        .layer(middleware::from_fn_with_state(api.clone(), gate))
        .with_state(api)
}

/// Refuses new work during shutdown, and requests that expect another build; adds the build id
/// and the version to every answer.
async fn gate(State(api): Shared, request: Request, next: Next) -> Response {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    let expected = request.headers().get(routes::EXPECT_BUILD_HEADER);
    let mut answer = if expected.is_some_and(|build| build != BUILD_ID) {
        let text = format!(
            "the daemon is of another build than the request expects: {BUILD_ID}, version {VERSION}"
        );
        let error =
            ApiError::new(ErrorCode::DaemonUnavailable, text).with_hint(Hint::ReplaceDaemon);
        let status =
            StatusCode::from_u16(routes::BUILD_MISMATCH).unwrap_or(StatusCode::BAD_REQUEST);
        problem::answer(status, error)
    } else if changes && api.stopping.is_requested() {
        let error = ApiError::new(ErrorCode::DaemonUnavailable, "the daemon is shutting down");
        Failure(error.with_hint(Hint::Retry)).into_response()
    } else {
        traced(request, next).await
    };
    let build = HeaderValue::from_static(BUILD_ID);
    answer.headers_mut().insert(routes::BUILD_HEADER, build);
    answer.headers_mut().insert(routes::VERSION_HEADER, HeaderValue::from_static(VERSION));
    answer
}

/// Carries out a request within its trace: that of the header, or a new one.
async fn traced(request: Request, next: Next) -> Response {
    let Some(parent) = given_trace(request.headers()).or_else(new_trace) else {
        return next.run(request).await;
    };
    let span = tracing::info_span!(
        "request", method = %request.method(), path = request.uri().path(), trace = %parent.trace
    );
    otlp::set_parent(&span, &parent);
    within(parent.trace, next.run(request).instrument(span)).await
}

/// The trace that the headers of a request name.
pub(crate) fn given_trace(headers: &HeaderMap) -> Option<TraceParent> {
    headers.get(trace::TRACEPARENT)?.to_str().ok()?.parse().ok()
}

/// A trace of a request without one. None without random numbers.
fn new_trace() -> Option<TraceParent> {
    let mut entropy = [0; 24];
    getrandom::fill(&mut entropy).ok()?;
    TraceParent::from_entropy(entropy)
}

async fn unknown_route(request: Request) -> Failure {
    let path: String =
        request.uri().path().chars().take(200).flat_map(char::escape_debug).collect();
    let version = path.strip_prefix("/v").and_then(|rest| rest.split('/').next());
    let is_other = version.is_some_and(|version| version != "1" && version.parse::<u32>().is_ok());
    let text = if is_other {
        format!("this daemon, version {VERSION}, has the API v1: there is no route `{path}`")
    } else {
        format!("there is no route `{path}`")
    };
    Failure(
        ApiError::new(ErrorCode::BadRequest, text)
            .with_hint(Hint::ReadApi { route: routes::OPENAPI.into() }),
    )
}

/// 405 (RFC 9110 section 15.5.6); the router adds the header `Allow`.
async fn wrong_method(request: Request) -> Response {
    let method = request.method().as_str().chars().take(40).collect::<String>();
    let path: String =
        request.uri().path().chars().take(200).flat_map(char::escape_debug).collect();
    let error = ApiError::new(ErrorCode::BadRequest, format!("`{path}` has no method `{method}`"))
        .with_hint(Hint::ReadApi { route: routes::OPENAPI.into() });
    problem::answer(StatusCode::METHOD_NOT_ALLOWED, error)
}

/// Runs a change to its end even if the client disconnects.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::spawn(Context::current().run(work)).await {
        Ok(result) => result,
        Err(panic) => {
            let text = "the daemon failed during this request";
            Err(ApiError::new(ErrorCode::Internal, text).caused_by(&panic))
        }
    }
}

/// The OpenAPI 3.1 document.
#[derive(OpenApi)]
#[openapi(
    modifiers(&Strict, &Problems, &Examples),
    info(
        title = "banger",
        description = "MicroVMs on this host. Served on a Unix socket, to its owner only."
    ),
    paths(
        daemon::status,
        daemon::stop,
        daemon::doctor,
        daemon::leftovers,
        daemon::remove_leftovers,
        logs::daemon,
        events::events,
        daemon::openapi,
        metrics::metrics,
        vms::list,
        vms::create,
        vms::show,
        vms::action,
        vms::boot,
        vms::health,
        vms::secrets,
        vms::live_folders,
        logs::vm,
        exec::exec,
        exec::detach,
        archive::download,
        archive::upload,
        hold::hold,
        stats::stats,
        operations::list,
        operations::show,
        operations::events,
        operations::cancel,
        operations::cancel_on,
        images::list,
        images::show,
        images::delete,
        images::history,
        images::packages,
        images::pull,
        images::import,
        images::build,
        images::commit,
        images::register,
        images::promote,
        images::upload,
        images::tag,
        images::untag,
        host::host,
        disk::usage,
        disk::prune,
        images::kernels,
        images::delete_kernel,
        images::pull_kernel, images::build_kernel, images::import_kernel,
    ),
    components(schemas(
        banger_api::boot::WaitFor,
        logs::Source,
        banger_api::events::About,
        banger_api::events::Event,
        problem::Problem,
        banger_api::operation::OpEvent
    ))
)]
pub struct Description;
