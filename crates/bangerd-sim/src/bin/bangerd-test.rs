//! `bangerd-test`: the daemon on this host, with the test switches of [`bangerd_sim::real`] and
//! [`bangerd_sim::worker`].

use std::process::ExitCode;

use bangerd_sim::daemon::{self, Host, Program};
use bangerd_sim::{real, worker};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == worker::ARGUMENT) {
        return worker::main(&arguments.collect::<Vec<_>>());
    }
    daemon::main(&Program { host: Host::Real, open: real::open, capacity: bangerd::real::capacity })
}
