//! Messages between daemon and helper: one line of JSON in each direction, with descriptors
//! attached to its first byte, and one deadline for the whole message.

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

/// Maximum length of a line in bytes. The longest message is the status of a VM with two log tails.
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
    // Descriptors are attached to a single byte, so that they are sent once even if the rest is
    // sent in parts.
    retry(stream, PollFlags::OUT, deadline, || send_with_fds(stream, first, fds))?;
    while !rest.is_empty() {
        let sent = retry(stream, PollFlags::OUT, deadline, || {
            Ok(rustix::net::send(stream, rest, SendFlags::NOSIGNAL)?)
        })?;
        rest = &rest[sent..];
    }
    Ok(())
}

/// Receives a message; `None` if the peer closed the connection. The stream becomes non-blocking.
///
/// # Errors
/// `TimedOut` at the deadline; a line that is too long, truncated, followed by more bytes, or not
/// of the expected form; recvmsg(2).
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

/// Parses a line.
///
/// # Errors
/// `InvalidData` if it is not of the expected form.
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
    fn receiving_a_slow_message_times_out() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        // Each byte arrives within the limit of a single read.
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
    fn sending_to_a_slow_reader_times_out() {
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
        // The bytes in the socket buffer would last long.
        rustix::net::shutdown(&ours, rustix::net::Shutdown::Both).unwrap();
        drop(ours);
        drop(reader);
    }
}
