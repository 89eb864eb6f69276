//! `banger-shim`: parent of one VMM and its companion; outlives the daemon that started it.
//!
//! It waits at the gate, starts both, copies their output to capped logs, ends one when the other
//! ends, and records the exit story. If it is killed, both are killed.

mod adopted;
mod capped_log;
mod child;
mod disk_errors;
mod disk_pause;
mod event_loop;
mod guest_end;
mod jailed;
mod lines;
mod output;
mod qmp;
mod shim;
mod start;
mod state;
mod user_pause;

use std::os::fd::OwnedFd;
use std::process::ExitCode;

use banger_shim::{ExitCause, ExitStory, MAX_CONFIG, ShimConfig, ShimEvent, gate};
use banger_sys::stdio::error_line;
use banger_sys::{harden, signals};
use rustix::process::Signal;

use crate::shim::Shim;
use crate::state::State;

fn main() -> ExitCode {
    // Fails on old kernels; then the parent must not have leaked descriptors.
    let _ = harden::close_inherited();
    // Fails if this process is a session leader already.
    let _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error_line(format_args!("banger-shim: {failure}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    // Ignored: signals that a terminal sends to its programs. (Rust ignores SIGPIPE itself.)
    signals::ignore(&[Signal::HUP, Signal::INT, Signal::QUIT])
        .map_err(|error| format!("signals: {error}"))?;
    let refused = |message: String| {
        tell_failed("gate", &message);
        format!("gate: {message}")
    };
    let opened = gate::wait::<ShimConfig>(MAX_CONFIG).map_err(refused)?;
    let Some((config, descriptors)) = opened else {
        return Ok(());
    };
    if descriptors.len() != config.passed.len() {
        let (came, named) = (descriptors.len(), config.passed.len());
        return Err(refused(format!("{came} descriptors came for {named} numbers")));
    }
    let state = State::open(config.state_dir.as_path()).map_err(refused)?;
    let (cause, story) = live(config, descriptors, &state);
    let left = state.write_story(&story);
    // Last, so that a reader of this event finds all processes ended and the exit story written.
    if let Some(ExitCause::LaunchFailed { step, message }) = &cause {
        error_line(format_args!("banger-shim: {step}: {message}"));
        tell_failed(step, message);
    }
    left.map_err(|error| format!("cannot write the exit story: {error}: {story:?}"))
}

/// From the open gate until both have ended. Returns the reason if they never ran.
fn live(
    config: ShimConfig,
    descriptors: Vec<OwnedFd>,
    state: &State,
) -> (Option<ExitCause>, ExitStory) {
    let (mut shim, ends) = match Shim::prepare(config, descriptors) {
        Ok(prepared) => prepared,
        Err(cause) => return (Some(cause.clone()), shim::story_without_start(cause)),
    };
    match shim.start(ends, state) {
        Ok(()) => {
            let cause = shim.watch();
            (None, shim.finish(cause))
        }
        Err(ExitCause::Requested) => {
            let story = shim.finish(ExitCause::Requested);
            (Some(start::failed("start", "stopped before it had started")), story)
        }
        Err(cause) => (Some(cause.clone()), shim.finish(cause)),
    }
}

fn tell_failed(step: &str, message: &str) {
    gate::answer(&ShimEvent::Failed { step: step.into(), message: message.into() });
}
