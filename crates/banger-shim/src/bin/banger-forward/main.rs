//! `banger-forward`: listens on the published ports of one VM and carries TCP to its guest.
//!
//! It waits at the gate, listens on all addresses or on none, and outlives the daemon that started
//! it. SIGTERM ends it with all its connections. What it carries comes from guests and strangers:
//! it looks at no byte of it, and may open no file.

mod connection;
mod relay;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use banger_shim::{ForwardConfig, ForwardEvent, MAX_FORWARD_CONFIG, gate};
use banger_sys::landlock::Ruleset;
use banger_sys::{harden, signals};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::{Resource, Rlimit, Signal};

use crate::relay::Relay;

/// Connections that may wait to be accepted, for each address.
const BACKLOG: i32 = 512;

fn main() -> ExitCode {
    // An old kernel cannot close a range; then whoever started us must have leaked nothing.
    let _ = harden::close_inherited();
    // Already a session leader when started so: then there is nothing to leave.
    let _ = rustix::process::setsid();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("banger-forward: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    // What ends a terminal's programs is not meant for a VM. (SIGPIPE is ignored by Rust itself.)
    signals::ignore(&[Signal::HUP, Signal::INT, Signal::QUIT])
        .map_err(|error| format!("signals: {error}"))?;
    let config = gate::wait::<ForwardConfig>(MAX_FORWARD_CONFIG).inspect_err(|message| {
        gate::answer(&ForwardEvent::Refused { message: message.clone() });
    })?;
    let Some(config) = config else { return Ok(()) };
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
    let relay = Relay::new(listeners).map_err(|error| format!("epoll: {error}"))?;
    gate::answer(&ForwardEvent::Listening);
    leave_pipes().map_err(|error| format!("`/dev/null`: {error}"))?;
    Ruleset::new()
        .and_then(Ruleset::restrict_self)
        .map_err(|error| format!("landlock: {error}"))?;
    relay.run().map_err(|error| format!("epoll: {error}"))
}

/// Listens on an address; on an IPv6 one for IPv6 alone (ipv6(7)), so that `::` and `0.0.0.0` are
/// two addresses on every host.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // Connections of a run before this one may still be on their way out (TIME_WAIT).
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Each connection takes two descriptors, and many systems begin with a limit of 1024.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, ..limit };
    // With a lower limit connections wait until descriptors are free.
    let _ = rustix::process::setrlimit(Resource::Nofile, all);
}

/// Lets go of the daemon's pipes.
fn leave_pipes() -> io::Result<()> {
    let nothing = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    Ok(())
}
