//! Connections to a guest's agent, and the session socket.

use std::os::fd::OwnedFd;
use std::time::Duration;

use banger_api::boot::{BootView, Wait};
use banger_api::session::{MAX_LINE, SessionAnswer, SessionRequest};
use banger_api::{ApiError, ErrorCode};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::client::Client;
use crate::daemon::is_absent_error;
use crate::unix;

/// Time limit for the daemon's answer: it connects to the guest meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to the agent of a VM for one command.
pub struct AgentSession(pub(crate) AgentRoute);

pub(crate) enum AgentRoute {
    /// A direct connection, which outlives the daemon.
    Descriptor {
        agent: UnixStream,
        /// Its connection to the daemon: when it closes, the daemon prepares for the next session.
        lease: Option<UnixStream>,
    },
    /// An upgraded HTTP connection through the daemon, opened with the command.
    Upgrade { client: Client, vm: String },
}

/// What a connection to an agent is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A command: the connection to the daemon ends with it.
    Command,
    /// One request.
    Request,
}

/// A connection to an agent from the daemon.
pub(crate) struct Connected {
    pub(crate) agent: UnixStream,
    boot: Option<BootView>,
    lease: UnixStream,
}

impl Connected {
    fn session(self) -> AgentSession {
        AgentSession(AgentRoute::Descriptor { agent: self.agent, lease: Some(self.lease) })
    }
}

impl From<UnixStream> for AgentSession {
    fn from(stream: UnixStream) -> Self {
        Self(AgentRoute::Descriptor { agent: stream, lease: None })
    }
}

impl Client {
    /// A connection to the agent of a VM: a descriptor from a daemon on this host, an upgraded HTTP
    /// connection through a daemon on another host.
    ///
    /// # Errors
    /// Not found, not running, an agent that does not answer, or the daemon's.
    pub async fn agent_session(&self, vm: &str) -> Result<AgentSession, ApiError> {
        if !self.is_local() {
            return Ok(self.upgrade(vm));
        }
        let connected = self.connected(vm, None, Purpose::Command).await?;
        Ok(connected.session())
    }

    /// A connection for one request to an agent.
    pub(crate) async fn agent_route(&self, vm: &str) -> Result<AgentRoute, ApiError> {
        if !self.is_local() {
            return Ok(self.upgrade(vm).0);
        }
        self.descriptor(vm, None).await.map(|connected| connected.session().0)
    }

    /// The same after a stage of the VM's start, with the state of its guest's boot, which is
    /// `booting` after a timeout.
    ///
    /// # Errors
    /// As [`Client::agent_session`]; a VM that does not reach the stage in time.
    pub async fn agent_session_at(
        &self,
        vm: &str,
        wait: Wait,
    ) -> Result<(AgentSession, BootView), ApiError> {
        if !self.is_local() {
            let boot = self.wait_boot(vm, wait).await?;
            return Ok((self.upgrade(vm), boot));
        }
        let connected = self.connected(vm, Some(wait), Purpose::Command).await?;
        let boot = connected.boot.clone().unwrap_or_else(BootView::booting);
        Ok((connected.session(), boot))
    }

    fn upgrade(&self, vm: &str) -> AgentSession {
        AgentSession(AgentRoute::Upgrade { client: self.clone(), vm: vm.to_owned() })
    }

    pub(crate) async fn descriptor(
        &self,
        vm: &str,
        wait: Option<Wait>,
    ) -> Result<Connected, ApiError> {
        self.connected(vm, wait, Purpose::Request).await
    }

    async fn connected(
        &self,
        vm: &str,
        wait: Option<Wait>,
        purpose: Purpose,
    ) -> Result<Connected, ApiError> {
        let request = SessionRequest::Agent {
            vm: vm.to_owned(),
            wait,
            expect_build: None,
            command: purpose == Purpose::Command,
            traceparent: self.traceparent(),
        };
        let (lease, answer, descriptor) = self.session(request).await?;
        let boot = match answer {
            SessionAnswer::Connected { boot } => boot,
            _ => None,
        };
        let descriptor = descriptor.ok_or_else(|| {
            ApiError::new(
                ErrorCode::DaemonUnavailable,
                "the daemon sent no connection to the agent",
            )
        })?;
        let stream = std::os::unix::net::UnixStream::from(descriptor);
        let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
        let stream = stream.map_err(|error| {
            let text = format!("the connection to the agent of `{vm}` cannot be used");
            ApiError::new(ErrorCode::Internal, text).caused_by(&error)
        })?;
        Ok(Connected { agent: stream, boot, lease })
    }

    /// Sends a request on the session socket. If no daemon answers, or one of another build, starts
    /// or replaces the daemon and sends the request once more.
    pub(crate) async fn session(
        &self,
        mut request: SessionRequest,
    ) -> Result<(UnixStream, SessionAnswer, Option<OwnedFd>), ApiError> {
        let expected = self.expected_build().map(str::to_owned);
        request.expect_build(expected.clone());
        match self.session_once(&request).await {
            Err(SessionError::BuildMismatch | SessionError::Disconnected(_)) => {}
            // A daemon of a build without this field.
            Err(SessionError::Refused(error))
                if expected.is_some() && error.code == ErrorCode::BadRequest => {}
            Err(SessionError::Refused(error)) => return Err(error),
            Ok(session) => {
                if expected.is_some() {
                    self.build_is_checked();
                }
                return Ok(session);
            }
        }
        self.ensure_daemon().await?;
        self.build_is_checked();
        request.expect_build(None);
        self.session_once(&request).await.map_err(|ended| match ended {
            SessionError::Refused(error) => error,
            SessionError::BuildMismatch => {
                ApiError::new(ErrorCode::DaemonUnavailable, "the daemon is of another build")
            }
            SessionError::Disconnected(error) => {
                let path = self.paths().session_socket();
                let text = format!("the daemon does not answer at `{}`", path.display());
                ApiError::new(ErrorCode::DaemonUnavailable, text).caused_by(&error)
            }
        })
    }

    /// Sends a request to the running daemon, without starting one.
    pub(crate) async fn session_once(
        &self,
        request: &SessionRequest,
    ) -> Result<(UnixStream, SessionAnswer, Option<OwnedFd>), SessionError> {
        let elsewhere = || {
            let text = "the daemon is on another host, which passes no descriptors";
            SessionError::Refused(ApiError::new(ErrorCode::BadRequest, text))
        };
        let socket = self.transport().session_socket().ok_or_else(elsewhere)?;
        let exchange = async {
            let mut stream = unix::connect(socket).await?;
            let mut line = serde_json::to_vec(request)?;
            line.push(b'\n');
            stream.write_all(&line).await?;
            let (answer, descriptor) = answer(&stream).await?;
            Ok((stream, answer, descriptor))
        };
        let (stream, answer, descriptor) =
            match tokio::time::timeout(ANSWER_TIMEOUT + requested_wait(request), exchange).await {
                Ok(result) => result.map_err(SessionError::Disconnected)?,
                Err(_) => {
                    return Err(SessionError::Disconnected(std::io::ErrorKind::TimedOut.into()));
                }
            };
        match answer {
            SessionAnswer::Refused { error } => Err(SessionError::Refused(error)),
            SessionAnswer::OtherBuild => Err(SessionError::BuildMismatch),
            answer => Ok((stream, answer, descriptor)),
        }
    }
}

/// How long the daemon may wait before it answers.
fn requested_wait(request: &SessionRequest) -> Duration {
    match request {
        SessionRequest::Agent { wait: Some(wait), .. } => Duration::from_millis(wait.timeout_ms),
        _ => Duration::ZERO,
    }
}

/// Why a session request failed.
pub(crate) enum SessionError {
    /// The daemon refused the request.
    Refused(ApiError),
    /// The daemon is of another build than the request expects and did nothing.
    BuildMismatch,
    /// No daemon listens, or the connection ended before the answer.
    Disconnected(std::io::Error),
}

impl SessionError {
    /// Whether no daemon runs, so that the request may succeed with the next one.
    pub(crate) fn is_daemon_absent(&self) -> bool {
        match self {
            Self::Refused(_) | Self::BuildMismatch => false,
            Self::Disconnected(error) => {
                use std::io::ErrorKind as Kind;
                let cut = [Kind::UnexpectedEof, Kind::ConnectionReset, Kind::BrokenPipe];
                is_absent_error(error) || cut.contains(&error.kind())
            }
        }
    }
}

async fn answer(stream: &UnixStream) -> std::io::Result<(SessionAnswer, Option<OwnedFd>)> {
    let mut line = Vec::new();
    let mut descriptor = None;
    let mut piece = [0; 4096];
    loop {
        let (length, received) = unix::receive(stream, &mut piece).await?;
        descriptor = received.or(descriptor);
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        line.extend_from_slice(piece.get(..length).unwrap_or_default());
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            line.truncate(end);
            return Ok((serde_json::from_slice(&line)?, descriptor));
        }
        if line.len() > MAX_LINE {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
    }
}
