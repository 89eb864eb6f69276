//! The socket for an init's notification that it has booted (sd_notify(3)).
//!
//! systemd as process 1 sends `READY=1` to `$NOTIFY_SOCKET` when its first transaction is finished,
//! as it does for the manager of a container. The address is in the abstract name space: no file
//! system of the image is involved, and the socket exists before init does.
//!
//! systemd goes on sending: two messages for each reload of its units. The socket holds ten
//! (net.unix.max_dgram_qlen when it was made), and then systemd waits. So it is read for ever.

use std::io;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix,
    SocketFlags, SocketType, bind, recvmsg, socket_with,
};
use rustix::process::Pid;

/// Abstract name of the socket.
const NAME: &str = "banger/init";

/// Environment variable that names it, and its value: `@` stands for the zero byte of the name.
pub const VARIABLE: (&str, &str) = ("NOTIFY_SOCKET", "@banger/init");

/// Longest message that is read, in bytes; systemd's own limit is the same.
const MESSAGE_MAX: usize = 4096;

/// The socket, bound.
#[derive(Debug)]
pub struct NotifySocket(OwnedFd);

impl NotifySocket {
    /// Binds it.
    ///
    /// # Errors
    /// As socket(2), bind(2).
    pub fn bind() -> io::Result<Self> {
        Self::bind_as(NAME)
    }

    fn bind_as(name: &str) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        set_socket_passcred(&socket, true)?;
        bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        Ok(Self(socket))
    }

    /// Reads all messages from now on, in a thread; the receiver gets a value when process `from`
    /// says that it is ready. Messages of other processes are ignored: every program of the guest
    /// can send some.
    ///
    /// # Errors
    /// No resources for a thread.
    pub fn listen(self, from: Pid) -> io::Result<Receiver<()>> {
        let (sender, receiver) = mpsc::channel();
        let read = move || {
            while self.wait(from).is_ok() {
                // Nobody waits for it after the boot.
                let _ = sender.send(());
            }
        };
        thread::Builder::new().name("notify".into()).spawn(read)?;
        Ok(receiver)
    }

    /// Waits for a message of process `from` that says that it is ready.
    fn wait(&self, from: Pid) -> io::Result<()> {
        let mut message = [0; MESSAGE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        loop {
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut message)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let length = match recvmsg(&self.0, &mut parts, &mut ancillary, flags) {
                Ok(received) => received.bytes,
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let sender = ancillary.drain().find_map(|part| match part {
                RecvAncillaryMessage::ScmCredentials(credentials) => Some(credentials.pid),
                _ => None,
            });
            let text = message.get(..length).unwrap_or_default();
            if sender == Some(from) && says_ready(text) {
                return Ok(());
            }
        }
    }
}

fn says_ready(message: &[u8]) -> bool {
    message.split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_init_itself_can_say_ready() {
        let name = format!("banger/test-{}", std::process::id());
        let socket = NotifySocket::bind_as(&name).unwrap();
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        let send = |text: &str| sender.send_to_addr(text.as_bytes(), &address).unwrap();
        let (soon, later) = (Duration::from_millis(20), Duration::from_secs(5));
        let me = socket.listen(rustix::process::getpid()).unwrap();
        send("STATUS=Starting\nXREADY=1");
        assert!(me.recv_timeout(soon).is_err());
        send("STATUS=x\nREADY=1");
        me.recv_timeout(later).unwrap();
        let other = format!("{name}-other");
        let init = NotifySocket::bind_as(&other).unwrap().listen(Pid::INIT).unwrap();
        let address = SocketAddr::from_abstract_name(other.as_bytes()).unwrap();
        sender.send_to_addr(b"READY=1\nSTATUS=Startup finished in 1s.", &address).unwrap();
        assert!(init.recv_timeout(soon).is_err());
        // The sender never waits, whether or not anybody still waits for it.
        sender.set_write_timeout(Some(later)).unwrap();
        drop(me);
        (0..1000).for_each(|_| assert!(send("RELOADING=1") > 0));
        (0..1000).for_each(|_| assert!(send("READY=1") > 0));
    }
}
