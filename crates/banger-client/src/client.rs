//! Typed calls for every route of [`banger_api::routes`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use banger_api::boot::{BootView, Wait, WaitFor};
use banger_api::daemon::DaemonStatus;
use banger_api::doctor::{Check, Leftover, RemoveLeftovers, RemovedLeftover};
use banger_api::filter::VmFilter;
use banger_api::host::HostView;
use banger_api::opencode::VmSecrets;
use banger_api::operation::{Accepted, CancelAnswer, OperationView, SubjectRef};
use banger_api::paths::Paths;
use banger_api::stats::VmStats;
use banger_api::sync::SyncView;
use banger_api::trace::TraceParent;
use banger_api::vm::{CreateVm, VmAction, VmDetails, VmHealth, VmSummary};
use banger_api::{ApiError, ErrorCode, OpId, routes};

use tokio::time::Instant;

use crate::call::Idempotency;
use crate::daemon::{self, Presence};
use crate::events::EventStream;
use crate::http::{self, Call, CallError};
use crate::launch::Launcher;
use crate::stats::StatsSelection;
use crate::transport::{LocalSocket, Transport};

/// Time limit of a single request that waits for a VM's boot.
const MAX_SINGLE_WAIT: Duration = Duration::from_secs(5);

/// The daemon of one installation. Cheap to clone; each call has a connection of its own.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    /// The trace that its requests belong to.
    pub(crate) trace: Option<TraceParent>,
}

struct Inner {
    paths: Paths,
    /// None if the client neither starts nor replaces a daemon.
    launcher: Option<Launcher>,
    transport: Box<dyn Transport>,
    /// Whether the daemon's build has been checked, or a daemon of another build is to be kept.
    build_checked: AtomicBool,
}

pub(crate) type Result<T> = std::result::Result<T, ApiError>;

impl Client {
    /// A client of the daemon on this host. The first call starts the daemon if none answers, and
    /// replaces one of an earlier build of this installation.
    pub fn new(paths: Paths, launcher: Launcher) -> Self {
        let transport = LocalSocket { api: paths.socket(), sessions: paths.session_socket() };
        Self::with_transport(paths, launcher, Box::new(transport))
    }

    /// A client that reaches its daemon through `transport`. A transport without session socket
    /// leads to another host: the client does not start or replace a daemon there.
    pub fn with_transport(paths: Paths, launcher: Launcher, transport: Box<dyn Transport>) -> Self {
        let build_checked = AtomicBool::new(false);
        Self::of(Inner { paths, launcher: Some(launcher), transport, build_checked })
    }

    /// A client of a daemon on this host that runs already, of whatever build: without one each
    /// call fails.
    pub fn of_running_daemon(paths: Paths) -> Self {
        let transport = LocalSocket { api: paths.socket(), sessions: paths.session_socket() };
        let build_checked = AtomicBool::new(true);
        let transport = Box::new(transport);
        Self::of(Inner { paths, launcher: None, transport, build_checked })
    }

    fn of(inner: Inner) -> Self {
        Self { inner: Arc::new(inner), trace: None }
    }

    pub(crate) fn transport(&self) -> &dyn Transport {
        &*self.inner.transport
    }

    /// Adds the expected build to the first call: a daemon of another build refuses it unchanged.
    pub(crate) fn expecting_our_build(&self, call: Call) -> Call {
        match self.expected_build() {
            Some(build) => call.with_header(routes::EXPECT_BUILD_HEADER, build),
            None => call,
        }
    }

    /// The build of this program, until the daemon's build has been compared with it.
    pub(crate) fn expected_build(&self) -> Option<&str> {
        let checked = self.inner.build_checked.load(Ordering::Relaxed);
        let launcher = self.inner.launcher.as_ref()?;
        (!checked && self.is_local()).then_some(launcher.build_id.as_str())
    }

    /// Whether the daemon is on this host.
    pub(crate) fn is_local(&self) -> bool {
        self.inner.transport.session_socket().is_some()
    }

    pub(crate) fn build_is_checked(&self) {
        self.inner.build_checked.store(true, Ordering::Relaxed);
    }

    /// Paths of folders and sockets.
    pub fn paths(&self) -> &Paths {
        &self.inner.paths
    }

    /// The error for a daemon that does not answer.
    pub(crate) fn unreachable(&self, error: &CallError) -> ApiError {
        if self.is_local() {
            return daemon::unreachable(&self.inner.paths, error);
        }
        ApiError::new(ErrorCode::DaemonUnavailable, "the daemon does not answer").caused_by(error)
    }

    /// Starts the daemon if none answers, and replaces an outdated one.
    ///
    /// # Errors
    /// The daemon cannot be started, does not answer, or refuses to end.
    pub async fn ensure_daemon(&self) -> Result<DaemonStatus> {
        match &self.inner.launcher {
            Some(launcher) if self.is_local() => daemon::ensure(&self.inner.paths, launcher).await,
            _ => {
                let answer = self.once(Call::get(routes::DAEMON)).await;
                http::decode(answer.map_err(|error| self.unreachable(&error))?).await
            }
        }
    }

    /// Checks whether a daemon answers, without starting one.
    ///
    /// # Errors
    /// A daemon listens but cannot be reached, or its answer is unknown.
    pub async fn probe_daemon(&self) -> Result<Presence> {
        daemon::probe(&self.inner.paths).await
    }

    /// Stops the daemon; VMs keep running. Returns its last status when its process has ended.
    ///
    /// # Errors
    /// The daemon refused or did not end in time.
    pub async fn stop_daemon(&self) -> Result<Presence> {
        daemon::stop(&self.inner.paths).await
    }

    /// The resources of the host, and what VMs reserve or use of them.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn host(&self) -> Result<HostView> {
        self.ask(Call::get(routes::HOST), Idempotency::Idempotent).await
    }

    /// The checks of the host.
    ///
    /// # Errors
    /// An error of the daemon or of the way to it, as with all methods below.
    pub async fn doctor(&self) -> Result<Vec<Check>> {
        self.ask(Call::get(routes::DOCTOR), Idempotency::Idempotent).await
    }

    /// Objects on the host of VMs that are not in the database.
    ///
    /// # Errors
    /// The host's.
    pub async fn leftovers(&self) -> Result<Vec<Leftover>> {
        self.ask(Call::get(routes::LEFTOVERS), Idempotency::Idempotent).await
    }

    /// Removes objects of these VMs.
    ///
    /// # Errors
    /// A request that is not valid; errors of a VM are in its result.
    pub async fn remove_leftovers(&self, ids: Vec<String>) -> Result<Vec<RemovedLeftover>> {
        let request = RemoveLeftovers { ids };
        let call = Call::post(routes::LEFTOVER_REMOVALS, &request)?;
        self.ask(call, Idempotency::Idempotent).await
    }

    /// The OpenAPI document of the daemon.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn openapi(&self) -> Result<serde_json::Value> {
        self.ask(Call::get(routes::OPENAPI), Idempotency::Idempotent).await
    }

    /// All VMs, by name.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn vms(&self) -> Result<Vec<VmSummary>> {
        self.ask(Call::get(routes::VMS), Idempotency::Idempotent).await
    }

    /// The VMs that match all filters, by name.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn vms_matching(&self, filters: &[VmFilter]) -> Result<Vec<VmSummary>> {
        let parameter =
            |filter: &VmFilter| format!("filter={}", routes::encode(&filter.to_string()));
        let query: Vec<String> = filters.iter().map(parameter).collect();
        let path = format!("{}?{}", routes::VMS, query.join("&"));
        self.ask(Call::get(path), Idempotency::Idempotent).await
    }

    /// Everything about one VM.
    ///
    /// # Errors
    /// Not found, ambiguous, or the daemon's.
    pub async fn vm(&self, vm: &str) -> Result<VmDetails> {
        self.ask(Call::get(fill(routes::VM, "vm", vm)?), Idempotency::Idempotent).await
    }

    /// Secrets of a VM.
    ///
    /// # Errors
    /// Not found, ambiguous, or the daemon's.
    pub async fn secrets(&self, vm: &str) -> Result<VmSecrets> {
        self.ask(Call::get(fill(routes::VM_SECRETS, "vm", vm)?), Idempotency::Idempotent).await
    }

    /// Creates a VM.
    ///
    /// # Errors
    /// A bad value, a taken name, or the daemon's.
    pub async fn create(&self, request: &CreateVm) -> Result<Accepted> {
        self.ask(Call::post(routes::VMS, request)?, Idempotency::NotIdempotent).await
    }

    /// Creates a VM once: a repeated request with this key gets the first answer.
    ///
    /// # Errors
    /// As [`Client::create`]; a key of another request, or one that is not allowed.
    pub async fn create_once(&self, request: &CreateVm, key: &str) -> Result<Accepted> {
        let call = Call::post(routes::VMS, request)?.with_header(routes::IDEMPOTENCY_HEADER, key);
        self.ask(call, Idempotency::Idempotent).await
    }

    /// Requests an action on a VM. The action has no operation if the VM is in the requested state.
    ///
    /// # Errors
    /// Not found, ambiguous, refused, or the daemon's.
    pub async fn act(&self, vm: &str, action: VmAction) -> Result<Accepted> {
        self.ask(Call::post(fill(routes::VM_ACTION, "vm", vm)?, &action)?, Idempotency::Idempotent)
            .await
    }

    /// Waits for a stage of a VM's start and returns the state of its guest's boot, which is
    /// `booting` after a timeout of the stage `booted`.
    ///
    /// # Errors
    /// Not found, ambiguous, neither running nor starting, timeout of another stage, or the
    /// daemon's.
    pub async fn wait_boot(&self, vm: &str, wait: Wait) -> Result<BootView> {
        let path = fill(routes::VM_BOOT, "vm", vm)?;
        let deadline = Instant::now() + Duration::from_millis(wait.timeout_ms);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Several requests: an answer has a time limit of its own, and the daemon may restart.
            let ms = left.min(MAX_SINGLE_WAIT).as_millis();
            let path = format!("{path}?wait={}&timeout_ms={ms}", wait.stage.as_str());
            let answer = self.ask(Call::get(path), Idempotency::Idempotent).await;
            let continues = match &answer {
                Ok::<BootView, _>(view) => wait.stage == WaitFor::Booted && !view.is_over(),
                Err(error) => error.code == ErrorCode::Timeout,
            };
            if !continues || left <= MAX_SINGLE_WAIT {
                return answer;
            }
        }
    }

    /// The health of a VM's agent.
    ///
    /// # Errors
    /// Not found, ambiguous, or the daemon's.
    pub async fn health(&self, vm: &str) -> Result<VmHealth> {
        self.ask(Call::get(fill(routes::VM_HEALTH, "vm", vm)?), Idempotency::Idempotent).await
    }

    /// The live folders of a VM, with their state; `look` has their sessions look at them as a
    /// whole.
    ///
    /// # Errors
    /// Not found, ambiguous, or the daemon's.
    pub async fn live_folders(&self, vm: &str, look: bool) -> Result<Vec<SyncView>> {
        let look = if look { "?look=true" } else { "" };
        let path = format!("{}{look}", fill(routes::VM_SYNC, "vm", vm)?);
        self.ask(Call::get(path), Idempotency::Idempotent).await
    }

    /// One sample of the resource usage of VMs.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn stats(&self, selection: &StatsSelection) -> Result<Vec<VmStats>> {
        self.ask(Call::get(selection.path()), Idempotency::Idempotent).await
    }

    /// The same without the values that only guest agents know.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn stats_on_host(&self, selection: &StatsSelection) -> Result<Vec<VmStats>> {
        self.ask(Call::get(selection.path_on_host()), Idempotency::Idempotent).await
    }

    /// The newest operations, newest first.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn operations(&self) -> Result<Vec<OperationView>> {
        self.ask(Call::get(routes::OPERATIONS), Idempotency::Idempotent).await
    }

    /// One operation.
    ///
    /// # Errors
    /// Not found, or the daemon's.
    pub async fn operation(&self, operation: &OpId) -> Result<OperationView> {
        let path = routes::fill(routes::OPERATION, "operation", operation.as_str());
        self.ask(Call::get(path), Idempotency::Idempotent).await
    }

    /// Cancels an operation, which undoes itself.
    ///
    /// # Errors
    /// Not found, an operation of a kind that cannot be cancelled, or the daemon's.
    pub async fn cancel(&self, operation: &OpId) -> Result<CancelAnswer> {
        let path = routes::fill(routes::OPERATION_CANCEL, "operation", operation.as_str());
        self.ask(Call::post(path, &serde_json::json!({}))?, Idempotency::Idempotent).await
    }

    /// Cancels all operations in progress on a subject.
    ///
    /// # Errors
    /// No operation is in progress, none of them can be cancelled, or the daemon's.
    pub async fn cancel_on(&self, subject: &SubjectRef) -> Result<Vec<CancelAnswer>> {
        self.ask(Call::post(routes::CANCELS, subject)?, Idempotency::Idempotent).await
    }

    /// The events of an operation, starting with its first.
    pub fn follow(&self, operation: &OpId) -> EventStream {
        EventStream::new(self.clone(), operation.clone())
    }
}

/// Fills a route with a reference that a user typed.
pub(crate) fn fill(route: &str, placeholder: &str, reference: &str) -> Result<String> {
    // An empty segment is the collection's path, and `.` and `..` lead to another path.
    if matches!(reference, "" | "." | "..") {
        let what = if placeholder == "vm" { "VM" } else { placeholder };
        let text = format!("there is no {what} `{reference}`");
        return Err(ApiError::new(ErrorCode::NotFound, text));
    }
    Ok(routes::fill(route, placeholder, reference))
}
