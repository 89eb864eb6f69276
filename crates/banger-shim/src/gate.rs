//! The gate: starts a process that outlives its parent so that the parent records it before it
//! acts.
//!
//! The parent starts the program with a Unix socket as its standard input, the gate, and a pipe as
//! its standard output, the status pipe. The program waits for one line of configuration from the
//! gate, with descriptors beside its first byte where it needs any; at end of file it exits
//! instead. The parent records the process, then opens the gate, and
//! reads one line of answer. Daemon and helper use the first half of this file, `banger-shim` and
//! `banger-forward` the second.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use banger_base::{ProcRef, line};
use banger_sys::readiness::wait_until;
use banger_sys::scm::{recv_with_fds, send_with_fds};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Maximum length of an answer in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// A program that waits for its configuration. Dropping the gate makes the program exit.
#[derive(Debug)]
pub struct Gate {
    process: ProcRef,
    gate: UnixStream,
    status: OwnedFd,
}

/// A failed start of a program.
#[derive(Debug)]
pub struct SpawnError {
    /// The operation that failed, as a verb: `open`, `start`.
    pub doing: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The system's error.
    pub error: io::Error,
}

/// Starts a program with arguments in a folder, with an empty environment, and standard error
/// appended to a log. It waits at its gate. The caller must reap the child.
///
/// # Errors
/// The log cannot be opened, or the program cannot be executed.
pub fn spawn(
    program: &Path,
    arguments: &[OsString],
    folder: &Path,
    log: &Path,
) -> Result<(Gate, Child), SpawnError> {
    let failed = |doing, path: &Path, error| SpawnError { doing, path: path.into(), error };
    let stderr = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(log)
        .map_err(|error| failed("open", log, error))?;
    let (gate, theirs) = UnixStream::pair().map_err(|error| failed("start", program, error))?;
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .map_err(|error| failed("start", program, error))?;
    let status = child.stdout.take();
    // Not reaped yet, so the process id is not reused.
    let process = banger_sys::proc::reference(child.id());
    match (process, status) {
        (Some(process), Some(status)) => Ok((Gate { process, gate, status: status.into() }, child)),
        _ => {
            // Without a gate the program exits; without a reference it has exited.
            drop(gate);
            let _ = child.wait();
            Err(failed("start", program, io::ErrorKind::UnexpectedEof.into()))
        }
    }
}

impl Gate {
    /// The waiting process.
    pub fn process(&self) -> ProcRef {
        self.process
    }

    /// Sends the configuration and returns the answer.
    ///
    /// # Errors
    /// `TimedOut` after `limit`; `UnexpectedEof` for no answer or an invalid one; sendmsg(2) and
    /// read(2).
    pub fn open<E: DeserializeOwned>(
        self,
        config: &impl Serialize,
        limit: Duration,
    ) -> io::Result<E> {
        self.send(&line::encode(config)?, &[], limit)
    }

    /// As [`Self::open`], with an encoded configuration, and descriptors to send with it.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn send<E: DeserializeOwned>(
        self,
        config: &[u8],
        fds: &[OwnedFd],
        limit: Duration,
    ) -> io::Result<E> {
        let deadline = Instant::now() + limit;
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        send_all(&self.gate, config, &fds, deadline)?;
        drop(self.gate);
        let answer = read_line(&self.status, deadline)?;
        line::decode(&answer).map_err(|_| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Sends to a program that may be slow to read. Descriptors go with the first byte, so that they
/// arrive once, however the rest is cut.
fn send_all(
    gate: &UnixStream,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    deadline: Instant,
) -> io::Result<()> {
    gate.set_nonblocking(true)?;
    let (first, mut rest) = bytes.split_at(bytes.len().min(1));
    // An empty socket buffer has room for one byte.
    send_with_fds(gate, first, fds)?;
    while !rest.is_empty() {
        match rustix::net::send(gate, rest, SendFlags::NOSIGNAL) {
            Ok(count) => rest = &rest[count..],
            Err(Errno::AGAIN) => wait_until(gate, PollFlags::OUT, deadline)?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads one line from a pipe.
fn read_line(pipe: &OwnedFd, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut line = line::LineBuffer::new(MAX_ANSWER);
    let mut piece = [0; 4096];
    loop {
        wait_until(pipe, PollFlags::IN, deadline)?;
        match rustix::io::read(pipe, &mut piece) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                let pushed = line.push(&piece[..count]);
                if let Some(whole) = pushed.map_err(io::Error::other)? {
                    return Ok(whole);
                }
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits at the gate, in the program that was started. `None`: the parent ended before it opened
/// the gate, so the program must exit. `max_bytes` limits the configuration; descriptors that came
/// with it are returned with it.
///
/// # Errors
/// A configuration that is too long or not understood, or recvmsg(2), in words for the answer.
pub fn wait<T: DeserializeOwned>(max_bytes: usize) -> Result<Option<(T, Vec<OwnedFd>)>, String> {
    wait_on(io::stdin().as_fd(), max_bytes)
}

fn wait_on<T: DeserializeOwned>(
    gate: BorrowedFd<'_>,
    max_bytes: usize,
) -> Result<Option<(T, Vec<OwnedFd>)>, String> {
    let mut line = line::LineBuffer::new(max_bytes);
    let (mut piece, mut fds) = ([0; 4096], Vec::new());
    loop {
        let count = match receive(gate, &mut piece, &mut fds) {
            Ok(0) => return Ok(None),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.to_string()),
        };
        let pushed = line.push(&piece[..count]);
        let pushed =
            pushed.map_err(|_| format!("the configuration is longer than {max_bytes} bytes"))?;
        if let Some(whole) = pushed {
            let config = line::decode(&whole).map_err(|error| error.to_string())?;
            return Ok(Some((config, fds)));
        }
    }
}

/// Receives a piece of the configuration. A pipe is a gate too, which no descriptors come through.
fn receive(gate: BorrowedFd<'_>, piece: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    match recv_with_fds(gate, piece) {
        Ok((count, more)) => {
            fds.extend(more);
            Ok(count)
        }
        Err(error) if error.raw_os_error() == Some(Errno::NOTSOCK.raw_os_error()) => {
            Ok(rustix::io::read(gate, piece)?)
        }
        Err(error) => Err(error),
    }
}

/// Answers the parent, in the started program. Ignores errors: the parent may have ended.
pub fn answer(event: &impl Serialize) {
    if let Ok(line) = line::encode(event) {
        let mut status = io::stdout().lock();
        let _ = status.write_all(&line).and_then(|()| status.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(script: &str, folder: &Path) -> (Gate, Child) {
        use std::os::unix::fs::PermissionsExt;
        let program = folder.join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        spawn(&program, &[], folder, &folder.join("log")).unwrap()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn answers_are_read_and_missing_ones_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let (opened, mut child) = gate("read -r line; echo \"$line\"", folder.path());
        assert_eq!(opened.process().pid, child.id());
        assert_eq!(opened.open::<u32>(&7, LONG).unwrap(), 7);
        assert!(child.wait().unwrap().success());
        for (script, expected) in [
            ("read -r line; exit 1", io::ErrorKind::UnexpectedEof),
            ("read -r line; echo no", io::ErrorKind::UnexpectedEof),
            ("read -r line; yes | tr -d '\\n'", io::ErrorKind::Other),
        ] {
            let (opened, mut child) = gate(script, folder.path());
            assert_eq!(opened.open::<u32>(&7, LONG).unwrap_err().kind(), expected, "{script}");
            child.wait().unwrap();
        }
    }

    #[test]
    fn descriptors_come_with_the_configuration() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"passed").unwrap();
        // More than one piece.
        let config = line::encode(&"x".repeat(10_000)).unwrap();
        let deadline = Instant::now() + LONG;
        send_all(&ours, &config, &[file.as_fd()], deadline).unwrap();
        let (text, fds) = wait_on::<String>(theirs.as_fd(), 20_000).unwrap().unwrap();
        assert_eq!((text.len(), fds.len()), (10_000, 1));
        let mut read = [0; 6];
        rustix::io::pread(&fds[0], &mut read, 0).unwrap();
        assert_eq!(&read, b"passed");
        let error = {
            send_all(&ours, &config, &[], deadline).unwrap();
            wait_on::<String>(theirs.as_fd(), 5_000).unwrap_err()
        };
        assert_eq!(error, "the configuration is longer than 5000 bytes");
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        assert!(wait_on::<String>(theirs.as_fd(), 100).unwrap().is_none());
    }

    #[test]
    fn a_program_that_does_not_read_or_answer_times_out() {
        let folder = tempfile::tempdir().unwrap();
        let (opened, mut child) = gate("exec sleep 600", folder.path());
        // More than the capacity of a pipe.
        let much = "x".repeat(1 << 20);
        let error = opened.open::<u32>(&much, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let (opened, mut other) = gate("exec sleep 600", folder.path());
        let error = opened.open::<u32>(&1, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        for child in [&mut child, &mut other] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_dropped_gate_ends_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let (dropped, mut child) = gate("read -r line || exit 5", folder.path());
        drop(dropped);
        assert_eq!(child.wait().unwrap().code(), Some(5));
        let absent =
            spawn(&folder.path().join("absent"), &[], folder.path(), &folder.path().join("l"));
        assert_eq!(absent.unwrap_err().doing, "start");
        let program = folder.path().join("program");
        let no_log = spawn(&program, &[], folder.path(), Path::new("/nowhere/log")).unwrap_err();
        assert_eq!((no_log.doing, no_log.path), ("open", "/nowhere/log".into()));
    }
}
