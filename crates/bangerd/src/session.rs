//! The session socket: passes connections to guest agents, and keeps session-bound VMs alive.
//!
//! [`banger_api::session`] specifies the protocol.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use banger_api::boot::{BootView, Wait};
use banger_api::session::{MAX_LINE, SessionAnswer, SessionRequest};
use banger_api::trace::TraceParent;
use banger_api::{ApiError, ErrorCode, Hint, VmId};
use banger_engine::Engine;
use banger_engine::plan::VmPlan;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;

use crate::daemon::BUILD_ID;
use crate::otlp;
use crate::spares::Spares;
use crate::stopping::Stopping;

/// Maximum number of connections; most of them hold a VM.
pub const MAX_CONNECTIONS: u32 = 4096;
/// Time limit for the request to arrive, and for the answer to be sent.
const LINE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for a guest agent to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// What sessions share.
pub struct Sessions {
    engine: Arc<Engine>,
    spares: Spares,
    stopping: Stopping,
}

impl Sessions {
    /// Sessions of a daemon.
    pub fn new(engine: Arc<Engine>, stopping: Stopping) -> Self {
        Self { engine, spares: Spares::default(), stopping }
    }

    /// As [`connect`], by a connection that is open already where there is one. Also returns which
    /// VM it is.
    async fn connect(&self, vm: &str, wait: Option<Wait>) -> Result<Connected, ApiError> {
        let (plan, boot) = running(&self.engine, vm, wait).await?;
        let agent = match self.spares.take(&plan.id) {
            Some(agent) => agent,
            None => dial(&self.engine, &plan).await?,
        };
        Ok(Connected { agent, boot, plan })
    }

    /// Opens a connection for the next session on this VM.
    async fn prepare(&self, vm: &VmId) {
        // The VM may have been stopped by the session itself.
        let Ok(plan) = self.engine.running_plan(vm.as_str()) else { return };
        if !self.spares.wants(&plan.id) {
            return;
        }
        // The next session makes a connection of its own and reports why it cannot.
        if let Ok(agent) = dial(&self.engine, &plan).await {
            self.spares.put(&plan.id, agent);
        }
    }
}

struct Connected {
    agent: OwnedFd,
    boot: Option<BootView>,
    plan: VmPlan,
}

/// Serves one connection.
pub async fn serve(mut stream: UnixStream, sessions: Arc<Sessions>) {
    let request = match tokio::time::timeout(LINE_TIMEOUT, read_request(&mut stream)).await {
        Ok(Ok(Some(request))) => request,
        // A liveness check: the client closed without a request.
        Ok(Ok(None)) => return,
        Ok(Err(error)) => return refuse(&stream, error).await,
        Err(_) => return refuse(&stream, bad("no request came within 10 s")).await,
    };
    match request {
        SessionRequest::Agent { expect_build: Some(build), .. } if build != BUILD_ID => {
            answer(&stream, &SessionAnswer::OtherBuild, None).await;
        }
        SessionRequest::Agent { vm, wait, command, traceparent, .. } => {
            let parent = traceparent.and_then(|text| text.parse::<TraceParent>().ok());
            let connecting = sessions.connect(&vm, wait);
            let connected = tokio::select! {
                connected = connecting => connected,
                // A client that disconnected needs no answer.
                () = closed(&stream) => return,
            };
            match connected {
                Ok(Connected { agent, boot, plan }) => {
                    let counted = command.then(|| Command::begin(&plan, parent.as_ref()));
                    answer(&stream, &SessionAnswer::Connected { boot }, Some(&agent)).await;
                    drop(agent);
                    tokio::select! {
                        // The client closes when its session has ended.
                        () = closed(&stream) => {
                            if let Some(command) = counted {
                                command.end(&sessions.engine);
                            }
                            sessions.prepare(&plan.id).await;
                        }
                        () = sessions.stopping.requested() => {}
                    }
                }
                Err(error) => refuse(&stream, error).await,
            }
        }
        SessionRequest::Hold { vm } => match sessions.engine.hold(&vm) {
            Ok(id) => hold(stream, &sessions, &id).await,
            Err(error) => refuse(&stream, error).await,
        },
    }
}

/// A command in a guest, from the connection to its agent to its end.
pub struct Command {
    began: tokio::time::Instant,
    span: tracing::Span,
}

impl Command {
    /// A command that begins now.
    pub fn begin(plan: &VmPlan, parent: Option<&TraceParent>) -> Self {
        let trace = parent.map(|parent| tracing::field::display(&parent.trace));
        let span = tracing::info_span!("command", vm = %plan.id, trace);
        if let Some(parent) = parent {
            otlp::set_parent(&span, parent);
        }
        Self { began: tokio::time::Instant::now(), span }
    }

    /// It has ended: counts its duration.
    pub fn end(self, engine: &Engine) {
        let elapsed = self.began.elapsed();
        tracing::debug!(parent: &self.span, ms = elapsed.as_millis() as u64, "command ended");
        engine.timings().command(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
    }
}

/// Resolves when the client has closed the connection.
async fn closed(stream: &UnixStream) {
    let mut byte = [0];
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        match stream.try_read(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The request was one line, so any further byte or end of file ends the session.
            _ => return,
        }
    }
}

/// Connects to the agent of a VM, with the handshake done, after waiting for a stage of the VM's
/// start if requested.
///
/// # Errors
/// Not found, not running, timeout of the wait, or an agent that does not accept the connection in
/// time.
pub async fn connect(
    engine: &Engine,
    vm: &str,
    wait: Option<Wait>,
) -> Result<(OwnedFd, Option<BootView>), ApiError> {
    let (plan, boot) = running(engine, vm, wait).await?;
    Ok((dial(engine, &plan).await?, boot))
}

/// As [`connect`] without a wait; also returns which VM it is.
///
/// # Errors
/// As [`connect`].
pub async fn connect_to(engine: &Engine, vm: &str) -> Result<(OwnedFd, VmPlan), ApiError> {
    let (plan, _) = running(engine, vm, None).await?;
    Ok((dial(engine, &plan).await?, plan))
}

async fn running(
    engine: &Engine,
    vm: &str,
    wait: Option<Wait>,
) -> Result<(VmPlan, Option<BootView>), ApiError> {
    match wait {
        Some(wait) => {
            let (plan, boot) = engine.wait_boot(vm, wait).await?;
            Ok((plan, Some(boot)))
        }
        None => Ok((engine.running_plan(vm)?, None)),
    }
}

/// Connects to the agent of a running VM.
///
/// # Errors
/// The agent does not accept the connection in time.
pub async fn dial(engine: &Engine, plan: &VmPlan) -> Result<OwnedFd, ApiError> {
    let connecting = engine.drivers().guest.connect(plan);
    let began = tokio::time::Instant::now();
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| {
        let seconds = CONNECT_TIMEOUT.as_secs();
        let text =
            format!("the agent of `{}` did not accept a connection within {seconds} s", plan.name);
        Err(ApiError::new(ErrorCode::GuestFailed, text).with_hint(Hint::check(&plan.name)))
    });
    if connected.is_ok() {
        let us = began.elapsed().as_micros();
        engine.timings().connected(u64::try_from(us).unwrap_or(u64::MAX));
    }
    connected
}

/// Holds the VM until the client closes the connection.
async fn hold(mut stream: UnixStream, sessions: &Sessions, vm: &VmId) {
    answer(&stream, &SessionAnswer::Held, None).await;
    let mut byte = [0];
    tokio::select! {
        // The protocol ends here: any byte or end of file ends the hold.
        _ = stream.read(&mut byte) => sessions.engine.release_hold(vm).await,
        // The session outlives the daemon: the client asks the next daemon to hold the VM.
        () = sessions.stopping.requested() => {}
    }
}

fn bad(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, text)
}

/// The first line; `None` if the client closed without one.
async fn read_request(stream: &mut UnixStream) -> Result<Option<SessionRequest>, ApiError> {
    let mut line = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let count = stream
            .read(&mut piece)
            .await
            .map_err(|error| bad("the request cannot be read").caused_by(&error))?;
        line.extend_from_slice(piece.get(..count).unwrap_or_default());
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            let parsed = serde_json::from_slice(line.get(..end).unwrap_or_default());
            return parsed.map(Some).map_err(|error| {
                let problem: String = error.to_string().chars().take(400).collect();
                bad(format!("the request is invalid: {}", problem.escape_debug()))
            });
        }
        match (count, line.len()) {
            (0, 0) => return Ok(None),
            (0, _) => return Err(bad("the request does not end with a newline")),
            (_, length) if length > MAX_LINE => {
                return Err(bad(format!("the request is longer than {MAX_LINE} bytes")));
            }
            _ => {}
        }
    }
}

async fn refuse(stream: &UnixStream, error: ApiError) {
    answer(stream, &SessionAnswer::Refused { error }, None).await;
}

/// Sends the answer with its descriptor. Errors mean that the client has disconnected.
async fn answer(stream: &UnixStream, answer: &SessionAnswer, agent: Option<&OwnedFd>) {
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    let sent = tokio::time::timeout(LINE_TIMEOUT, send(stream, &line, agent)).await;
    if let Ok(Err(error)) = sent {
        tracing::debug!(error = %error, "cannot send a session's answer");
    }
}

async fn send(stream: &UnixStream, line: &[u8], agent: Option<&OwnedFd>) -> io::Result<()> {
    let mut agent = agent;
    let mut rest = line;
    while !rest.is_empty() {
        let sent = stream
            .async_io(Interest::WRITABLE, || match agent {
                // A line is far smaller than a socket's buffer, so it is sent in one piece.
                Some(agent) => {
                    banger_sys::scm::send_with_fd(stream, rest, agent.as_fd()).map(|()| rest.len())
                }
                None => stream.try_write(rest),
            })
            .await?;
        rest = rest.get(sent..).unwrap_or_default();
        agent = None;
    }
    Ok(())
}
