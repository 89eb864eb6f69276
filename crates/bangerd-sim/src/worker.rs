//! An image worker that misbehaves, for tests of its confinement.
//!
//! `BANGER_TEST_WORKER=FOLDER` makes the worker of `bangerd-test`, once it is confined, try what
//! harmful code in it might. It prints a line for each attempt: its name, and `done` or the error;
//! and one for each limit.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode};

use banger_image::images::worker;
pub use banger_image::images::worker::ARGUMENT;
use rustix::process::{Resource, getrlimit};

/// The variable.
pub const SWITCH: &str = "BANGER_TEST_WORKER";

/// Runs the worker; `arguments` are those after [`worker::ARGUMENT`].
pub fn main(arguments: &[OsString]) -> ExitCode {
    let Some(folder) = std::env::var_os(SWITCH) else { return worker::main(arguments) };
    let object = arguments.first().cloned().unwrap_or_default();
    worker::main_with(arguments, || {
        for (name, result) in attempts(folder.as_ref(), object.as_ref()) {
            let result = result.map_or_else(|error| error.to_string(), |()| "done".into());
            // The test misses the line if it cannot be written.
            let _ = writeln!(io::stdout(), "{name}: {result}");
        }
        for (name, resource) in LIMITS {
            let limit = getrlimit(resource).current.unwrap_or(u64::MAX);
            let _ = writeln!(io::stdout(), "limit of {name}: {limit}");
        }
    })
}

const LIMITS: [(&str, Resource); 4] = [
    ("data", Resource::Data),
    ("files", Resource::Fsize),
    ("open files", Resource::Nofile),
    ("core dumps", Resource::Core),
];

/// `folder` has `secret` and a listening socket `socket`, `object` a file `port` with a TCP port.
/// Only the first two attempts are allowed.
fn attempts(folder: &Path, object: &Path) -> Vec<(&'static str, io::Result<()>)> {
    let at = |name: &str| folder.join(name);
    let own = object.join("own");
    let secret = at("secret");
    let parent = rustix::process::getppid();
    let of_parent = |file: &str| {
        let pid = parent.map_or(1, |pid| pid.as_raw_nonzero().get());
        File::open(format!("/proc/{pid}/{file}")).map(drop)
    };
    let mut all = vec![
        ("write its own file", fs::write(&own, "#!/bin/sh\n")),
        ("remove its own file", fs::remove_file(&own)),
        ("read a file of the user", fs::read(&secret).map(drop)),
        ("read a file of the host", fs::read("/etc/passwd").map(drop)),
        ("list a folder", fs::read_dir(folder).map(drop)),
        ("create a file", File::create_new(at("new")).map(drop)),
        ("change a file", OpenOptions::new().append(true).open(&secret).map(drop)),
        ("make a folder", fs::create_dir(at("folder"))),
        ("remove a file", fs::remove_file(&secret)),
        ("rename a file", fs::rename(&secret, object.join("secret"))),
        ("link a file", fs::hard_link(&secret, object.join("link"))),
        ("make a symlink", symlink(&secret, object.join("symlink"))),
        ("change a mode", fs::set_permissions(&secret, fs::Permissions::from_mode(0o777))),
        ("read the environment of the daemon", of_parent("environ")),
        ("read the memory of the daemon", of_parent("mem")),
        ("run a shell", Command::new("/bin/sh").arg("-c").arg("exit").status().map(drop)),
        ("connect to a Unix socket", UnixStream::connect(at("socket")).map(drop)),
        ("send a datagram", datagram()),
    ];
    let port = fs::read_to_string(object.join("port")).unwrap_or_default();
    let address = ("127.0.0.1", port.trim().parse().unwrap_or(0));
    all.push(("connect to a TCP port", TcpStream::connect(address).map(drop)));
    let mut program = OpenOptions::new();
    let program = program.write(true).create(true).mode(0o700).open(&own);
    let program = program.and_then(|mut file| file.write_all(b"#!/bin/sh\n"));
    let run = program.and_then(|()| Command::new(&own).status().map(drop));
    all.push(("run a program of its own", run));
    all
}

fn datagram() -> io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.send_to(b"x", "127.0.0.1:9").map(drop)
}
