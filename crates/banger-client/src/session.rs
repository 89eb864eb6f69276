//! Ways to a guest's agent, and the session socket.

use std::os::fd::OwnedFd;
use std::time::Duration;

use banger_api::boot::{BootView, Wait};
use banger_api::session::{MAX_LINE, SessionAnswer, SessionRequest};
use banger_api::{ApiError, ErrorCode};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::client::Client;
use crate::daemon::nobody_listens;
use crate::unix;

/// Longest wait for the daemon's line: it dials the guest meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A way to the agent of a VM, for one command.
pub struct AgentSession(pub(crate) Way);

pub(crate) enum Way {
    /// A connection of our own, which outlives the daemon.
    Descriptor(UnixStream),
    /// Through the daemon, by an upgraded HTTP connection.
    Upgrade { client: Client, vm: String },
}

impl From<UnixStream> for AgentSession {
    fn from(stream: UnixStream) -> Self {
        Self(Way::Descriptor(stream))
    }
}

impl Client {
    /// A way to the agent of a VM: a descriptor where the daemon is on this host, through the
    /// daemon elsewhere.
    ///
    /// # Errors
    /// Not found, not running, an agent that does not answer, or the daemon's.
    pub async fn agent_session(&self, vm: &str) -> Result<AgentSession, ApiError> {
        if !self.is_local() {
            return Ok(self.upgrade(vm));
        }
        self.descriptor(vm, None).await.map(|(stream, _)| stream.into())
    }

    /// The same, once the VM has come to a stage of its start; with how far its guest has booted,
    /// which is `booting` where the time was over.
    ///
    /// # Errors
    /// As [`Client::agent_session`]; not started in time.
    pub async fn agent_session_at(
        &self,
        vm: &str,
        wait: Wait,
    ) -> Result<(AgentSession, BootView), ApiError> {
        if !self.is_local() {
            let boot = self.wait_boot(vm, wait).await?;
            return Ok((self.upgrade(vm), boot));
        }
        let (stream, boot) = self.descriptor(vm, Some(wait)).await?;
        Ok((stream.into(), boot.unwrap_or_else(BootView::booting)))
    }

    fn upgrade(&self, vm: &str) -> AgentSession {
        AgentSession(Way::Upgrade { client: self.clone(), vm: vm.to_owned() })
    }

    async fn descriptor(
        &self,
        vm: &str,
        wait: Option<Wait>,
    ) -> Result<(UnixStream, Option<BootView>), ApiError> {
        let request = SessionRequest::Agent { vm: vm.to_owned(), wait, expect_build: None };
        let (_, answer, descriptor) = self.session(request).await?;
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
            let text = format!("the connection to the agent of `{vm}` is of no use");
            ApiError::new(ErrorCode::Internal, text).caused_by(&error)
        })?;
        Ok((stream, boot))
    }

    /// Asks on the session socket. Where no daemon answers, or one of another build, it is started
    /// or replaced first, once.
    pub(crate) async fn session(
        &self,
        mut request: SessionRequest,
    ) -> Result<(UnixStream, SessionAnswer, Option<OwnedFd>), ApiError> {
        let expected = self.expected_build().map(str::to_owned);
        request.expect_build(expected.clone());
        match self.session_once(&request).await {
            Err(Ended::OtherBuild | Ended::Lost(_)) => {}
            // A daemon of a build that does not know the field.
            Err(Ended::Refused(error))
                if expected.is_some() && error.code == ErrorCode::BadRequest => {}
            Err(Ended::Refused(error)) => return Err(error),
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
            Ended::Refused(error) => error,
            Ended::OtherBuild => {
                ApiError::new(ErrorCode::DaemonUnavailable, "the daemon is of another build")
            }
            Ended::Lost(error) => {
                let path = self.paths().session_socket();
                let text = format!("the daemon does not answer at `{}`", path.display());
                ApiError::new(ErrorCode::DaemonUnavailable, text).caused_by(&error)
            }
        })
    }

    /// Asks the daemon that is there.
    pub(crate) async fn session_once(
        &self,
        request: &SessionRequest,
    ) -> Result<(UnixStream, SessionAnswer, Option<OwnedFd>), Ended> {
        let elsewhere = || {
            let text = "the daemon is on another host, which passes no descriptors";
            Ended::Refused(ApiError::new(ErrorCode::BadRequest, text))
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
            match tokio::time::timeout(ANSWER_TIMEOUT + asked_wait(request), exchange).await {
                Ok(result) => result.map_err(Ended::Lost)?,
                Err(_) => return Err(Ended::Lost(std::io::ErrorKind::TimedOut.into())),
            };
        match answer {
            SessionAnswer::Refused { error } => Err(Ended::Refused(error)),
            SessionAnswer::OtherBuild => Err(Ended::OtherBuild),
            answer => Ok((stream, answer, descriptor)),
        }
    }
}

/// How long the daemon may wait before it answers.
fn asked_wait(request: &SessionRequest) -> Duration {
    match request {
        SessionRequest::Agent { wait: Some(wait), .. } => Duration::from_millis(wait.timeout_ms),
        _ => Duration::ZERO,
    }
}

/// Why there is no session.
pub(crate) enum Ended {
    /// The daemon said no.
    Refused(ApiError),
    /// The daemon is of another build than the request expects, and did nothing.
    OtherBuild,
    /// The daemon is not there, or went away.
    Lost(std::io::Error),
}

impl Ended {
    /// Whether a daemon may yet come up.
    pub(crate) fn is_absent(&self) -> bool {
        match self {
            Self::Refused(_) | Self::OtherBuild => false,
            Self::Lost(error) => {
                use std::io::ErrorKind as Kind;
                let cut = [Kind::UnexpectedEof, Kind::ConnectionReset, Kind::BrokenPipe];
                nobody_listens(error) || cut.contains(&error.kind())
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
