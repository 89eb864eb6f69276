//! The agent of a simulated guest: implements the protocol of the real agent, with a few built-in
//! commands. It starts no process on the host.
//!
//! It is part of the daemon, so its sessions end with the daemon; those of real guests do not.

mod archive;
mod connect;
mod coreutils;
mod exec;
mod live;
mod shell;
mod terminal;

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::sync::Arc;

use banger_agent_proto::exec::{Detached, ExecRequest, UPGRADE};
use banger_agent_proto::http::{ErrorBody, Health, ListeningPort, Ports};
use banger_agent_proto::{MAX_EXEC_BODY, MAX_HTTP_HEAD, PROTOCOL_MAX, PROTOCOL_MIN};
use banger_api::{ApiError, ErrorCode};
use banger_engine::drivers::Guest;
use banger_engine::plan::VmPlan;
use banger_engine::sim::Sim;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, UPGRADE as UPGRADE_HEADER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::UnixStream;

/// Process id of every detached command of a simulated guest.
const DETACHED_PID: u32 = 2;

/// Exit code of a program that SIGHUP has ended.
const HANGUP: u8 = 129;

/// Answer to a request.
type Answer = Response<BoxBody<Bytes, Infallible>>;

/// A simulated guest and its host.
struct Machine {
    files: archive::Files,
    sim: Arc<Sim>,
    vm: VmPlan,
}

/// Connects to the agent of a VM.
///
/// # Errors
/// socketpair(2): no descriptors are left.
pub fn connect(sim: Arc<Sim>, vm: &VmPlan, files: &Path) -> Result<OwnedFd, ApiError> {
    let failed = |error: std::io::Error| {
        let text = format!("no connection to the simulated agent of `{}`", vm.name);
        ApiError::new(ErrorCode::GuestFailed, text).caused_by(&error)
    };
    let (client, agent) = StdStream::pair().map_err(failed)?;
    agent.set_nonblocking(true).map_err(failed)?;
    let agent = UnixStream::from_std(agent).map_err(failed)?;
    let files = archive::Files::new(files.join(vm.id.as_str()));
    let machine = Arc::new(Machine { files, sim, vm: vm.clone() });
    tokio::spawn(async move {
        let power = machine.clone();
        tokio::select! {
            () = serve(machine, agent) => {}
            // The connections of a guest end with it.
            () = power.off() => {}
        }
    });
    Ok(OwnedFd::from(client))
}

impl Machine {
    /// Resolves when the VMM has ended.
    async fn off(&self) {
        self.sim.ended(&self.vm).await;
    }
}

async fn serve(machine: Arc<Machine>, stream: UnixStream) {
    let sessions = exec::Sessions::default();
    let service = {
        let sessions = sessions.clone();
        service_fn(move |request| {
            let (machine, sessions) = (machine.clone(), sessions.clone());
            async move { Ok::<_, Infallible>(answer(machine, sessions, request).await) }
        })
    };
    let served = http1::Builder::new()
        .max_buf_size(MAX_HTTP_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(error = %error, "a connection to a simulated agent ended");
    }
    sessions.ended().await;
}

async fn answer(
    machine: Arc<Machine>,
    sessions: exec::Sessions,
    request: Request<Incoming>,
) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => health(&machine).await,
        (&Method::GET, "/sshd") => json(StatusCode::OK, &connect::server()),
        (&Method::POST, "/connect") => connect::start(&sessions, request),
        (&Method::POST, "/forward") => connect::forward(&sessions, request),
        (&Method::POST, "/forward/take") => connect::take(&sessions, request),
        (&Method::GET, "/archive") => machine.files.send(request).await,
        (&Method::PUT, "/archive") => machine.files.receive(request).await,
        (&Method::POST, "/sync") => live::start(&machine.files, &sessions, request),
        (&Method::GET, "/ports") => json(StatusCode::OK, &ports()),
        (&Method::POST, "/detach") => match detach(machine, request).await {
            Ok(answer) => answer,
            Err(problem) => refused(StatusCode::BAD_REQUEST, problem),
        },
        (&Method::POST, "/exec") => match start(machine, sessions, request).await {
            Ok(switching) => switching,
            Err(problem) => refused(StatusCode::BAD_REQUEST, problem),
        },
        _ => refused(StatusCode::NOT_FOUND, "a simulated agent does not have this".into()),
    }
}

fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Full::from(body).boxed());
    *response.status_mut() = status;
    response
}

fn refused(status: StatusCode, error: String) -> Answer {
    json(status, &ErrorBody { error })
}

async fn health(machine: &Machine) -> Answer {
    match machine.sim.health(&machine.vm).await {
        Ok(health) => {
            let health = Health {
                status: "ok".into(),
                boot_id: health.boot_id,
                build: "simulated".into(),
                protocol_min: PROTOCOL_MIN,
                protocol_max: PROTOCOL_MAX,
                uptime_ms: health.uptime_ms,
                root_used_bytes: None,
                agent_restarts: 0,
                boot: None,
            };
            json(StatusCode::OK, &health)
        }
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, error.message),
    }
}

fn ports() -> Ports {
    let sshd = ListeningPort {
        protocol: "tcp".into(),
        address: "0.0.0.0".into(),
        port: 22,
        pid: Some(1),
        process: Some("sshd".into()),
    };
    Ports { ports: vec![sshd] }
}

/// Checks the request and upgrades the connection to frames.
async fn start(
    machine: Arc<Machine>,
    sessions: exec::Sessions,
    mut request: Request<Incoming>,
) -> Result<Answer, String> {
    let wanted = request.headers().get(UPGRADE_HEADER).and_then(|value| value.to_str().ok());
    if wanted != Some(UPGRADE) {
        return Err(format!("the request must upgrade to `{UPGRADE}`"));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let mut command = read_command(request).await?;
    if command.program {
        let program = machine.vm.program.as_ref().ok_or("this machine has no program")?;
        command.argv.clone_from(&program.argv);
    }
    sessions.begin(async move {
        match upgrade.await {
            Ok(stream) if command.program => {
                let status = exec::run(machine.clone(), command, TokioIo::new(stream)).await;
                // Unlike a real one, the program of a simulated guest ends with its client.
                machine.sim.end_program(&machine.vm, status.map_or(HANGUP, |end| end.shell_code()));
            }
            Ok(stream) => drop(exec::run(machine, command, TokioIo::new(stream)).await),
            Err(error) => tracing::debug!(error = %error, "an exec was not upgraded"),
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE_HEADER, UPGRADE)
        .body(Full::default().boxed())
        .map_err(|error| error.to_string())
}

async fn read_command(request: Request<Incoming>) -> Result<ExecRequest, String> {
    let body = Limited::new(request.into_body(), MAX_EXEC_BODY).collect().await;
    let body = body.map_err(|error| format!("the body is not whole: {error}"))?.to_bytes();
    let command: ExecRequest =
        serde_json::from_slice(&body).map_err(|error| format!("the body is wrong: {error}"))?;
    let known = ["root", "0", "root:root", "0:0"];
    if let Some(user) = command.user.as_ref().filter(|user| !known.contains(&user.as_str())) {
        return Err(format!("there is no user `{user}`"));
    }
    if let Some(cwd) = command.cwd.as_ref().filter(|cwd| !cwd.as_bytes().starts_with(b"/")) {
        return Err(format!("there is no folder `{cwd}`"));
    }
    Ok(command)
}

/// Starts a command whose output is discarded; it ends with its guest.
async fn detach(machine: Arc<Machine>, request: Request<Incoming>) -> Result<Answer, String> {
    let command = read_command(request).await?;
    if command.tty.is_some() || command.stdin {
        return Err("a detached command has neither a terminal nor input".into());
    }
    let program = command.argv.first().map(|program| program.to_string_lossy().into_owned());
    if let Some(program) = program.filter(|program| !shell::has_program(program)) {
        let code = banger_api::exit::COMMAND_NOT_FOUND;
        let missing = Detached::NotStarted { code, message: shell::not_found(&program) };
        return Ok(json(StatusCode::OK, &missing));
    }
    let (mut client, agent) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let end = machine.clone();
        tokio::select! {
            _ = exec::run(machine, command, agent) => {}
            () = end.off() => {}
        }
    });
    tokio::spawn(async move { tokio::io::copy(&mut client, &mut tokio::io::sink()).await });
    Ok(json(StatusCode::OK, &Detached::Running { pid: DETACHED_PID, log: None }))
}
