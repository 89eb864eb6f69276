//! The helper as a program with several users: the tests run as root, and each user is a thread
//! with the credentials of that uid.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use banger_root::protocol::{Answer, Request};
use banger_root::{Kind, RootError, wire};
use rustix::fs::Mode;
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_res_uid};

const FIRST: u32 = 61_001;
const SECOND: u32 = 61_002;
const STRANGER: u32 = 61_003;

/// A running helper with its own socket; killed when dropped.
struct Helper {
    folder: tempfile::TempDir,
    child: Child,
}

fn serve(socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_banger-root"));
    command.arg("serve").args(["--socket".as_ref(), socket.as_os_str()]);
    command.args(["--owner", &FIRST.to_string(), "--owner", &SECOND.to_string()]);
    command
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

impl Helper {
    fn start() -> Self {
        let folder = folder();
        // The mode of the socket must not depend on an administrator's umask.
        let before = rustix::process::umask(Mode::from_bits_truncate(0o077));
        let child = serve(&folder.path().join("s")).spawn().unwrap();
        rustix::process::umask(before);
        let helper = Self { folder, child };
        let deadline = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(helper.socket()).is_err() {
            assert!(Instant::now() < deadline, "the helper does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        helper
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Runs a function with the credentials of a user, in its own thread: the kernel keeps
/// credentials(7) per thread.
fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            set_thread_groups(&[]).unwrap();
            set_thread_gid(rustix::process::Gid::from_raw(uid)).unwrap();
            let uid = rustix::process::Uid::from_raw(uid);
            set_thread_res_uid(uid, uid, uid).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

fn hello(socket: &Path) -> Result<Answer, RootError> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let stream = UnixStream::connect(socket).unwrap();
    // A user that is not served may get the answer before the request is sent.
    let _ = wire::send(&stream, &Request::Hello, &[], deadline);
    wire::receive::<Result<Answer, RootError>>(&stream, deadline).unwrap().unwrap().0
}

fn is_open(mut stream: &UnixStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    stream.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: only root may become other users");
    }
    root
}

#[test]
fn owners_are_served_and_other_users_are_refused() {
    if !is_root() {
        return;
    }
    let helper = Helper::start();
    let socket = helper.socket();
    for uid in [FIRST, SECOND] {
        assert!(matches!(as_user(uid, || hello(&socket)), Ok(Answer::Hello(_))), "{uid}");
    }
    assert!(matches!(hello(&socket), Ok(Answer::Hello(_))), "root");
    let refused = as_user(STRANGER, || hello(&socket)).unwrap_err();
    assert_eq!(refused.kind, Kind::Refused);
    assert!(refused.message.contains("61003"), "{refused}");
}

#[test]
fn slow_connections_of_one_user_do_not_keep_others_out() {
    if !is_root() {
        return;
    }
    let helper = Helper::start();
    let socket = helper.socket();
    // Half of a request each, on more connections than a user has slots.
    let slow: Vec<UnixStream> = as_user(FIRST, || {
        let connect = |_| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.write_all(b"{\"request\"").unwrap();
            stream
        };
        (0..100).map(connect).collect()
    });
    assert!(matches!(as_user(SECOND, || hello(&socket)), Ok(Answer::Hello(_))));
    assert!(matches!(hello(&socket), Ok(Answer::Hello(_))), "root");
    assert!(slow.iter().all(is_open), "the others were served before the slow ones ended");
    drop(slow);
    // The user is served as soon as its slow connections end.
    assert!(matches!(as_user(FIRST, || hello(&socket)), Ok(Answer::Hello(_))));
}

#[test]
fn connections_of_one_user_without_end_are_refused_at_a_limit() {
    if !is_root() {
        return;
    }
    let helper = Helper::start();
    let socket = helper.socket();
    let (refused, _all) = as_user(FIRST, || {
        let mut all = Vec::new();
        for _ in 0..400 {
            all.push(UnixStream::connect(&socket).unwrap());
        }
        // The last connection exceeds the limit, so it is answered without a request.
        let mut line = String::new();
        BufReader::new(all.last().unwrap()).read_line(&mut line).unwrap();
        (line, all)
    });
    assert!(refused.contains("\"busy\""), "{refused}");
    assert!(matches!(as_user(SECOND, || hello(&socket)), Ok(Answer::Hello(_))));
}

fn failure(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(status.code(), Some(1));
    String::from_utf8(stderr).unwrap()
}

#[test]
fn a_socket_in_use_and_other_files_are_not_replaced() {
    if !is_root() {
        return;
    }
    let helper = Helper::start();
    let stderr = failure(&mut serve(&helper.socket()));
    assert!(stderr.contains("another process listens on"), "{stderr}");
    assert!(matches!(hello(&helper.socket()), Ok(Answer::Hello(_))));
    let folder = folder();
    let file = folder.path().join("file");
    std::fs::write(&file, "kept").unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(helper.socket(), &link).unwrap();
    for path in [&file, &link] {
        let stderr = failure(&mut serve(path));
        assert!(stderr.contains("is not a socket"), "{stderr}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    // The socket of a killed helper is replaced.
    let left = folder.path().join("left");
    drop(UnixListener::bind(&left).unwrap());
    let mut child = serve(&left).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while UnixStream::connect(&left).is_err() {
        assert!(Instant::now() < deadline, "a socket without a listener is replaced");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
