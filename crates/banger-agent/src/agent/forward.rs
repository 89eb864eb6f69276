//! `POST /forward`: sockets of the guest whose connections the host serves.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use banger_agent_proto::forward::MAX_WAITING;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::http::{Refusal, Request};
use crate::users::User;

/// Folder of the sockets.
const FOLDER: &str = "/run/banger-forward";

/// A connection that waits to be taken.
struct Waiting {
    socket: u64,
    number: u64,
    stream: UnixStream,
}

/// The sockets.
#[derive(Default)]
pub struct Forwards {
    /// Of sockets and connections.
    last: AtomicU64,
    waiting: Mutex<Vec<Waiting>>,
}

impl Forwards {
    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Makes a socket for this user.
    ///
    /// # Errors
    /// mkdir(2), bind(2), chown(2).
    pub fn open(&self, user: &User) -> Result<Socket, Refusal> {
        self.open_in(Path::new(FOLDER), user)
            .map_err(|error| Refusal::new(500, format!("cannot make a socket: {error}")))
    }

    fn open_in(&self, folder: &Path, user: &User) -> io::Result<Socket> {
        DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        let number = self.next();
        // An earlier agent of this boot had another process id.
        let own = folder.join(format!("{}-{number}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&own)?;
        let path = own.join("agent.sock");
        let listener = UnixListener::bind(&path)?;
        for path in [&path, &own] {
            chown(path, Some(user.uid), Some(user.gid))?;
        }
        Ok(Socket { number, folder: own, path, listener })
    }

    /// Tells the client the path, and the number of each connection, until it closes its own.
    ///
    /// # Errors
    /// The client's; poll(2).
    pub fn serve(&self, client: OwnedFd, socket: &Socket) -> io::Result<()> {
        for direction in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&client, direction, None)?;
        }
        let mut client = File::from(client);
        writeln!(client, "{}", socket.path.display())?;
        let served = self.accept_all(&mut client, socket);
        self.waiting().retain(|one| one.socket != socket.number);
        served
    }

    fn accept_all(&self, client: &mut File, socket: &Socket) -> io::Result<()> {
        loop {
            let mut ready =
                [PollFd::new(client, PollFlags::IN), PollFd::new(&socket.listener, PollFlags::IN)];
            match poll(&mut ready, None) {
                Err(Errno::INTR) => continue,
                polled => polled?,
            };
            // The client sends nothing: this is its end.
            if !ready[0].revents().is_empty() {
                return Ok(());
            }
            let (stream, _) = socket.listener.accept()?;
            let number = self.next();
            {
                let mut waiting = self.waiting();
                let same = waiting.iter().filter(|one| one.socket == socket.number).count();
                if same >= MAX_WAITING {
                    continue;
                }
                waiting.push(Waiting { socket: socket.number, number, stream });
            }
            writeln!(client, "{number}")?;
        }
    }

    /// Takes the connection that the request names.
    ///
    /// # Errors
    /// There is none.
    pub fn take(&self, request: &Request) -> Result<UnixStream, Refusal> {
        let wanted = request.parameter("number").unwrap_or_default();
        let wanted: Option<u64> = std::str::from_utf8(&wanted).ok().and_then(|n| n.parse().ok());
        let mut waiting = self.waiting();
        let place = waiting.iter().position(|one| Some(one.number) == wanted);
        let place = place.ok_or_else(|| Refusal::new(404, "there is no such connection"))?;
        Ok(waiting.swap_remove(place).stream)
    }
}

/// A socket, removed when it is dropped.
pub struct Socket {
    number: u64,
    folder: PathBuf,
    path: PathBuf,
    listener: UnixListener,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_dir(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::os::unix::fs::MetadataExt as _;
    use std::sync::Arc;

    use super::*;
    use crate::agent::http::BodyKind;

    fn me() -> User {
        User {
            name: "me".into(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: Vec::new(),
            home: "/".into(),
            shell: "/bin/sh".into(),
        }
    }

    fn request(number: &str) -> Request {
        Request {
            method: "POST".into(),
            path: "/forward/take".into(),
            query: format!("number={number}"),
            body: BodyKind::Sized(0),
            upgrade: None,
            close: false,
            expects_continue: false,
        }
    }

    #[test]
    fn connections_are_told_and_taken_until_the_client_ends() {
        let folder = tempfile::tempdir().unwrap();
        let forwards = Arc::new(Forwards::default());
        let socket = forwards.open_in(folder.path(), &me()).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let serving = forwards.clone();
        let server = std::thread::spawn(move || serving.serve(theirs.into(), &socket));
        let mut lines = BufReader::new(ours.try_clone().unwrap()).lines();
        let path = PathBuf::from(lines.next().unwrap().unwrap());
        assert_eq!(path.parent().unwrap().metadata().unwrap().mode() & 0o7777, 0o700);
        let mut first = UnixStream::connect(&path).unwrap();
        let first_number = lines.next().unwrap().unwrap();
        let _second = UnixStream::connect(&path).unwrap();
        let second_number = lines.next().unwrap().unwrap();
        assert_ne!(first_number, second_number);
        let mut taken = forwards.take(&request(&first_number)).ok().unwrap();
        first.write_all(b"question").unwrap();
        let mut question = [0; 8];
        taken.read_exact(&mut question).unwrap();
        assert_eq!(&question, b"question");
        for gone in [first_number.as_str(), "0", "x", ""] {
            assert_eq!(forwards.take(&request(gone)).err().unwrap().status, 404, "{gone}");
        }
        // More than are taken: they are closed, and nothing is told about them.
        let many: Vec<UnixStream> =
            (0..MAX_WAITING + 4).map(|_| UnixStream::connect(&path).unwrap()).collect();
        for _ in 1..MAX_WAITING {
            lines.next().unwrap().unwrap();
        }
        let mut last = many.last().unwrap();
        assert_eq!(last.read(&mut [0]).unwrap(), 0);
        drop((lines, ours));
        server.join().unwrap().unwrap();
        assert!(!path.exists() && !path.parent().unwrap().exists());
        assert_eq!(forwards.take(&request(&second_number)).err().unwrap().status, 404);
        // A taken one goes on.
        taken.write_all(b"answer").unwrap();
        let mut answer = [0; 6];
        first.read_exact(&mut answer).unwrap();
    }
}
