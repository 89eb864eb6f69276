//! The static program inside every guest: init of the initramfs, then the agent.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        banger_agent::boot::run();
    }
    let version = banger_agent::BUILD;
    eprintln!("banger-agent {version} runs as init of a banger guest, not by hand");
    ExitCode::from(2)
}
