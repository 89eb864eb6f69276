//! cargo, as a user would start it.

use std::process::Command;

/// How the names of variables begin that cargo sets for a program which it runs.
const OF_THIS_PROGRAM: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

/// The command, without what this program got from cargo: build scripts that ask for these
/// variables would run again, and after them everything that depends on their crates.
pub fn command() -> Command {
    plain(Command::new(env!("CARGO")))
}

/// The same for another toolchain, which rustup's `cargo` finds.
pub fn nightly() -> Command {
    let mut cargo = plain(Command::new("cargo"));
    cargo.arg("+nightly");
    let of_stable = ["RUSTC", "RUSTC_WORKSPACE_WRAPPER", "RUSTUP_TOOLCHAIN", "RUSTDOC", "CARGO"];
    for name in of_stable {
        cargo.env_remove(name);
    }
    cargo
}

fn plain(mut cargo: Command) -> Command {
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    for name in names.filter(|name| OF_THIS_PROGRAM.iter().any(|begin| name.starts_with(begin))) {
        cargo.env_remove(name);
    }
    cargo
}
