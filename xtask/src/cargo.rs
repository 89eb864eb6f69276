//! cargo, as a user would start it.

use std::process::Command;

/// How the names of variables begin that cargo sets for a program which it runs.
const OF_THIS_PROGRAM: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

/// The command, without what this program got from cargo: build scripts that ask for these
/// variables would run again, and after them everything that depends on their crates.
pub fn command() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    for name in names.filter(|name| OF_THIS_PROGRAM.iter().any(|begin| name.starts_with(begin))) {
        cargo.env_remove(name);
    }
    cargo
}
