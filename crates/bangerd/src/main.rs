//! `bangerd`: parses its arguments and runs the daemon.

use std::process::ExitCode;

use bangerd::api::Host;
use bangerd::daemon::{self, BUILD_ID, VERSION};

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
                println!("bangerd {VERSION} ({BUILD_ID})");
                return ExitCode::SUCCESS;
            }
            Some("--help" | "-h") => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            _ => {
                eprintln!("error: unknown argument `{}`", argument.display());
                eprintln!("hint: `bangerd --help` shows the ones there are");
                return ExitCode::from(banger_api::exit::USAGE);
            }
        }
    }
    daemon::main(host)
}
