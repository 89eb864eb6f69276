//! `banger-shim`: owns one VMM and its companion, and outlives the daemon that started it.
//!
//! It waits at the gate, starts both, passes their output into capped logs, ends the survivor when
//! one of them ends, and leaves the story of the end. Killed itself, it takes both with it.

mod adopted;
mod capped_log;
mod disk_errors;
mod event_loop;
mod held;
mod jailed;
mod last_words;
mod life;
mod lines;
mod output;
mod qmp;
mod shim;
mod start;
mod state;

use std::process::ExitCode;

use banger_shim::{ExitCause, ExitStory, MAX_CONFIG, ShimConfig, ShimEvent, gate};
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
    let Some(config) = gate::wait::<ShimConfig>(MAX_CONFIG).map_err(refused)? else {
        return Ok(());
    };
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
    let (mut shim, ends) = match Shim::prepare(config) {
        Ok(prepared) => prepared,
        Err(cause) => return (Some(cause.clone()), shim::story_of_nothing(cause)),
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

fn tell_failed(step: &str, message: &str) {
    gate::answer(&ShimEvent::Failed { step: step.into(), message: message.into() });
}
