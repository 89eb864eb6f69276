//! `banger-shim`: owns one VMM and its companion, and outlives the daemon that started it.
//!
//! It waits at the gate, starts both, passes their output into capped logs, ends the survivor when
//! one of them ends, and leaves the story of the end. Killed itself, it takes both with it.

mod adopted;
mod capped_log;
mod event_loop;
mod jailed;
mod last_words;
mod life;
mod output;
mod qmp;
mod shim;
mod start;
mod state;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::ExitCode;

use banger_shim::{ExitCause, ExitStory, MAX_CONFIG, ShimConfig, ShimEvent};
use banger_sys::{harden, signals};
use rustix::process::Signal;

use crate::shim::Shim;
use crate::state::State;

fn main() -> ExitCode {
    // An old kernel cannot close a range; then whoever started us must have leaked nothing.
    let _ = harden::close_inherited();
    // Already a session leader when started so: then there is nothing to leave.
    let _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("banger-shim: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    // What ends a terminal's programs is not meant for a VM. (SIGPIPE is ignored by Rust itself.)
    signals::ignore(&[Signal::HUP, Signal::INT, Signal::QUIT])
        .map_err(|error| format!("signals: {error}"))?;
    let refused = |message: String| {
        tell_failed("gate", &message);
        format!("gate: {message}")
    };
    let Some(config) = wait_at_gate().map_err(refused)? else { return Ok(()) };
    let state = State::open(&config.state_dir).map_err(refused)?;
    let (cause, story) = live(config, &state);
    let left = state.write_story(&story);
    // Only now, so that whoever reads it finds everything ended and the story told.
    if let Some(ExitCause::LaunchFailed { step, message }) = &cause {
        eprintln!("banger-shim: {step}: {message}");
        tell_failed(step, message);
    }
    left.map_err(|error| format!("cannot leave the story: {error}: {story:?}"))
}

/// From the open gate to the end of both. The first part is why they never ran, if they did not.
fn live(config: ShimConfig, state: &State) -> (Option<ExitCause>, ExitStory) {
    let vm = config.vm.clone();
    let (mut shim, ends) = match Shim::prepare(config) {
        Ok(prepared) => prepared,
        Err(cause) => return (Some(cause.clone()), shim::story_of_nothing(vm, cause)),
    };
    match shim.start(ends, state) {
        Ok(()) => {
            let cause = shim.watch();
            (None, shim.finish(cause))
        }
        Err(ExitCause::Asked) => {
            let story = shim.finish(ExitCause::Asked);
            (Some(start::failed("start", "it was asked to end")), story)
        }
        Err(cause) => (Some(cause.clone()), shim.finish(cause)),
    }
}

/// The configuration, or nothing if the daemon ended before it opened the gate.
fn wait_at_gate() -> Result<Option<ShimConfig>, String> {
    let mut line = Vec::new();
    let mut gate = BufReader::new(std::io::stdin().lock().take(MAX_CONFIG));
    gate.read_until(b'\n', &mut line).map_err(|error| error.to_string())?;
    if line.pop_if(|last| *last == b'\n').is_some() {
        return serde_json::from_slice(&line).map(Some).map_err(|error| error.to_string());
    }
    if line.len() as u64 == MAX_CONFIG {
        return Err(format!("the configuration is longer than {MAX_CONFIG} bytes"));
    }
    Ok(None)
}

fn tell_failed(step: &str, message: &str) {
    tell(&ShimEvent::Failed { step: step.into(), message: message.into() });
}

/// One line for the daemon. It may be gone; the state folder tells the next one.
fn tell(event: &ShimEvent) {
    if let Ok(mut line) = serde_json::to_vec(event) {
        line.push(b'\n');
        let mut status = std::io::stdout().lock();
        let _ = status.write_all(&line).and_then(|()| status.flush());
    }
}
