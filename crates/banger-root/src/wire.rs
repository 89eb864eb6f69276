//! Messages between daemon and helper: one line of JSON each way, descriptors beside its first
//! byte, and one deadline for the whole message, however slowly the other end sends or reads.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use banger_base::line;
use banger_sys::readiness::wait_until;
use banger_sys::scm::{recv_with_fds, send_with_fds};
use rustix::event::PollFlags;
use rustix::net::{RecvFlags, SendFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest line in bytes: the story of a VM with the tails of two logs is the longest message.
pub const MAX_LINE: usize = 256 * 1024;

/// Calls an operation of a non-blocking stream again until it does not return `WouldBlock`.
fn retry<T>(
    stream: &UnixStream,
    events: PollFlags,
    deadline: Instant,
    mut operation: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_until(stream, events, deadline)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Sends a message. The stream becomes non-blocking.
///
/// # Errors
/// `TimedOut` at the deadline; sendmsg(2).
pub fn send(
    stream: &UnixStream,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
    deadline: Instant,
) -> io::Result<()> {
    let line = line::encode(message)?;
    stream.set_nonblocking(true)?;
    let (first, mut rest) = line.split_at(1);
    // Descriptors go with one byte, so that they arrive once, however the rest is cut.
    retry(stream, PollFlags::OUT, deadline, || send_with_fds(stream, first, fds))?;
    while !rest.is_empty() {
        let sent = retry(stream, PollFlags::OUT, deadline, || {
            Ok(rustix::net::send(stream, rest, SendFlags::NOSIGNAL)?)
        })?;
        rest = &rest[sent..];
    }
    Ok(())
}

/// Receives a message; `None` if the other end closed instead. The stream becomes non-blocking.
///
/// # Errors
/// `TimedOut` at the deadline; a line that is too long, cut, followed by more, or not of the
/// expected form; recvmsg(2).
pub fn receive<T: DeserializeOwned>(
    stream: &UnixStream,
    deadline: Instant,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    stream.set_nonblocking(true)?;
    let mut piece = [0; 4096];
    let (count, fds) =
        retry(stream, PollFlags::IN, deadline, || recv_with_fds(stream, &mut piece[..1]))?;
    if count == 0 {
        return Ok(None);
    }
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut buffer = line::LineBuffer::new(MAX_LINE);
    let mut count = count;
    loop {
        let pushed = buffer.push(&piece[..count]).map_err(|error| invalid(error.to_string()))?;
        if let Some(line) = pushed {
            if piece[..count].iter().position(|byte| *byte == b'\n') != Some(count - 1) {
                return Err(invalid("bytes follow the message".into()));
            }
            return Ok(Some((decode(&line)?, fds)));
        }
        count = retry(stream, PollFlags::IN, deadline, || {
            let (_, count) = rustix::net::recv(stream, &mut piece[..], RecvFlags::empty())?;
            Ok(count)
        })?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The message of a line.
///
/// # Errors
/// It is not of the expected form.
pub fn decode<T: DeserializeOwned>(line: &[u8]) -> io::Result<T> {
    line::decode(line)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(100)
    }

    #[test]
    fn a_message_that_trickles_in_ends_at_the_deadline() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        // Each byte arrives well within any limit for a single read.
        let sender = std::thread::spawn(move || {
            while theirs.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let error = receive::<String>(&ours, soon()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(ours);
        sender.join().unwrap();
    }

    #[test]
    fn a_reader_that_trickles_ends_at_the_deadline() {
        use std::io::Read;
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let much = "x".repeat(8 << 20);
        let reader = std::thread::spawn(move || {
            while theirs.read(&mut [0; 16]).is_ok_and(|count| count > 0) {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let error = send(&ours, &much, &[], soon()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // What is in the socket would be read for long.
        rustix::net::shutdown(&ours, rustix::net::Shutdown::Both).unwrap();
        drop(ours);
        drop(reader);
    }
}
