//! One line of JSON each way, with descriptors beside its first bytes.

use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use banger_sys::scm::{recv_with_fds, send_with_fds};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest line in bytes: the story of a VM with the ends of two logs is the longest there is.
pub const MAX_LINE: usize = 256 * 1024;

/// Sends a message.
///
/// # Errors
/// sendmsg(2).
pub fn send(
    stream: &UnixStream,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let (first, rest) = line.split_at(1);
    // A descriptor goes with one byte, so that however the rest is cut it arrives once.
    send_with_fds(stream, first, fds)?;
    io::Write::write_all(&mut &*stream, rest)
}

/// Receives a message; nothing where the other end closed instead.
///
/// # Errors
/// recvmsg(2); a line that is too long, cut, or not what was expected.
pub fn receive<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut line = vec![0; 1];
    let (count, fds) = recv_with_fds(stream, &mut line)?;
    if count == 0 {
        return Ok(None);
    }
    let mut piece = [0; 4096];
    let mut reader = stream;
    while line.last() != Some(&b'\n') {
        if line.len() > MAX_LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
        }
        match reader.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => line.extend_from_slice(&piece[..count]),
        }
    }
    Ok(Some((decode(&line)?, fds)))
}

/// Reads a message from its line.
///
/// # Errors
/// It is not what was expected.
pub fn decode<T: DeserializeOwned>(line: &[u8]) -> io::Result<T> {
    serde_json::from_slice(line)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}
