//! `bangerd`: parses its arguments and runs the daemon on this host.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use banger_image::images::worker;
use bangerd::daemon::{self, BUILD_ID, Host, Program, VERSION};
use bangerd::real::{self, Options};
use bangerd::stdio;

const HELP: &str = "\
The daemon of banger: keeps microVMs on this host. The CLI starts it by itself.

Usage: bangerd [--defaults]

Options:
  --defaults Print the values of a new VM as JSON: configuration, environment and this host
  --version  Print version and build
  --help     Print this help

Its folders, sockets and log follow from BANGER_HOME, BANGER_STATE_DIR and the XDG variables;
`banger daemon status` shows them.
";

fn main() -> ExitCode {
    let argument = std::env::args_os().nth(1);
    let argument = argument.filter(|first| first != worker::ARGUMENT);
    match argument.as_ref().map(|argument| argument.to_str()) {
        None | Some(Some("--defaults")) => {
            return daemon::main(&Program {
                host: Host::Real,
                open: |paths, config, dns| real::open(paths, config, dns, Options::default()),
                capacity: real::capacity,
            });
        }
        Some(Some("--version" | "-V")) => {
            stdio::output(&format!("bangerd {VERSION} ({BUILD_ID})\n"));
        }
        Some(Some("--help" | "-h")) => stdio::output(HELP),
        Some(_) => {
            let argument = argument.unwrap_or_default();
            let argument = argument.display();
            stdio::error(&format!("error: unknown argument `{argument}`\n"));
            stdio::error("hint: `bangerd --help` lists the arguments\n");
            return ExitCode::from(banger_api::exit::USAGE);
        }
    }
    ExitCode::SUCCESS
}
