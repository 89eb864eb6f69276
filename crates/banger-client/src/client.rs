//! Typed calls for every route of [`banger_api::routes`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use banger_api::boot::{BootView, Wait, WaitFor};
use banger_api::daemon::DaemonStatus;
use banger_api::doctor::Check;
use banger_api::images::{
    Deleted, ImagePullRequest, ImageView, ImportRequest, KernelView, PullRequest, TagRequest,
};
use banger_api::operation::{Accepted, CancelAnswer, OperationView, SubjectRef};
use banger_api::paths::Paths;
use banger_api::vm::{CreateVm, VmAction, VmDetails, VmHealth, VmSummary};
use banger_api::{ApiError, ErrorCode, OpId, routes};

use tokio::time::Instant;

use crate::call::Repeat;
use crate::daemon::{self, Presence};
use crate::events::Follow;
use crate::http::{self, Call, Lost};
use crate::launch::Launcher;
use crate::transport::{LocalSocket, Transport};

/// Longest single question about a VM's boot.
const WAIT_PIECE: Duration = Duration::from_secs(5);

/// The daemon of one installation. Cheap to clone; each call has a connection of its own.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    paths: Paths,
    launcher: Launcher,
    transport: Box<dyn Transport>,
    /// Whether the daemon is known to be the installed one, or one that is not to be replaced.
    build_checked: AtomicBool,
}

type Result<T> = std::result::Result<T, ApiError>;

impl Client {
    /// A client of the daemon on this host. The first call starts the daemon where none answers,
    /// and replaces one of an earlier build of this installation; there is no call before it.
    pub fn new(paths: Paths, launcher: Launcher) -> Self {
        let transport = LocalSocket { api: paths.socket(), sessions: paths.session_socket() };
        Self::with_transport(paths, launcher, Box::new(transport))
    }

    /// A client that reaches its daemon by `transport`. One without session socket is of another
    /// host: no daemon is started or replaced for it.
    pub fn with_transport(paths: Paths, launcher: Launcher, transport: Box<dyn Transport>) -> Self {
        let build_checked = AtomicBool::new(false);
        Self(Arc::new(Inner { paths, launcher, transport, build_checked }))
    }

    pub(crate) fn transport(&self) -> &dyn Transport {
        &*self.0.transport
    }

    /// The first call asks for a daemon of our build: another one refuses it and does nothing.
    pub(crate) fn expecting_our_build(&self, call: Call) -> Call {
        match self.expected_build() {
            Some(build) => call.with_header(routes::EXPECT_BUILD_HEADER, build),
            None => call,
        }
    }

    /// Our build, as long as the daemon has not been compared with it.
    pub(crate) fn expected_build(&self) -> Option<&str> {
        let checked = self.0.build_checked.load(Ordering::Relaxed);
        (!checked && self.is_local()).then_some(self.0.launcher.build_id.as_str())
    }

    /// Whether the daemon is on this host.
    pub(crate) fn is_local(&self) -> bool {
        self.0.transport.session_socket().is_some()
    }

    pub(crate) fn build_is_checked(&self) {
        self.0.build_checked.store(true, Ordering::Relaxed);
    }

    /// Folders and sockets.
    pub fn paths(&self) -> &Paths {
        &self.0.paths
    }

    /// The daemon does not answer, in words.
    pub(crate) fn unreachable(&self, lost: &Lost) -> ApiError {
        if self.is_local() {
            return daemon::unreachable(&self.0.paths, lost);
        }
        ApiError::new(ErrorCode::DaemonUnavailable, "the daemon does not answer").caused_by(lost)
    }

    /// Starts the daemon where none answers, replaces an outdated one.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn ensure_daemon(&self) -> Result<DaemonStatus> {
        if !self.is_local() {
            let answer = self.once(Call::get(routes::DAEMON)).await;
            return http::decode(answer.map_err(|lost| self.unreachable(&lost))?).await;
        }
        daemon::ensure(&self.0.paths, &self.0.launcher).await
    }

    /// Asks whether a daemon answers, and starts none.
    ///
    /// # Errors
    /// One is there that cannot be reached or understood.
    pub async fn look_for_daemon(&self) -> Result<Presence> {
        daemon::look(&self.0.paths).await
    }

    /// Ends the daemon; VMs keep running. Returns when its process is gone, with its last status.
    ///
    /// # Errors
    /// It refused or did not end.
    pub async fn stop_daemon(&self) -> Result<Presence> {
        daemon::stop(&self.0.paths).await
    }

    /// What the host has and lacks.
    ///
    /// # Errors
    /// The daemon's, like all below.
    pub async fn doctor(&self) -> Result<Vec<Check>> {
        self.ask(Call::get(routes::DOCTOR), Repeat::Safe).await
    }

    /// The OpenAPI document of the daemon.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn openapi(&self) -> Result<serde_json::Value> {
        self.ask(Call::get(routes::OPENAPI), Repeat::Safe).await
    }

    /// All VMs, by name.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn vms(&self) -> Result<Vec<VmSummary>> {
        self.ask(Call::get(routes::VMS), Repeat::Safe).await
    }

    /// Everything about one VM.
    ///
    /// # Errors
    /// Not found, ambiguous, or the daemon's.
    pub async fn vm(&self, vm: &str) -> Result<VmDetails> {
        self.ask(Call::get(fill(routes::VM, "vm", vm)?), Repeat::Safe).await
    }

    /// Makes a VM.
    ///
    /// # Errors
    /// A bad value, a taken name, or the daemon's.
    pub async fn create(&self, request: &CreateVm) -> Result<Accepted> {
        self.ask(Call::post(routes::VMS, request)?, Repeat::Unsafe).await
    }

    /// Asks something of a VM; asking again is answered by "already so".
    ///
    /// # Errors
    /// Not found, ambiguous, refused, or the daemon's.
    pub async fn act(&self, vm: &str, action: VmAction) -> Result<Accepted> {
        self.ask(Call::post(fill(routes::VM_ACTION, "vm", vm)?, &action)?, Repeat::Safe).await
    }

    /// Waits for a stage of a VM's start; how far its guest has booted, which is `booting` where
    /// the time was over.
    ///
    /// # Errors
    /// Not found, ambiguous, not running and not being started, not in time, or the daemon's.
    pub async fn wait_boot(&self, vm: &str, wait: Wait) -> Result<BootView> {
        let path = fill(routes::VM_BOOT, "vm", vm)?;
        let deadline = Instant::now() + Duration::from_millis(wait.timeout_ms);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // In pieces: an answer has a time limit of its own, and a daemon may be replaced.
            let ms = left.min(WAIT_PIECE).as_millis();
            let path = format!("{path}?wait={}&timeout_ms={ms}", wait.stage.as_str());
            let answer = self.ask(Call::get(path), Repeat::Safe).await;
            let goes_on = match &answer {
                Ok::<BootView, _>(view) => wait.stage == WaitFor::Booted && !view.is_over(),
                Err(error) => error.code == ErrorCode::Timeout,
            };
            if !goes_on || left <= WAIT_PIECE {
                return answer;
            }
        }
    }

    /// What the agent of a VM says of itself.
    ///
    /// # Errors
    /// Not found, ambiguous, or the daemon's.
    pub async fn health(&self, vm: &str) -> Result<VmHealth> {
        self.ask(Call::get(fill(routes::VM_HEALTH, "vm", vm)?), Repeat::Safe).await
    }

    /// The newest operations, newest first.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn operations(&self) -> Result<Vec<OperationView>> {
        self.ask(Call::get(routes::OPERATIONS), Repeat::Safe).await
    }

    /// One operation.
    ///
    /// # Errors
    /// Not found, or the daemon's.
    pub async fn operation(&self, operation: &OpId) -> Result<OperationView> {
        let path = routes::fill(routes::OPERATION, "operation", operation.as_str());
        self.ask(Call::get(path), Repeat::Safe).await
    }

    /// Asks an operation to end and undo itself.
    ///
    /// # Errors
    /// Not found, an operation that goes on, or the daemon's.
    pub async fn cancel(&self, operation: &OpId) -> Result<CancelAnswer> {
        let path = routes::fill(routes::OPERATION_CANCEL, "operation", operation.as_str());
        self.ask(Call::post(path, &serde_json::json!({}))?, Repeat::Safe).await
    }

    /// Asks all operations in progress on a subject to end and undo themselves.
    ///
    /// # Errors
    /// None is in progress, those that are go on, or the daemon's.
    pub async fn cancel_on(&self, subject: &SubjectRef) -> Result<Vec<CancelAnswer>> {
        self.ask(Call::post(routes::CANCELS, subject)?, Repeat::Safe).await
    }

    /// The events of an operation, from its first on.
    pub fn follow(&self, operation: &OpId) -> Follow {
        Follow::new(self.clone(), operation.clone())
    }

    /// All images.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn images(&self) -> Result<Vec<ImageView>> {
        self.ask(Call::get(routes::IMAGES), Repeat::Safe).await
    }

    /// One image.
    ///
    /// # Errors
    /// Not found, ambiguous, or the daemon's.
    pub async fn image(&self, image: &str) -> Result<ImageView> {
        self.ask(Call::get(fill(routes::IMAGE, "image", image)?), Repeat::Safe).await
    }

    /// Removes an image.
    ///
    /// # Errors
    /// Not found, ambiguous, used by a VM, or the daemon's.
    pub async fn delete_image(&self, image: &str) -> Result<Deleted> {
        self.ask(Call::delete(fill(routes::IMAGE, "image", image)?), Repeat::Unsafe).await
    }

    /// Makes an image by a built-in recipe.
    ///
    /// # Errors
    /// An unknown recipe, or the daemon's.
    pub async fn pull_image(&self, request: &ImagePullRequest) -> Result<Accepted> {
        self.ask(Call::post(routes::IMAGE_PULL, request)?, Repeat::Safe).await
    }

    /// Makes an image from a file.
    ///
    /// # Errors
    /// A bad name or path, or the daemon's.
    pub async fn import_image(&self, request: &ImportRequest) -> Result<Accepted> {
        self.ask(Call::post(routes::IMAGE_IMPORT, request)?, Repeat::Unsafe).await
    }

    /// Gives an image one more name.
    ///
    /// # Errors
    /// Not found, a name that another image has, or the daemon's.
    pub async fn tag_image(&self, image: &str, request: &TagRequest) -> Result<ImageView> {
        let route = fill(routes::IMAGE_TAGS, "image", image)?;
        self.ask(Call::post(route, request)?, Repeat::Safe).await
    }

    /// Removes a name of an image that has others.
    ///
    /// # Errors
    /// Not found, the last name, or the daemon's.
    pub async fn untag_image(&self, name: &str) -> Result<ImageView> {
        self.ask(Call::delete(fill(routes::IMAGE_TAG, "name", name)?), Repeat::Unsafe).await
    }

    /// All kernels.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn kernels(&self) -> Result<Vec<KernelView>> {
        self.ask(Call::get(routes::KERNELS), Repeat::Safe).await
    }

    /// Removes a kernel.
    ///
    /// # Errors
    /// Not found, ambiguous, used by a VM, or the daemon's.
    pub async fn delete_kernel(&self, kernel: &str) -> Result<Deleted> {
        self.ask(Call::delete(fill(routes::KERNEL, "kernel", kernel)?), Repeat::Unsafe).await
    }

    /// Fetches a kernel.
    ///
    /// # Errors
    /// An unknown recipe, or the daemon's.
    pub async fn pull_kernel(&self, request: &PullRequest) -> Result<Accepted> {
        self.ask(Call::post(routes::KERNEL_PULL, request)?, Repeat::Safe).await
    }
}

/// Fills a route with what somebody typed.
pub(crate) fn fill(route: &str, placeholder: &str, reference: &str) -> Result<String> {
    // An empty segment would name the collection, and a path with one or two dots another one.
    if matches!(reference, "" | "." | "..") {
        let what = if placeholder == "vm" { "VM" } else { placeholder };
        let text = format!("there is no {what} `{reference}`");
        return Err(ApiError::new(ErrorCode::NotFound, text));
    }
    Ok(routes::fill(route, placeholder, reference))
}
