//! `banger-shim`: owns one VMM and its companion, and outlives the daemon that started it.
//!
//! It waits at the gate, starts both, passes their output into capped logs, ends the survivor when
//! one of them ends, and leaves the story of the end. Killed itself, it takes both with it.

mod capped_log;
mod launch;
mod qmp;
mod supervise;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use banger_shim::{EXIT_FILE, ExitCause, ExitStory, MAX_CONFIG, ShimConfig, ShimEvent};

fn main() -> ExitCode {
    // Already a session leader when started by hand from a shell: then there is nothing to leave.
    let _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
    let config = match wait_at_gate() {
        Ok(Some(config)) => config,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("banger-shim: {error}");
            return ExitCode::FAILURE;
        }
    };
    let story = match launch::launch(&config) {
        Ok(running) => supervise::supervise(&config, running),
        Err(failed) => {
            let (step, message) = (failed.step.to_owned(), failed.message.clone());
            eprintln!("banger-shim: {step}: {message}");
            tell(&ShimEvent::Failed { step: step.clone(), message: message.clone() });
            ExitStory {
                vm: config.vm.clone(),
                cause: ExitCause::LaunchFailed { step, message },
                vmm: None,
                companion: failed.companion,
                guest: None,
                at_unix_ms: now_unix_ms(),
                console_tail: String::new(),
                vmm_log_tail: failed.log_tail,
            }
        }
    };
    match write_json(Path::new(&config.state_dir), EXIT_FILE, &story) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("banger-shim: cannot leave the story: {error}: {story:?}");
            ExitCode::FAILURE
        }
    }
}

/// The configuration, or nothing if the daemon ended before it opened the gate.
fn wait_at_gate() -> Result<Option<ShimConfig>, String> {
    let mut line = Vec::new();
    let mut gate = BufReader::new(std::io::stdin().lock().take(MAX_CONFIG));
    gate.read_until(b'\n', &mut line).map_err(|error| format!("gate: {error}"))?;
    if line.pop() != Some(b'\n') {
        return Ok(None);
    }
    serde_json::from_slice(&line).map(Some).map_err(|error| format!("gate: {error}"))
}

/// One line for the daemon. It may be gone; the state file tells the next one.
fn tell(event: &ShimEvent) {
    if let Ok(mut line) = serde_json::to_vec(event) {
        line.push(b'\n');
        let mut status = std::io::stdout().lock();
        let _ = status.write_all(&line).and_then(|()| status.flush());
    }
}

/// Writes a file that is either whole or not there.
fn write_json(folder: &Path, name: &str, value: &impl serde::Serialize) -> std::io::Result<()> {
    let staged = folder.join(format!("{name}.new"));
    std::fs::write(&staged, serde_json::to_vec(value)?)?;
    std::fs::rename(&staged, folder.join(name))
}

fn now_unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
