//! One connection: reads requests, answers them, hands over to sessions and event streams.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use banger_agent_proto::events::PowerMode;
use banger_agent_proto::exec::{ExecRequest, UPGRADE};
use banger_agent_proto::http::{Clock, ClockOffset, ClockReading, Health, Reseed, Shutdown};
use banger_agent_proto::{MAX_EXEC_BODY, PROTOCOL_MAX, PROTOCOL_MIN, forward, ssh};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::exec::{self, Started};
use super::http::{Connection, Refusal, Request};
use super::{Agent, archive, clock, connect, live, ports, power, program, session, sshd, usage};
use crate::boot::{mix_entropy, step_clock, uptime_ms};

/// Longest silence within a request or between two, and longest time a client may not read.
const IO_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection of the host.
pub type Client = Connection<File>;

/// What follows a request on its connection.
enum AfterRequest {
    /// Another request may come.
    KeepAlive,
    /// It is over.
    Close,
}

/// Serves a connection to its end.
pub fn serve(stream: OwnedFd, agent: &Agent) {
    for direction in [Timeout::Recv, Timeout::Send] {
        // Without the timeout a silent client occupies one of many slots.
        let _ = set_socket_timeout(&stream, direction, Some(IO_TIMEOUT));
    }
    // Errors of a broken connection cannot be reported to its client.
    let _ = serve_requests(Connection::new(File::from(stream)), agent);
}

fn serve_requests(mut client: Client, agent: &Agent) -> io::Result<()> {
    while let Some(request) = client.next_request()? {
        let request = match request {
            Ok(request) => request,
            Err(refusal) => return client.refuse(&refusal),
        };
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/exec") => return run_command(client, &request, agent),
            ("POST", "/connect") => return connect_port(client, &request, agent),
            ("POST", "/forward") => return forward(client, &request, agent),
            ("POST", "/forward/take") => return take(client, &request, agent),
            ("GET", "/archive") => return archive::send(client, &request),
            ("PUT", "/archive") => return archive::receive(client, &request),
            ("POST", "/sync") => return live::serve(client, &request),
            _ => {}
        }
        match answer(&mut client, &request, agent)? {
            Ok(AfterRequest::KeepAlive) if !request.close => {}
            Ok(_) => return Ok(()),
            Err(refusal) => return client.refuse(&refusal),
        }
    }
    Ok(())
}

/// The refusal of a route that does not exist, or not with this method.
fn unknown(method: &str, path: &str) -> Refusal {
    let known = [
        "/healthz",
        "/boot",
        "/ports",
        "/usage",
        "/events",
        "/archive",
        "/shutdown",
        "/clock",
        "/clock/offset",
        "/reseed",
        "/exec",
        "/detach",
        "/connect",
        "/forward",
        "/forward/take",
        "/sshd",
        "/sync",
    ];
    if known.contains(&path) {
        Refusal::new(405, format!("`{path}` does not take {method}"))
    } else {
        Refusal::new(404, format!("the agent has no `{path}`"))
    }
}

/// Answers every request that does not take the connection over. The outer error is the
/// connection's, the inner one an answer.
fn answer(
    client: &mut Client,
    request: &Request,
    agent: &Agent,
) -> io::Result<Result<AfterRequest, Refusal>> {
    // A body sent with a route that has none would be taken for the next request.
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/healthz") => client.answer(200, &health(agent))?,
        ("GET", "/boot") => {
            // The daemon asks once it has recorded that the machine runs.
            agent.workload.iter().for_each(program::Workload::go);
            let progress = agent.events.wait_boot(boot_wait(request));
            client.answer(200, &progress)?;
        }
        ("GET", "/ports") => match ports::listening() {
            Ok(ports) => client.answer(200, &ports)?,
            Err(fault) => return Ok(Err(Refusal::new(500, fault.chain()))),
        },
        ("GET", "/usage") => client.answer(200, &usage::now())?,
        ("GET", "/sshd") => client.answer(200, &sshd::server(Path::new("/")))?,
        ("GET", "/events") => {
            let mut chunks = client.start_chunks("application/x-ndjson")?;
            agent.events.stream(&agent.boot_id, &mut chunks)?;
            chunks.finish()?;
            return Ok(Ok(AfterRequest::Close));
        }
        ("POST", "/detach") => {
            let started = client
                .json_within::<ExecRequest>(request, MAX_EXEC_BODY)?
                .and_then(|wanted| agent.detached.start(&wanted, &agent.commands));
            match started {
                Ok(started) => client.answer(200, &started)?,
                Err(refusal) => return Ok(Err(refusal)),
            }
            return Ok(Ok(AfterRequest::KeepAlive));
        }
        ("POST", "/shutdown") => return shut_down(client, request, agent),
        ("POST", "/clock") => {
            let outcome = client.json::<Clock>(request)?.and_then(|clock| {
                step_clock(clock.unix_ms).map_err(|fault| Refusal::bad(fault.chain()))
            });
            return done(client, outcome);
        }
        ("GET", "/clock") => client.answer(200, &ClockReading { unix_us: clock::now_us() })?,
        ("POST", "/clock/offset") => {
            let outcome = client.json::<ClockOffset>(request)?.and_then(|offset| {
                let corrected = agent.clock.correct(offset.offset_us, offset.history);
                corrected.map_err(|fault| Refusal::bad(fault.chain()))
            });
            return done(client, outcome);
        }
        ("POST", "/reseed") => {
            let outcome = client.json::<Reseed>(request)?.and_then(|reseed| {
                mix_entropy(&reseed.entropy).map_err(|fault| Refusal::bad(fault.chain()))
            });
            return done(client, outcome);
        }
        (method, path) => return Ok(Err(unknown(method, path))),
    }
    Ok(Ok(without_body(request)))
}

/// Keeps the connection only if the request had no body, since the body is unread.
fn without_body(request: &Request) -> AfterRequest {
    match request.body {
        super::http::BodyKind::Sized(0) => AfterRequest::KeepAlive,
        _ => AfterRequest::Close,
    }
}

fn done(
    client: &mut Client,
    outcome: Result<(), Refusal>,
) -> io::Result<Result<AfterRequest, Refusal>> {
    if let Err(refusal) = outcome {
        return Ok(Err(refusal));
    }
    client.answer_empty(204)?;
    Ok(Ok(AfterRequest::KeepAlive))
}

fn health(agent: &Agent) -> Health {
    let used = rustix::fs::fstatvfs(&agent.private)
        .map(|stat| stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize));
    Health {
        status: "ok".into(),
        boot_id: agent.boot_id.clone(),
        build: crate::BUILD.into(),
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        uptime_ms: uptime_ms(),
        root_used_bytes: used.ok(),
        agent_restarts: agent.restarts,
        boot: Some(agent.events.boot()),
    }
}

fn shut_down(
    client: &mut Client,
    request: &Request,
    agent: &Agent,
) -> io::Result<Result<AfterRequest, Refusal>> {
    let (mode, grace) = match client.json::<Shutdown>(request)? {
        Ok(Shutdown { mode: PowerMode::Unknown, .. }) => {
            return Ok(Err(Refusal::bad("power off or reboot must be chosen")));
        }
        Ok(Shutdown { mode, grace_ms }) => (mode, grace_ms.map(Duration::from_millis)),
        Err(refusal) => return Ok(Err(refusal)),
    };
    agent.events.request(mode);
    // Answered first: once init has been asked there may be no time for it.
    client.answer_empty(202)?;
    // The receiver lives as long as the agent.
    let _ = agent.power.send(power::Request::new(mode, grace));
    Ok(Ok(AfterRequest::Close))
}

fn run_command(mut client: Client, request: &Request, agent: &Agent) -> io::Result<()> {
    if let Err(refusal) = switches(request, UPGRADE) {
        return client.refuse(&refusal);
    }
    let wanted = client.json_within::<ExecRequest>(request, MAX_EXEC_BODY)?;
    if let Ok(wanted) = &wanted
        && wanted.program
    {
        return program::attach(client, wanted, agent);
    }
    match wanted.and_then(|wanted| exec::start(&wanted, &agent.commands)) {
        Err(refusal) => client.refuse(&refusal),
        Ok(Started::Failed(status)) => {
            client.switch(UPGRADE)?;
            session::not_started(OwnedFd::from(client.into_parts().0), status)
        }
        Ok(Started::Running(running)) => {
            // If this fails the session finds its client gone and ends the command.
            let _ = client.switch(UPGRADE);
            let (stream, early) = client.into_parts();
            session::run(exec::nonblocking(OwnedFd::from(stream))?, &early, running)
        }
    }
}

fn connect_port(mut client: Client, request: &Request, agent: &Agent) -> io::Result<()> {
    let opened = switches(request, ssh::UPGRADE);
    match opened.and_then(|()| connect::open(request, &agent.events)) {
        Err(refusal) => client.refuse(&refusal),
        Ok(server) => {
            client.switch(ssh::UPGRADE)?;
            let (stream, early) = client.into_parts();
            connect::relay(OwnedFd::from(stream), &early, server.into())
        }
    }
}

fn forward(mut client: Client, request: &Request, agent: &Agent) -> io::Result<()> {
    let wanted = request.parameter("user").unwrap_or_else(|| b"root".to_vec());
    let opened = switches(request, forward::UPGRADE)
        .and_then(|()| exec::find_user(&String::from_utf8_lossy(&wanted)))
        .and_then(|user| agent.forwards.open(&user));
    match opened {
        Err(refusal) => client.refuse(&refusal),
        Ok(socket) => {
            client.switch(forward::UPGRADE)?;
            agent.forwards.serve(OwnedFd::from(client.into_parts().0), &socket)
        }
    }
}

fn take(mut client: Client, request: &Request, agent: &Agent) -> io::Result<()> {
    let taken = switches(request, forward::UPGRADE).and_then(|()| agent.forwards.take(request));
    match taken {
        Err(refusal) => client.refuse(&refusal),
        Ok(stream) => {
            client.switch(forward::UPGRADE)?;
            let (client, early) = client.into_parts();
            connect::relay(OwnedFd::from(client), &early, stream.into())
        }
    }
}

/// Whether a request asks for this protocol.
fn switches(request: &Request, protocol: &str) -> Result<(), Refusal> {
    match request.upgrade.as_deref() == Some(protocol) {
        true => Ok(()),
        false => Err(Refusal::bad(format!("`{}` needs `Upgrade: {protocol}`", request.path))),
    }
}

/// How long `GET /boot` waits: at most as long as a connection may be silent.
fn boot_wait(request: &Request) -> Duration {
    let wanted = request.parameter("wait_ms").unwrap_or_default();
    let ms = std::str::from_utf8(&wanted).ok().and_then(|text| text.parse().ok());
    Duration::from_millis(ms.unwrap_or(0)).min(IO_TIMEOUT)
}
