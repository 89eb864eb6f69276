//! `banger-root`: the helper that carries out requests that require root. See
//! [`banger_root::program`].

use std::process::ExitCode;

fn main() -> ExitCode {
    banger_root::program::main(None)
}
