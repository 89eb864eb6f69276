//! Passing file descriptors over Unix sockets: SCM_RIGHTS, unix(7) and cmsg(3).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Maximum number of descriptors in one message.
pub const MAX_FDS: usize = 8;

/// Sends bytes, with one descriptor attached to the first byte.
///
/// # Errors
/// sendmsg(2); a partial write.
pub fn send_with_fd(socket: impl AsFd, bytes: &[u8], fd: BorrowedFd<'_>) -> io::Result<()> {
    send_with_fds(socket, bytes, &[fd])
}

/// Sends bytes, with up to [`MAX_FDS`] descriptors attached to the first byte.
///
/// # Errors
/// sendmsg(2); a partial write; too many descriptors.
pub fn send_with_fds(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    // Alignment may leave space for one more.
    let fits = fds.is_empty()
        || fds.len() <= MAX_FDS && control.push(SendAncillaryMessage::ScmRights(fds));
    if !fits {
        return Err(io::Error::other("too many descriptors"));
    }
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives bytes and the descriptor attached to them, close-on-exec.
///
/// Returns the number of bytes, 0 at the end.
///
/// # Errors
/// recvmsg(2); more than one descriptor, or truncated control data.
pub fn recv_with_fd(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let (count, mut fds) = recv_with_fds(socket, buffer)?;
    if fds.len() > 1 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "unexpected descriptors"));
    }
    Ok((count, fds.pop()))
}

/// Receives bytes and the descriptors attached to them, close-on-exec.
///
/// Returns the number of bytes, 0 at the end.
///
/// # Errors
/// recvmsg(2); more than [`MAX_FDS`] descriptors.
pub fn recv_with_fds(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS + 1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(buffer)];
    let received = recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) || fds.len() > MAX_FDS {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "unexpected descriptors"));
    }
    Ok((received.bytes, fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_descriptor_arrives_and_works() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut reader, writer) = UnixStream::pair().unwrap();
        send_with_fd(&ours, b"line\n", writer.as_fd()).unwrap();
        drop(writer);
        let mut buffer = [0; 64];
        let (count, fd) = recv_with_fd(&theirs, &mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"line\n");
        File::from(fd.unwrap()).write_all(b"x").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn more_than_max_fds_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let fds = [ours.as_fd(); MAX_FDS];
        send_with_fds(&ours, b"x", &fds).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(recv_with_fds(&theirs, &mut buffer).unwrap().1.len(), MAX_FDS);
        send_with_fds(&ours, b"x", &fds).unwrap();
        assert!(recv_with_fd(&theirs, &mut buffer).is_err());
        assert!(send_with_fds(&ours, b"x", &[ours.as_fd(); MAX_FDS + 1]).is_err());
    }

    #[test]
    fn bytes_without_a_descriptor_and_the_end() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"x").unwrap();
        drop(ours);
        let mut buffer = [0; 8];
        assert!(matches!(recv_with_fd(&theirs, &mut buffer), Ok((1, None))));
        assert!(matches!(recv_with_fd(&theirs, &mut buffer), Ok((0, None))));
    }
}
