//! Sessions with real commands over a socket pair, as this machine's own user.

use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use banger_agent_proto::exec::{ExecRequest, WindowSize};

use super::*;
use crate::agent::exec::{self, Started};

struct Client {
    stream: UnixStream,
    decoder: Decoder,
    session: JoinHandle<io::Result<()>>,
}

fn defaults() -> exec::Defaults {
    exec::Defaults {
        env: std::collections::BTreeMap::new(),
        groups: crate::agent::cgroup::Sessions::new(None),
    }
}

fn request(script: &str) -> ExecRequest {
    ExecRequest {
        argv: ["/bin/sh", "-c", script].map(Into::into).to_vec(),
        cwd: Some("/".into()),
        user: Some(rustix::process::geteuid().as_raw().to_string()),
        stdin: true,
        ..ExecRequest::default()
    }
}

impl Client {
    /// Starting a command changes its groups, which only the superuser may.
    fn start(request: &ExecRequest) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests must run as root");
        let Started::Running(running) = exec::start(request, &defaults()).unwrap() else {
            panic!("{request:?} did not start");
        };
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let theirs = exec::nonblocking(theirs.into()).unwrap();
        let session = thread::spawn(move || run(theirs, &[], running));
        Self { stream: ours, decoder: Decoder::default(), session }
    }

    fn send(&mut self, frame: &Frame) {
        self.stream.write_all(&frame.to_bytes()).unwrap();
    }

    fn next(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return frame;
            }
            let mut piece = [0; 4096];
            let length = self.stream.read(&mut piece).expect("nothing came");
            assert!(length > 0, "the session ended without an exit frame");
            self.decoder.push(&piece[..length]);
        }
    }

    fn next_but_credit(&mut self) -> Frame {
        loop {
            match self.next() {
                Frame::Credit(_) => {}
                other => return other,
            }
        }
    }

    /// Reads until `text` has come on stdout.
    fn expect(&mut self, text: &str) {
        let mut seen = String::new();
        while !seen.contains(text) {
            match self.next() {
                Frame::Stdout(data) => seen.push_str(&String::from_utf8_lossy(&data)),
                Frame::Credit(_) => {}
                other => panic!("{other:?} after {seen:?}, waiting for {text:?}"),
            }
        }
    }

    /// Everything until the end: stdout, stderr, status.
    fn finish(mut self) -> (String, String, ExitStatus) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            match self.next() {
                Frame::Stdout(data) => out.extend(data),
                Frame::Stderr(data) => err.extend(data),
                Frame::Credit(_) => {}
                Frame::Exit(status) => {
                    self.session.join().unwrap().unwrap();
                    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                    return (text(out), text(err), status);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn exited(code: u8) -> ExitStatus {
    ExitStatus::Exited { code }
}

#[test]
fn streams_are_apart_and_the_code_comes_last() {
    let client = Client::start(&request("echo out; echo err >&2; exit 7"));
    assert_eq!(client.finish(), ("out\n".into(), "err\n".into(), exited(7)));
}

#[test]
fn input_comes_back_and_ends() {
    let mut client = Client::start(&request("cat; echo end"));
    client.send(&Frame::Stdin(b"hello ".to_vec()));
    client.send(&Frame::Stdin(b"there\n".to_vec()));
    client.send(&Frame::StdinEnd);
    assert_eq!(client.finish(), ("hello there\nend\n".into(), String::new(), exited(0)));
}

#[test]
fn much_input_flows_within_its_credit() {
    const TOTAL: usize = 8 * 1024 * 1024;
    let mut client = Client::start(&request("cat"));
    let mut writer = client.stream.try_clone().unwrap();
    let (credit, more) = std::sync::mpsc::channel::<u32>();
    let sender = thread::spawn(move || {
        let (mut window, mut sent) = (STDIN_WINDOW as usize, 0usize);
        while sent < TOTAL {
            while window == 0 {
                window += more.recv().unwrap() as usize;
            }
            let length = window.min(MAX_PAYLOAD - 3).min(TOTAL - sent);
            let data = (sent..sent + length).map(|at| (at % 251) as u8).collect();
            writer.write_all(&Frame::Stdin(data).to_bytes()).unwrap();
            (window, sent) = (window - length, sent + length);
        }
        writer.write_all(&Frame::StdinEnd.to_bytes()).unwrap();
    });
    let mut received = 0;
    loop {
        match client.next() {
            Frame::Stdout(data) => {
                for byte in data {
                    assert_eq!(byte, (received % 251) as u8, "at {received}");
                    received += 1;
                }
            }
            // The sender may be done already.
            Frame::Credit(bytes) => drop(credit.send(bytes)),
            Frame::Exit(status) => {
                assert_eq!((received, status), (TOTAL, exited(0)));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    sender.join().unwrap();
}

#[test]
fn a_client_that_overdraws_is_hung_up_on() {
    let mut client = Client::start(&request("sleep 1000"));
    for _ in 0..32 {
        // The agent may close in the middle.
        let _ = client.stream.write_all(&Frame::Stdin(vec![0; MAX_PAYLOAD]).to_bytes());
    }
    client.session.join().unwrap().unwrap();
}

#[test]
fn signals_reach_the_whole_group() {
    let mut client = Client::start(&request("sleep 1000 & echo ready; wait"));
    client.expect("ready");
    client.send(&Frame::Signal(libc::SIGTERM as u8));
    let (.., status) = client.finish();
    assert_eq!(status.shell_code(), 143);
}

#[test]
fn a_command_does_not_inherit_blocked_signals() {
    // This thread's mask only, and every test has a thread of its own.
    crate::sys::signal::SignalSet::block(&[libc::SIGTERM]).unwrap();
    let mut asked = request("");
    asked.argv = ["sleep", "20"].map(Into::into).to_vec();
    let mut client = Client::start(&asked);
    client.send(&Frame::Signal(libc::SIGTERM as u8));
    assert_eq!(client.finish().2, ExitStatus::Signaled { signal: 15 });
}

#[test]
fn invalid_signals_are_ignored() {
    let mut client = Client::start(&request("read line; exit 3"));
    for number in [0, 65, 255] {
        client.send(&Frame::Signal(number));
    }
    client.send(&Frame::Stdin(b"\n".to_vec()));
    assert_eq!(client.finish().2, exited(3));
}

#[test]
fn background_processes_do_not_hold_the_session() {
    let client = Client::start(&request("sleep 600 & echo $!"));
    let (out, _, status) = client.finish();
    assert_eq!(status, exited(0));
    let pid = rustix::process::Pid::from_raw(out.trim().parse().unwrap()).unwrap();
    // The session ended while the process runs, so there is one to kill.
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn output_shortly_after_the_end_still_comes() {
    let client = Client::start(&request("(sleep 0.1; echo late) & echo early"));
    assert_eq!(client.finish().0, "early\nlate\n");
}

#[test]
fn a_gone_client_ends_its_command_only() {
    let mut client = Client::start(&request("sleep 1000 & echo $$; wait"));
    let pid = match client.next_but_credit() {
        Frame::Stdout(data) => String::from_utf8(data).unwrap().trim().to_owned(),
        other => panic!("{other:?}"),
    };
    let Client { stream, session, .. } = client;
    drop(stream);
    session.join().unwrap().unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_terminal_has_a_size_that_changes() {
    let mut asked = request(
        "stty size; trap 'stty size; exit 9' WINCH; echo ready; while :; do sleep 0.05; done",
    );
    asked.tty = Some(WindowSize { rows: 33, cols: 101 });
    let mut client = Client::start(&asked);
    client.expect("33 101\r\nready");
    client.send(&Frame::Resize(WindowSize { rows: 12, cols: 34 }));
    let (out, err, status) = client.finish();
    assert!(out.ends_with("12 34\r\n"), "{out:?}");
    assert_eq!((err.as_str(), status), ("", exited(9)));
}

#[test]
fn an_interrupt_typed_on_a_terminal_reaches_the_command() {
    // A trap, because a shell that is about to fork may otherwise lose the signal.
    let script = "trap 'exit 130' INT; echo ready; while :; do sleep 0.05; done";
    let mut asked = request(script);
    asked.tty = Some(WindowSize { rows: 24, cols: 80 });
    let mut client = Client::start(&asked);
    client.expect("ready");
    client.send(&Frame::Stdin(vec![3]));
    assert_eq!(client.finish().2.shell_code(), 130);
}

#[test]
fn end_of_input_on_a_terminal() {
    let mut asked = request("cat >/dev/null; echo end");
    asked.tty = Some(WindowSize { rows: 24, cols: 80 });
    let mut client = Client::start(&asked);
    client.send(&Frame::Stdin(b"no line end".to_vec()));
    client.send(&Frame::StdinEnd);
    let (out, _, status) = client.finish();
    assert!(out.ends_with("end\r\n"), "{out:?}");
    assert_eq!(status, exited(0));
}

#[test]
fn a_command_that_closes_its_input_does_not_block_the_client() {
    let mut client = Client::start(&request("exec 0<&-; echo closed; sleep 0.2; exit 4"));
    client.expect("closed");
    client.send(&Frame::Stdin(vec![0; MAX_PAYLOAD]));
    client.send(&Frame::StdinEnd);
    assert_eq!(client.finish().2, exited(4));
}

#[test]
fn commands_that_cannot_run() {
    for (program, code) in [("no-such-program", 127), ("/etc/passwd", 126), ("/", 126)] {
        let mut asked = request("");
        asked.argv = vec![program.into()];
        let Started::Failed(status) = exec::start(&asked, &defaults()).unwrap() else {
            panic!("{program} started");
        };
        assert_eq!(status.shell_code(), code, "{status:?}");
        let (ours, theirs) = UnixStream::pair().unwrap();
        not_started(theirs.into(), status.clone()).unwrap();
        let mut bytes = Vec::new();
        (&ours).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, Frame::Exit(status).to_bytes());
    }
}

#[test]
fn arguments_and_environment_may_be_any_bytes() {
    let mut asked = request("printf '%s|%s' \"$1\" \"$V\"; cd \"$2\" && pwd");
    let folder = tempfile::tempdir().unwrap();
    let odd = [folder.path().as_os_str().as_encoded_bytes(), b"/caf\xe9"].concat();
    std::fs::create_dir(std::path::Path::new(std::ffi::OsStr::from_bytes(&odd))).unwrap();
    asked.argv.extend([b"sh".to_vec(), b"a\xff\x01".to_vec(), odd.clone()].map(Into::into));
    asked.env.push((b"V".to_vec().into(), b"v\xfe".to_vec().into()));
    asked.cwd = Some(odd.clone().into());
    let mut client = Client::start(&asked);
    let mut out = Vec::new();
    while let Frame::Stdout(data) = client.next_but_credit() {
        out.extend(data);
    }
    assert_eq!(out, [b"a\xff\x01|v\xfe", odd.as_slice(), b"\n"].concat());
}

#[test]
fn arguments_up_to_the_limit_of_execve_arrive() {
    let mut asked = request("echo $#");
    asked.argv.push("sh".into());
    asked.argv.extend(std::iter::repeat_n("a".repeat(120_000).into(), 10));
    assert_eq!(Client::start(&asked).finish().0, "10\n");
    // One argument over MAX_ARG_STRLEN of execve(2).
    asked.argv.push("a".repeat(131_072).into());
    let Started::Failed(status) = exec::start(&asked, &defaults()).unwrap() else {
        panic!("execve took too long an argument");
    };
    assert_eq!(status.shell_code(), 126);
    assert!(format!("{status:?}").contains("too long"), "{status:?}");
}

#[test]
fn clients_that_know_of_it_get_the_larger_window() {
    let mut client = Client::start(&request("cat >/dev/null"));
    assert_eq!(client.next(), Frame::Credit(STDIN_WINDOW_MAX - STDIN_WINDOW));
    client.send(&Frame::StdinEnd);
    assert_eq!(client.finish().2, exited(0));
}
