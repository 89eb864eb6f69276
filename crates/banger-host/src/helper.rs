//! Operations that need root: in this process if the daemon runs as root, otherwise through the
//! helper's socket. Both carry out the same requests.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use banger_api::{ApiError, ByteString, ErrorCode, Hint, VmId};
use banger_engine::drivers::{Applied, Undone};
use banger_root::protocol::{Answer, Did, Finding, Launch, Objects, Request};
use banger_root::server::{Outcome, Server};
use banger_root::{Kind, RootError, wire};
use banger_shim::ProcRef;
use banger_shim::gate::Gate;
use banger_sys::unix_path::{NotListening, connect_until};

use crate::failure::blocking;
use crate::storage::SnapshotRoot;

/// The helper's socket, which systemd opens after `banger-root install`.
pub const SOCKET: &str = "/run/banger-root.sock";
/// Time limit for the helper to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limit of one request: the helper waits up to two minutes for the network lock.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(150);

/// Carries out requests that need root.
#[derive(Debug, Clone)]
pub enum Helper {
    /// In this process, which runs as root.
    InProcess(Arc<Server>),
    /// Through the helper at this socket, if it is installed.
    Socket(PathBuf),
}

/// A shim that waits at its gate.
pub enum Waiting {
    /// Started by this process.
    InProcess(Arc<Server>, Gate),
    /// Started by the helper; closing the connection ends the shim.
    Helper(UnixStream),
}

/// An error of the helper as an [`ApiError`].
pub fn error(error: RootError) -> ApiError {
    let code = match error.kind {
        Kind::BadRequest => ErrorCode::BadRequest,
        Kind::NotFound => ErrorCode::NotFound,
        Kind::Busy => ErrorCode::Busy,
        Kind::Refused | Kind::HostNotReady => ErrorCode::HostNotReady,
        Kind::NoSpace => ErrorCode::NoSpace,
        Kind::Died => ErrorCode::VmmDied,
        Kind::Internal => ErrorCode::Internal,
    };
    let mut api = ApiError::new(code, error.message);
    api.causes = error.causes;
    api.hints = error.hints.0.into_iter().map(Hint::from).collect();
    api
}

fn unexpected() -> ApiError {
    ApiError::new(ErrorCode::Internal, "banger-root answered something else")
        .with_hint(Hint::InstallHelper { program: None })
}

fn lost(error: &std::io::Error) -> ApiError {
    ApiError::new(ErrorCode::Internal, "the connection to banger-root failed").caused_by(error)
}

impl Helper {
    fn connect(socket: &std::path::Path) -> Result<UnixStream, ApiError> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        connect_until(socket, deadline, NotListening::Fail).map_err(|error| {
            let text = "the helper banger-root is not installed or does not answer";
            ApiError::new(ErrorCode::HostNotReady, text)
                .caused_by(&error)
                .with_hint(Hint::InstallHelper { program: None })
        })
    }

    fn exchange(
        stream: &UnixStream,
        request: &Request,
        fds: &[OwnedFd],
    ) -> std::io::Result<(Result<Answer, RootError>, Vec<OwnedFd>)> {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        wire::send(stream, request, &fds, deadline)?;
        wire::receive(stream, deadline)?.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }

    /// Sends a request and waits for the answer; blocks.
    fn ask_blocking(
        &self,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(Answer, Option<OwnedFd>), ApiError> {
        match self {
            Self::InProcess(server) => match server.carry_out(0, request, fds).map_err(error)? {
                Outcome::Answered(answer, fd) => Ok((answer, fd)),
                Outcome::AtGate(_) => Err(unexpected()),
            },
            Self::Socket(socket) => {
                let first = Self::exchange(&Self::connect(socket)?, &request, &fds);
                // systemd starts a killed helper again at the next connection, and every request
                // except `spawn` is idempotent.
                let answered = match first {
                    Err(_) => Self::exchange(&Self::connect(socket)?, &request, &fds),
                    first => first,
                };
                let (answer, mut fds) = answered.map_err(|error| lost(&error))?;
                Ok((answer.map_err(error)?, fds.pop()))
            }
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// The helper is not available, or the request failed.
    pub async fn ask(
        &self,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(Answer, Option<OwnedFd>), ApiError> {
        let helper = self.clone();
        blocking(move || helper.ask_blocking(request, fds)).await
    }

    /// Sends a request that creates an object.
    ///
    /// # Errors
    /// Those of [`Self::ask`].
    pub async fn make(&self, request: Request, fds: Vec<OwnedFd>) -> Result<Applied, ApiError> {
        match self.ask(request, fds).await? {
            (Answer::Did(Did::Made), _) => Ok(Applied::Created),
            (Answer::Did(_), _) => Ok(Applied::AlreadyThere),
            _ => Err(unexpected()),
        }
    }

    /// Sends a request that removes an object.
    ///
    /// # Errors
    /// Those of [`Self::ask`].
    pub async fn remove(&self, request: Request) -> Result<Undone, ApiError> {
        match self.ask(request, Vec::new()).await? {
            (Answer::Did(Did::Removed), _) => Ok(Undone::Removed),
            (Answer::Did(_), _) => Ok(Undone::WasAbsent),
            _ => Err(unexpected()),
        }
    }

    /// Sends a request that returns a descriptor.
    ///
    /// # Errors
    /// Those of [`Self::ask`].
    pub async fn descriptor(
        &self,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<OwnedFd, ApiError> {
        match self.ask(request, fds).await? {
            (Answer::Descriptor, Some(fd)) => Ok(fd),
            _ => Err(unexpected()),
        }
    }

    /// The helper's checks of the host.
    ///
    /// # Errors
    /// The helper is not available.
    pub async fn findings(&self) -> Result<Vec<Finding>, ApiError> {
        match self.ask(Request::Findings, Vec::new()).await? {
            (Answer::Findings(findings), _) => Ok(findings),
            _ => Err(unexpected()),
        }
    }

    /// Ids of the VMs that belong to a state folder; none without a helper.
    ///
    /// # Errors
    /// Those of [`Self::ask`].
    pub async fn vms_of(&self, home: ByteString) -> Result<Vec<VmId>, ApiError> {
        if self.is_absent() {
            return Ok(Vec::new());
        }
        match self.ask(Request::VmsOf { home }, Vec::new()).await? {
            (Answer::Vms(vms), _) => Ok(vms),
            _ => Err(unexpected()),
        }
    }

    /// The objects of a VM that root owns; none without a helper.
    ///
    /// # Errors
    /// Those of [`Self::ask`].
    pub async fn objects(&self, vm: &VmId) -> Result<Objects, ApiError> {
        if self.is_absent() {
            return Ok(Objects::default());
        }
        match self.ask(Request::Objects { vm: vm.clone() }, Vec::new()).await? {
            (Answer::Objects(objects), _) => Ok(objects),
            _ => Err(unexpected()),
        }
    }

    /// Whether there is no helper on this host.
    fn is_absent(&self) -> bool {
        matches!(self, Self::Socket(socket) if !socket.exists())
    }

    /// Starts a shim, which waits at its gate.
    ///
    /// # Errors
    /// The helper is not available; the VM has no jail; the shim cannot be started.
    pub async fn spawn(&self, vm: &VmId) -> Result<(ProcRef, Waiting), ApiError> {
        let (helper, request) = (self.clone(), Request::Spawn { vm: vm.clone() });
        blocking(move || match helper {
            Self::InProcess(server) => {
                match server.carry_out(0, request, Vec::new()).map_err(error)? {
                    Outcome::AtGate(gate) => Ok((gate.process(), Waiting::InProcess(server, gate))),
                    Outcome::Answered(..) => Err(unexpected()),
                }
            }
            Self::Socket(socket) => {
                let stream = Self::connect(&socket)?;
                let answered = Self::exchange(&stream, &request, &[]);
                match answered.map_err(|error| lost(&error))?.0.map_err(error)? {
                    Answer::Spawned(shim) => Ok((shim, Waiting::Helper(stream))),
                    _ => Err(unexpected()),
                }
            }
        })
        .await
    }
}

#[async_trait]
impl SnapshotRoot for Helper {
    async fn attach(
        &self,
        vm: &VmId,
        image: OwnedFd,
        cow: OwnedFd,
        root_bytes: u64,
    ) -> Result<Applied, ApiError> {
        let request = Request::SnapshotAttach { vm: vm.clone(), root_bytes };
        self.make(request, vec![image, cow]).await
    }

    async fn reload(&self, vm: &VmId) -> Result<Applied, ApiError> {
        self.make(Request::SnapshotReload { vm: vm.clone() }, Vec::new()).await
    }

    async fn detach(&self, vm: &VmId) -> Result<Undone, ApiError> {
        self.remove(Request::SnapshotDetach { vm: vm.clone() }).await
    }
}

impl Waiting {
    /// Opens the gate; returns the VMM once its API socket exists.
    ///
    /// # Errors
    /// Errors of jailer and VMM.
    pub async fn launch(self, vm: &VmId, launch: Launch) -> Result<ProcRef, ApiError> {
        let vm = vm.clone();
        blocking(move || {
            let answer = match self {
                Self::InProcess(server, gate) => server.launch(0, &vm, gate, launch),
                Self::Helper(stream) => {
                    let deadline = Instant::now() + REQUEST_TIMEOUT;
                    let talk = wire::send(&stream, &launch, &[], deadline).and_then(|()| {
                        wire::receive::<Result<Answer, RootError>>(&stream, deadline)
                    });
                    let answered = talk.map_err(|error| lost(&error))?;
                    answered.ok_or_else(unexpected)?.0
                }
            };
            match answer.map_err(error)? {
                Answer::Launched(vmm) => Ok(vmm),
                _ => Err(unexpected()),
            }
        })
        .await
    }
}
