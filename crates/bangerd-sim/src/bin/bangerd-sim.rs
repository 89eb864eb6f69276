//! `bangerd-sim`: the daemon on a simulated host, for tests and trials. See [`bangerd_sim::world`].

use std::process::ExitCode;

use bangerd_sim::daemon::{self, Host, Program};
use bangerd_sim::world;

fn main() -> ExitCode {
    daemon::main(&Program {
        host: Host::Simulated,
        open: |paths, _, _| world::open(&paths.state),
        capacity: world::capacity,
    })
}
