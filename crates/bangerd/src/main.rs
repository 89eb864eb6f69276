//! `bangerd`: parses its arguments and runs the daemon.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use bangerd::api::Host;
use bangerd::daemon::{self, BUILD_ID, VERSION};
use bangerd::stdio;

const HELP: &str = "\
The daemon of banger: keeps microVMs on this host. The CLI starts it by itself.

Usage: bangerd [--sim]

Options:
  --sim      Work on a simulated host: no VM is real
  --version  Print version and build
  --help     Print this help

Its folders, sockets and log follow from BANGER_HOME, BANGER_STATE_DIR and the XDG variables;
`banger daemon status` shows them.
";

fn main() -> ExitCode {
    let mut host = Host::Real;
    for argument in std::env::args_os().skip(1) {
        match argument.to_str() {
            Some("--sim") => host = Host::Simulated,
            Some("--version" | "-V") => {
                stdio::output(&format!("bangerd {VERSION} ({BUILD_ID})\n"));
                return ExitCode::SUCCESS;
            }
            Some("--help" | "-h") => {
                stdio::output(HELP);
                return ExitCode::SUCCESS;
            }
            _ => {
                let argument = argument.display();
                stdio::error(&format!("error: unknown argument `{argument}`\n"));
                stdio::error("hint: `bangerd --help` lists the arguments\n");
                return ExitCode::from(banger_api::exit::USAGE);
            }
        }
    }
    daemon::main(host)
}
