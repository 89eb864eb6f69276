//! `banger-root-test`: the helper, with the failpoint of [`bangerd_sim::helper`].

use std::process::ExitCode;

fn main() -> ExitCode {
    banger_root::program::main(Some(bangerd_sim::helper::abort_once))
}
