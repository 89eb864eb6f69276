//! The ends of a session: of its command, of one that never ran, and of the program of the machine.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use banger_agent_proto::exec::ExitStatus;
use banger_agent_proto::frame::Frame;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::{DRAIN, QUIET, Session};
use crate::agent::exec::Running;

/// Time for the client of the machine's program to close the connection after the end.
const LINGER: Duration = Duration::from_secs(5);

/// Runs the session of the machine's program to the program's end; returns how it ended. The
/// program goes on without its client, its output then is the console's. Afterwards waits a moment
/// for the client to have read the end, since the machine ends next.
pub fn run_program(client: Option<OwnedFd>, early: &[u8], running: Running) -> ExitStatus {
    let mut session = Session::new(client, running);
    session.survives_client = true;
    if session.serve(early).is_err() {
        // The streams are lost, the process is not.
        while session.status.is_none() {
            session.reap(WaitIdOptions::empty());
        }
    }
    session.client.iter().for_each(linger);
    let unknown = || ExitStatus::Exited { code: 0 };
    session.status.take().unwrap_or_else(unknown)
}

/// Waits, at most [`LINGER`], until the client has closed the connection.
pub fn linger(client: &OwnedFd) {
    let deadline = Instant::now() + LINGER;
    let mut piece = [0; 512];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let ready = poll(&mut [PollFd::new(client, PollFlags::IN)], Some(&timeout));
        if left.is_zero() || ready == Ok(0) {
            return;
        }
        match read(client, &mut piece) {
            Ok(length) if length > 0 => {}
            Err(Errno::AGAIN | Errno::INTR) => {}
            _ => return,
        }
    }
}

/// Sends the one frame of a command that never ran.
///
/// # Errors
/// The client's.
pub fn not_started(client: OwnedFd, status: ExitStatus) -> io::Result<()> {
    use std::io::Write as _;
    std::fs::File::from(client).write_all(&Frame::Exit(status).to_bytes())
}

impl Session {
    /// Takes the end of the command, if it has ended.
    pub(super) fn reap(&mut self, options: WaitIdOptions) {
        let options = WaitIdOptions::EXITED | options;
        let status = match waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Ok(None) | Err(Errno::INTR) => return,
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => ExitStatus::Exited { code: code as u8 },
                (None, signal) => ExitStatus::Signaled { signal: signal.unwrap_or(0) as u8 },
            },
            Err(errno) => ExitStatus::NotStarted {
                code: 126,
                message: format!("cannot learn how the command ended: {errno}"),
            },
        };
        self.status = Some(status);
        let now = Instant::now();
        (self.quiet_at, self.drained_at) = (now + QUIET, now + DRAIN);
    }
}
