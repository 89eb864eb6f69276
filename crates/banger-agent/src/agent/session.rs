//! A running command and its client: one thread with one poll loop, without blocking calls.
//!
//! - Output is read only as fast as the client receives it, and input is limited by credit, so
//!   neither side can make the agent buffer more than a few hundred kilobytes.
//! - After the command's end, output is sent until its streams are closed. Background processes may
//!   keep them open, so the session also ends when there was no output for [`QUIET`], and at the
//!   latest after [`DRAIN`]. Later output is lost, and its writers get SIGPIPE (as with ssh).
//! - When the client disconnects, the command's process group gets SIGHUP and SIGCONT, and if the
//!   command still runs after [`HANGUP_GRACE`], SIGKILL. No other process is signalled: the group
//!   is identified by its leader, which has not been reaped.

mod end;
mod input;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use banger_agent_proto::buffer::Buffer;
use banger_agent_proto::exec::ExitStatus;
use banger_agent_proto::frame::{
    Decoder, Frame, HEADER, MAX_PAYLOAD, OutputStream, STDIN_WINDOW, STDIN_WINDOW_MAX,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, write};
use rustix::process::{Pid, WaitIdOptions};

use super::cgroup::Group;
use super::exec::{Running, Streams};
use crate::sys::signal::{self, Target};
pub use end::{linger, not_started, run_program};

/// Time without output, after the command's end, that ends the session.
const QUIET: Duration = Duration::from_millis(300);

/// Maximum duration of a session after the command's end.
const DRAIN: Duration = Duration::from_secs(3);

/// Time for a command to end after its client has disconnected.
const HANGUP_GRACE: Duration = Duration::from_secs(10);

/// Output held for a slow client, in bytes.
const OUTPUT_MAX: usize = 4 * MAX_PAYLOAD;

/// Most output in one frame: with its header it fills a packet of virtio-vsock
/// (`VIRTIO_VSOCK_MAX_PKT_BUF_SIZE`, 64 KiB), so that no packet of a few bytes follows.
const OUTPUT_PIECE: usize = MAX_PAYLOAD - HEADER;

/// Runs the session to its end. `early` is what the client sent right after its request.
///
/// # Errors
/// Only if waiting itself fails; a client that is gone is a normal end.
pub fn run(client: OwnedFd, early: &[u8], running: Running) -> io::Result<()> {
    Session::new(Some(client), running).serve(early)
}

/// Writes what fits; the number of bytes written.
fn write_from(buffer: &mut Buffer, fd: impl AsFd) -> Result<usize, Errno> {
    let written = write(fd, buffer.bytes())?;
    buffer.take(written);
    Ok(written)
}

/// Meaning of a poll entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Client,
    Stdin,
    Output(OutputStream),
    End,
}

struct Session {
    /// `None` when it has gone.
    client: Option<OwnedFd>,
    decoder: Decoder,
    /// Bytes from the client that wake this thread.
    awaited: usize,
    outgoing: Buffer,
    pid: Pid,
    pidfd: OwnedFd,
    /// Removed with the session.
    _group: Option<Group>,
    stdin: Option<OwnedFd>,
    incoming: Buffer,
    stdin_ended: bool,
    ends_in_line: bool,
    owed_credit: u32,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    is_terminal: bool,
    status: Option<ExitStatus>,
    exit_sent: bool,
    quiet_at: Instant,
    drained_at: Instant,
    kill_at: Option<Instant>,
    /// Whether the command goes on when its client disconnects.
    survives_client: bool,
}

impl Session {
    fn new(client: Option<OwnedFd>, running: Running) -> Self {
        let (stdin, stdout, stderr, is_terminal) = match running.streams {
            Streams::Pipes { stdin, stdout, stderr } => (stdin, stdout, Some(stderr), false),
            // A terminal that cannot be shared twice has no input, which its user will see.
            Streams::Terminal(master) => (master.try_clone().ok(), master, None, true),
        };
        let now = Instant::now();
        Self {
            client,
            decoder: Decoder::default(),
            awaited: 1,
            outgoing: Buffer::default(),
            pid: running.process.pid,
            pidfd: running.process.pidfd,
            _group: running.group,
            stdin,
            incoming: Buffer::default(),
            stdin_ended: false,
            ends_in_line: false,
            owed_credit: 0,
            stdout: Some(stdout),
            stderr,
            is_terminal,
            status: None,
            exit_sent: false,
            quiet_at: now,
            drained_at: now,
            kill_at: None,
            survives_client: false,
        }
    }

    fn serve(&mut self, early: &[u8]) -> io::Result<()> {
        if self.stdin.is_some() {
            self.push(&Frame::Credit(STDIN_WINDOW_MAX - STDIN_WINDOW));
        }
        self.decoder.push(early);
        self.take_frames();
        self.send();
        while !self.is_over() {
            self.poll_once()?;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let has_ended = self.status.is_some();
        has_ended && (self.client.is_none() || (self.exit_sent && self.outgoing.is_empty()))
    }

    /// Waits for events and handles them.
    fn poll_once(&mut self) -> io::Result<()> {
        let ready = self.wait()?;
        for (source, events) in ready {
            match source {
                Source::Client => self.client_ready(events),
                Source::Stdin => self.stdin_ready(events),
                Source::Output(output) => drop(self.collect(output)),
                Source::End => self.reap(WaitIdOptions::NOHANG),
            }
        }
        self.check_deadlines();
        self.send();
        Ok(())
    }

    fn wait(&self) -> io::Result<Vec<(Source, PollFlags)>> {
        let watched = self.watched();
        let mut fds: Vec<PollFd<'_>> =
            watched.iter().map(|(_, fd, events)| PollFd::new(*fd, *events)).collect();
        let timeout = self.next_deadline().map(|deadline| {
            // One more: a timeout rounded down would spin until the deadline.
            let left = deadline.saturating_duration_since(Instant::now()).as_millis() + 1;
            let left = i64::try_from(left).unwrap_or(i64::MAX);
            Timespec { tv_sec: left / 1000, tv_nsec: left % 1000 * 1_000_000 }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = watched.iter().zip(&fds).map(|((source, ..), fd)| (*source, fd.revents()));
        Ok(ready.filter(|(_, events)| !events.is_empty()).collect())
    }

    /// The descriptors to poll. An unused descriptor is left out: poll(2) would report its hang-up
    /// each time.
    fn watched(&self) -> Vec<(Source, &OwnedFd, PollFlags)> {
        let mut watched = Vec::with_capacity(5);
        if let Some(client) = &self.client {
            let mut events = PollFlags::IN;
            events.set(PollFlags::OUT, !self.outgoing.is_empty());
            watched.push((Source::Client, client, events));
        }
        if let Some(stdin) = &self.stdin {
            // An idle pipe reports when its reader closes it.
            if !self.incoming.is_empty() {
                watched.push((Source::Stdin, stdin, PollFlags::OUT));
            } else if !self.is_terminal {
                watched.push((Source::Stdin, stdin, PollFlags::empty()));
            }
        }
        if self.outgoing.len() < OUTPUT_MAX {
            let outputs =
                [(OutputStream::Stdout, &self.stdout), (OutputStream::Stderr, &self.stderr)];
            for (output, fd) in outputs {
                if let Some(fd) = fd {
                    watched.push((Source::Output(output), fd, PollFlags::IN));
                }
            }
        }
        if self.status.is_none() {
            watched.push((Source::End, &self.pidfd, PollFlags::IN));
        }
        watched
    }

    fn next_deadline(&self) -> Option<Instant> {
        match (&self.status, self.exit_sent) {
            (Some(_), false) => Some(self.quiet_at.min(self.drained_at)),
            (None, _) => self.kill_at,
            (Some(_), true) => None,
        }
    }

    /// Writes as much queued output as the client accepts.
    fn send(&mut self) {
        let Some(client) = &self.client else { return };
        if self.outgoing.is_empty() {
            return;
        }
        match write_from(&mut self.outgoing, client) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.hang_up(),
        }
    }

    /// Queues a frame, sent after all events are handled.
    fn push(&mut self, frame: &Frame) {
        if self.client.is_some() {
            self.outgoing.push(&frame.to_bytes());
        }
    }

    /// Takes output while there is much of it and room for it; true while there may be more.
    fn collect(&mut self, output: OutputStream) -> bool {
        loop {
            match self.collect_piece(output) {
                Some(length) if length == OUTPUT_PIECE && self.outgoing.len() < OUTPUT_MAX => {}
                taken => return taken.is_some(),
            }
        }
    }

    /// Takes one piece of output; its length, or `None` when there is none now.
    fn collect_piece(&mut self, output: OutputStream) -> Option<usize> {
        let fd = match output {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        };
        let open = fd.as_ref()?;
        // Read to its place after the header, so that it is not copied.
        let room = self.outgoing.room(HEADER + OUTPUT_PIECE);
        let (head, payload) = room.split_first_chunk_mut::<HEADER>()?;
        match read(open, &mut *payload) {
            Ok(length) if length > 0 => {
                self.quiet_at = Instant::now() + QUIET;
                if self.client.is_some() {
                    *head = Frame::output_header(output, length);
                    self.outgoing.filled(HEADER + length);
                } else if self.survives_client {
                    // The console; without one the output is lost.
                    let data = payload.get(..length).unwrap_or_default();
                    let _ = io::Write::write_all(&mut io::stderr(), data);
                }
                Some(length)
            }
            Err(Errno::AGAIN | Errno::INTR) => None,
            // End of file; or, on a terminal, EIO when its last user has closed it.
            _ => {
                *fd = None;
                None
            }
        }
    }

    fn check_deadlines(&mut self) {
        let now = Instant::now();
        if self.status.is_none() {
            if self.kill_at.is_some_and(|at| now >= at) {
                self.kill_at = None;
                let _ = signal::send(Target::Group(self.pid), libc::SIGKILL);
            }
            return;
        }
        let all_read = self.stdout.is_none() && self.stderr.is_none();
        if !self.exit_sent && (all_read || now >= self.quiet_at.min(self.drained_at)) {
            self.send_exit();
        }
    }

    /// Reads the rest of the streams, however slow the client is, and queues the exit status.
    fn send_exit(&mut self) {
        for output in [OutputStream::Stdout, OutputStream::Stderr] {
            // A pipe holds at most 1 MiB (fs.pipe-max-size) and may be refilled during the reads.
            for _ in 0..1024 * 1024 / MAX_PAYLOAD {
                if !self.collect(output) {
                    break;
                }
            }
        }
        (self.stdout, self.stderr, self.stdin) = (None, None, None);
        if let Some(status) = self.status.clone() {
            self.push(&Frame::Exit(status));
        }
        self.exit_sent = true;
    }

    fn hang_up(&mut self) {
        if self.client.take().is_none() {
            return;
        }
        self.outgoing.clear();
        self.incoming.clear();
        self.stdin = None;
        if self.status.is_none() && !self.survives_client {
            // A stopped process handles SIGHUP only after SIGCONT.
            for number in [libc::SIGHUP, libc::SIGCONT] {
                let _ = signal::send(Target::Group(self.pid), number);
            }
            self.kill_at = Some(Instant::now() + HANGUP_GRACE);
        }
    }
}

#[cfg(test)]
mod tests;
