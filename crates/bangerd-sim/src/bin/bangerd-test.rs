//! `bangerd-test`: the daemon on this host, with the test switches of [`bangerd_sim::real`].

use std::process::ExitCode;

use bangerd_sim::daemon::{self, Host, Program};
use bangerd_sim::real;

fn main() -> ExitCode {
    daemon::main(&Program { host: Host::Real, open: real::open, capacity: bangerd::real::capacity })
}
