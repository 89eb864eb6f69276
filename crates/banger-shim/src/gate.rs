//! The gate: starts a process that outlives its parent so that the parent records it before it
//! acts.
//!
//! The parent starts the program with a pipe as its standard input, the gate, and another one as
//! its standard output, the status pipe. The program waits for one line of configuration from the
//! gate; at end of file it exits instead. The parent records the process, then opens the gate, and
//! reads one line of answer. Daemon and helper use the first half of this file, `banger-shim` and
//! `banger-forward` the second.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use banger_base::{ProcRef, line};
use banger_sys::readiness::wait_until;
use rustix::event::PollFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Maximum length of an answer in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// A program that waits for its configuration. Dropping the gate makes the program exit.
#[derive(Debug)]
pub struct Gate {
    process: ProcRef,
    gate: OwnedFd,
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

/// Starts a program in a folder, with an empty environment, and standard error appended to a log.
/// It waits at its gate. The caller must reap the child.
///
/// # Errors
/// The log cannot be opened, or the program cannot be executed.
pub fn spawn(program: &Path, folder: &Path, log: &Path) -> Result<(Gate, Child), SpawnError> {
    let failed = |doing, path: &Path, error| SpawnError { doing, path: path.into(), error };
    let stderr = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(log)
        .map_err(|error| failed("open", log, error))?;
    let mut child = Command::new(program)
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .map_err(|error| failed("start", program, error))?;
    let pipes = child.stdin.take().zip(child.stdout.take());
    // Not reaped yet, so the process id is not reused.
    let process = banger_sys::proc::reference(child.id());
    match (process, pipes) {
        (Some(process), Some((gate, status))) => {
            Ok((Gate { process, gate: gate.into(), status: status.into() }, child))
        }
        _ => {
            // Without a gate the program exits; without a reference it has exited.
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
    /// `TimedOut` after `limit`; `UnexpectedEof` for no answer or an invalid one; write(2) and
    /// read(2).
    pub fn open<E: DeserializeOwned>(
        self,
        config: &impl Serialize,
        limit: Duration,
    ) -> io::Result<E> {
        self.send(&line::encode(config)?, limit)
    }

    /// As [`Self::open`], with an encoded configuration.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn send<E: DeserializeOwned>(self, config: &[u8], limit: Duration) -> io::Result<E> {
        let deadline = Instant::now() + limit;
        write_all(&self.gate, config, deadline)?;
        drop(self.gate);
        let answer = read_line(&self.status, deadline)?;
        line::decode(&answer).map_err(|_| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Writes to a pipe whose reader may be slow.
fn write_all(pipe: &OwnedFd, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    rustix::io::ioctl_fionbio(pipe, true)?;
    while !bytes.is_empty() {
        match rustix::io::write(pipe, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(rustix::io::Errno::AGAIN) => wait_until(pipe, PollFlags::OUT, deadline)?,
            Err(rustix::io::Errno::INTR) => {}
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
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits at the gate, in the started program. `None`: the parent ended before it opened the gate,
/// so the program must exit. `max_bytes` limits the configuration.
///
/// # Errors
/// A description of the error for the answer: too long, invalid, or read(2).
pub fn wait<T: DeserializeOwned>(max_bytes: u64) -> Result<Option<T>, String> {
    let mut line = Vec::new();
    let mut gate = BufReader::new(io::stdin().lock().take(max_bytes));
    gate.read_until(b'\n', &mut line).map_err(|error| error.to_string())?;
    if line.pop_if(|last| *last == b'\n').is_some() {
        return line::decode(&line).map(Some).map_err(|error| error.to_string());
    }
    if line.len() as u64 == max_bytes {
        return Err(format!("the configuration is longer than {max_bytes} bytes"));
    }
    Ok(None)
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
        spawn(&program, folder, &folder.join("log")).unwrap()
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
        let absent = spawn(&folder.path().join("absent"), folder.path(), &folder.path().join("l"));
        assert_eq!(absent.unwrap_err().doing, "start");
        let program = folder.path().join("program");
        let no_log = spawn(&program, folder.path(), Path::new("/nowhere/log")).unwrap_err();
        assert_eq!((no_log.doing, no_log.path), ("open", "/nowhere/log".into()));
    }
}
