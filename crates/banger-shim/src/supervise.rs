//! Watches both children until both are gone.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use banger_shim::{ExitCause, ExitStory, Outcome, ShimConfig};
use banger_sys::proc::{Waited, wait};
use rustix::event::{PollFd, PollFlags, poll};

use crate::launch::{Running, drain, end};
use crate::qmp::{Qmp, Stream};

/// How long the VMM may take to end by itself once the companion has: a companion that goes because
/// its VMM is going is not the cause of the end.
const FOLLOWING: Duration = Duration::from_millis(200);

/// How a child ended, from what waitpid(2) says.
pub fn outcome(status: io::Result<ExitStatus>) -> Outcome {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Outcome::Exited { code },
            (None, signal) => Outcome::Signaled { signal: signal.unwrap_or_default() },
        },
        // Somebody else reaped it, which nobody here does; it is gone in any case.
        Err(_) => Outcome::Exited { code: -1 },
    }
}

/// Waits for the end of either child or for a request to end, and tells how it went.
pub fn supervise(config: &ShimConfig, mut running: Running) -> ExitStory {
    let cause = watch(&mut running);
    if cause == ExitCause::CompanionDied {
        // An error of poll(2) is no reason to leave the VMM alone.
        let _ = wait(&running.vmm.1, FOLLOWING);
    }
    let vmm_first = matches!(wait(&running.vmm.1, Duration::ZERO), Ok(Waited::Ended));
    let cause = match cause {
        ExitCause::CompanionDied if vmm_first => ExitCause::VmmExited,
        other => other,
    };
    let vmm = end(&mut running.vmm.0);
    let companion = running.companion.as_mut().map(|(process, _)| end(process));
    drain(&mut running.console);
    drain(&mut running.log);
    let guest = running.qmp.as_mut().and_then(|qmp| {
        qmp.read();
        qmp.guest
    });
    ExitStory {
        vm: config.vm.clone(),
        cause,
        vmm: Some(vmm),
        companion,
        guest,
        at_unix_ms: crate::now_unix_ms(),
        console_tail: running.console.1.tail(),
        vmm_log_tail: running.log.1.tail(),
    }
}

/// A source of output that is left out once it has ended.
struct Outputs {
    console: bool,
    log: bool,
    qmp: bool,
}

fn watch(running: &mut Running) -> ExitCause {
    let mut open = Outputs { console: true, log: true, qmp: running.qmp.is_some() };
    loop {
        let ready = match wait_for_any(running, &open) {
            Ok(ready) => ready,
            // Without poll nothing can be watched; ending both is the safe thing.
            Err(error) => {
                eprintln!("banger-shim: poll: {error}");
                return ExitCause::Asked;
            }
        };
        if ready.console {
            open.console = !drain(&mut running.console);
        }
        if ready.log {
            open.log = !drain(&mut running.log);
        }
        if ready.qmp {
            let ended = running.qmp.as_mut().is_none_or(|qmp| qmp.read() == Stream::Ended);
            open.qmp = !ended;
        }
        if ready.vmm {
            return ExitCause::VmmExited;
        }
        if ready.companion {
            return ExitCause::CompanionDied;
        }
        if ready.asked {
            return ExitCause::Asked;
        }
    }
}

#[derive(Default)]
struct Ready {
    vmm: bool,
    companion: bool,
    asked: bool,
    console: bool,
    log: bool,
    qmp: bool,
}

fn wait_for_any(running: &Running, open: &Outputs) -> io::Result<Ready> {
    let qmp = running.qmp.as_ref().filter(|_| open.qmp).map(Qmp::stream);
    let sources = [
        Some(running.vmm.1.as_fd()),
        running.companion.as_ref().map(|(_, pidfd)| pidfd.as_fd()),
        Some(running.asked.as_fd()),
        open.console.then(|| running.console.0.as_fd()),
        open.log.then(|| running.log.0.as_fd()),
        qmp.map(AsFd::as_fd),
    ];
    let (places, mut fds): (Vec<usize>, Vec<PollFd<'_>>) = sources
        .iter()
        .enumerate()
        .filter_map(|(place, fd)| fd.map(|fd| (place, PollFd::from_borrowed_fd(fd, PollFlags::IN))))
        .unzip();
    match poll(&mut fds, None) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
        Err(error) => return Err(error.into()),
    }
    let is_ready = |wanted: usize| {
        places.iter().zip(&fds).any(|(place, fd)| *place == wanted && !fd.revents().is_empty())
    };
    Ok(Ready {
        vmm: is_ready(0),
        companion: is_ready(1),
        asked: is_ready(2),
        console: is_ready(3),
        log: is_ready(4),
        qmp: is_ready(5),
    })
}
