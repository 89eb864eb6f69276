//! `banger-forward`: listens on the published ports of one VM and forwards TCP connections to its
//! guest.
//!
//! It waits at the gate, listens on all addresses or on none, and outlives the daemon that started
//! it. SIGTERM ends it with all its connections. The forwarded bytes are untrusted: it interprets
//! none of them and may open no file.

mod connection;
mod relay;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use banger_shim::{ForwardConfig, ForwardEvent, MAX_FORWARD_CONFIG, gate};
use banger_sys::landlock::Ruleset;
use banger_sys::stdio::error_line;
use banger_sys::{harden, signals};
use rustix::process::{Resource, Rlimit, Signal};
use socket2::{Domain, Protocol, Socket, Type};

/// Length of the accept queue of each address.
const BACKLOG: i32 = 512;

fn main() -> ExitCode {
    // Fails on old kernels; then the parent must not have leaked descriptors.
    let _ = harden::close_inherited();
    // Fails if this process is a session leader already.
    let _ = rustix::process::setsid();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error_line(format_args!("banger-forward: {failure}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    // Ignored: signals that a terminal sends to its programs. (Rust ignores SIGPIPE itself.)
    signals::ignore(&[Signal::HUP, Signal::INT, Signal::QUIT])
        .map_err(|error| format!("signals: {error}"))?;
    let config = gate::wait::<ForwardConfig>(MAX_FORWARD_CONFIG).inspect_err(|message| {
        gate::answer(&ForwardEvent::Refused { message: message.clone() });
    })?;
    let Some((config, _)) = config else { return Ok(()) };
    let mut listeners = Vec::new();
    for forward in &config.forwards {
        let listener = listen(forward.listen).map_err(|error| {
            let (listen, os_error) = (forward.listen, error.raw_os_error());
            gate::answer(&ForwardEvent::Failed { listen, os_error });
            format!("cannot listen on `{listen}`: {error}")
        })?;
        listeners.push((listener, forward.to));
    }
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|error| format!("tokio: {error}"))?;
    gate::answer(&ForwardEvent::Listening);
    leave_pipes().map_err(|error| format!("`/dev/null`: {error}"))?;
    Ruleset::new()
        .and_then(Ruleset::restrict_self)
        .map_err(|error| format!("landlock: {error}"))?;
    runtime.block_on(relay::run(listeners)).map_err(|error| format!("relay: {error}"))
}

/// Listens on an address; an IPv6 socket accepts IPv6 only (ipv6(7)), so that `::` and `0.0.0.0`
/// are two addresses on every host.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier run may still be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Each connection needs two descriptors, and many systems start with a limit of 1024.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, ..limit };
    // With a lower limit, connections wait for free descriptors.
    let _ = rustix::process::setrlimit(Resource::Nofile, all);
}

/// Closes the daemon's pipes.
fn leave_pipes() -> io::Result<()> {
    let nothing = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    Ok(())
}
