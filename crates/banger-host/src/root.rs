//! The way to root: in this process where the daemon is root, through the helper's socket where it
//! is not. Both answer the same requests.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use banger_api::{ApiError, ErrorCode, Hint, VmId};
use banger_engine::drivers::{Applied, Undone};
use banger_root::protocol::{Answer, Did, Finding, Launch, Request};
use banger_root::server::{Outcome, Server};
use banger_root::{Kind, RootError, wire};
use banger_shim::ProcRef;
use banger_shim::gate::Gate;
use banger_sys::unix_path::{NotListening, connect_until};

use crate::failure::blocking;
use crate::storage::SnapshotRoot;

/// The helper's socket, as `banger-root install` has systemd open it.
pub const SOCKET: &str = "/run/banger-root.sock";
/// How long the helper may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one request may take: the helper waits for the lock of the network for two minutes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(150);

/// Carries out what needs root.
#[derive(Debug, Clone)]
pub enum Root {
    /// This process is root.
    InProcess(Arc<Server>),
    /// The helper listens at this socket, if it is installed.
    Helper(PathBuf),
}

/// A shim that waits at its gate.
pub enum Waiting {
    /// In this process.
    InProcess(Arc<Server>, Gate),
    /// At the other end of a connection, whose end shuts the gate for good.
    Helper(UnixStream),
}

/// Root's failure, ready to be shown.
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
    api.hints = error.hint.into_iter().map(Hint::from).collect();
    api
}

fn unexpected() -> ApiError {
    ApiError::new(ErrorCode::Internal, "banger-root answered something else")
        .with_hint(Hint::InstallHelper { program: None })
}

fn lost(error: &std::io::Error) -> ApiError {
    ApiError::new(ErrorCode::Internal, "the connection to banger-root failed").caused_by(error)
}

impl Root {
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

    /// Asks, and waits for the answer; blocks.
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
            Self::Helper(socket) => {
                let first = Self::exchange(&Self::connect(socket)?, &request, &fds);
                // A helper that was killed is started again by systemd at the next connection, and
                // every request but a spawn may be repeated.
                let answered = match first {
                    Err(_) => Self::exchange(&Self::connect(socket)?, &request, &fds),
                    first => first,
                };
                let (answer, mut fds) = answered.map_err(|error| lost(&error))?;
                Ok((answer.map_err(error)?, fds.pop()))
            }
        }
    }

    /// Asks for something.
    ///
    /// # Errors
    /// No helper, or what the request failed at.
    pub async fn ask(
        &self,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(Answer, Option<OwnedFd>), ApiError> {
        let root = self.clone();
        blocking(move || root.ask_blocking(request, fds)).await
    }

    /// Asks for something to be made.
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

    /// Asks for something to be removed.
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

    /// Asks for a descriptor.
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

    /// What root sees of the host.
    ///
    /// # Errors
    /// No helper.
    pub async fn findings(&self) -> Result<Vec<Finding>, ApiError> {
        match self.ask(Request::Findings, Vec::new()).await? {
            (Answer::Findings(findings), _) => Ok(findings),
            _ => Err(unexpected()),
        }
    }

    /// Starts a shim, which waits at its gate.
    ///
    /// # Errors
    /// No helper, no jail, or no shim.
    pub async fn spawn(&self, vm: &VmId) -> Result<(ProcRef, Waiting), ApiError> {
        let (root, request) = (self.clone(), Request::Spawn { vm: vm.clone() });
        blocking(move || match root {
            Self::InProcess(server) => {
                match server.carry_out(0, request, Vec::new()).map_err(error)? {
                    Outcome::AtGate(gate) => Ok((gate.process(), Waiting::InProcess(server, gate))),
                    Outcome::Answered(..) => Err(unexpected()),
                }
            }
            Self::Helper(socket) => {
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
impl SnapshotRoot for Root {
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

    async fn detach(&self, vm: &VmId) -> Result<Undone, ApiError> {
        self.remove(Request::SnapshotDetach { vm: vm.clone() }).await
    }
}

impl Waiting {
    /// Opens the gate; returns the VMM once its API is there.
    ///
    /// # Errors
    /// What jailer or VMM failed at.
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
