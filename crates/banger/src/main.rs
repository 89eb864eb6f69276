//! `banger`: the command line interface, a thin layer over the API.

mod attach;
mod batch;
mod cli;
mod command_options;
mod commands;
mod completion;
mod context;
mod env_file;
mod errors;
mod follow;
mod interrupt;
mod man;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod parity;
mod render;
mod repository;
mod ssh;
mod ssh_agent;
mod sync_options;
mod terminal;
mod usage;
mod values;
mod waiting;

use std::io::Write;
use std::process::ExitCode;

use crate::context::Context;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(errors::report_panic));
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            // The program cannot work without a runtime.
            let _ = writeln!(std::io::stderr(), "error: no event loop: {error}");
            return ExitCode::from(banger_api::exit::FAILED);
        }
    };
    // Help shows the daemon's defaults if the daemon program is installed.
    let defaults = match cli::asks_for_help(&arguments) {
        true => runtime.block_on(context::defaults()),
        false => None,
    };
    let parsed = match cli::parse(&arguments, defaults.as_ref()) {
        Ok(parsed) => parsed,
        Err(code) => return ExitCode::from(code),
    };
    let code = runtime.block_on(async {
        let context = Context::new(&parsed.global);
        let exit_code_of = parsed.command.exit_code_of();
        match commands::dispatch(&context, parsed.command).await {
            Ok(code) => code,
            Err(failure) => errors::report(&context, failure, exit_code_of),
        }
    });
    // A thread may be blocked in a read of the terminal; it ends with the process.
    runtime.shutdown_background();
    ExitCode::from(code)
}
