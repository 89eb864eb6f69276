//! The session socket: connections to agents, and VMs that live as long as somebody holds them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use banger_agent_proto::exec::{ExecRequest, ExitStatus, WindowSize};
use banger_agent_proto::frame::{Decoder, Frame};
use banger_api::session::MAX_LINE;
use serde_json::{Value, json};

use crate::support::{Daemon, Home, PATIENCE};

/// Sends one line and reads the answer, with the descriptor where one came.
fn ask(daemon: &Daemon, line: &[u8]) -> (Value, Option<UnixStream>, UnixStream) {
    let mut stream = daemon.connect_session();
    // What the daemon has refused already need not arrive whole.
    let _ = stream.write_all(line);
    let mut buffer = vec![0; MAX_LINE];
    let (count, fd) = banger_sys::scm::recv_with_fd(&stream, &mut buffer).unwrap();
    let agent = fd.map(UnixStream::from);
    if let Some(agent) = &agent {
        agent.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let line = buffer[..count].strip_suffix(b"\n").expect("a whole line");
    (serde_json::from_slice(line).unwrap(), agent, stream)
}

fn want(want: &str, vm: &str) -> Vec<u8> {
    format!("{}\n", json!({ "want": want, "vm": vm })).into_bytes()
}

/// Holds a VM as long as what is returned lives.
pub fn hold(daemon: &Daemon, vm: &str) -> UnixStream {
    let (answer, agent, stream) = ask(daemon, &want("hold", vm));
    assert_eq!(answer, json!({ "answer": "held" }));
    assert!(agent.is_none());
    stream
}

fn agent(daemon: &Daemon, vm: &str) -> UnixStream {
    let (answer, agent, _) = ask(daemon, &want("agent", vm));
    assert_eq!(answer, json!({ "answer": "connected" }));
    agent.unwrap()
}

fn head(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

fn request(argv: &[&str]) -> ExecRequest {
    ExecRequest { argv: argv.iter().map(|word| (*word).into()).collect(), ..ExecRequest::default() }
}

/// A command in a guest.
struct Exec {
    stream: UnixStream,
    decoder: Decoder,
}

impl Exec {
    fn start(mut stream: UnixStream, request: &ExecRequest) -> Self {
        let body = serde_json::to_string(request).unwrap();
        let length = body.len();
        write!(
            stream,
            "POST /exec HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: banger-exec/1\r\n\
             content-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let answer = head(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        Self { stream, decoder: Decoder::default() }
    }

    fn send(&mut self, frame: &Frame) {
        self.stream.write_all(&frame.to_bytes()).unwrap();
    }

    fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece).unwrap() {
                0 => return None,
                count => self.decoder.push(&piece[..count]),
            }
        }
    }

    /// Standard output, error output, and how it ended.
    fn finish(mut self) -> (String, String, ExitStatus) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            match self.next().expect("an exit") {
                Frame::Stdout(data) => out.extend(data),
                Frame::Stderr(data) => err.extend(data),
                Frame::Credit(_) => {}
                Frame::Exit(status) => {
                    assert_eq!(self.next(), None, "nothing follows");
                    let text = |bytes| String::from_utf8(bytes).unwrap();
                    return (text(out), text(err), status);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Output until it holds this text.
    fn until(&mut self, text: &str) -> String {
        let mut out = String::new();
        while !out.contains(text) {
            match self.next().expect("more output") {
                Frame::Stdout(data) => out.push_str(&String::from_utf8(data).unwrap()),
                Frame::Credit(_) => {}
                other => panic!("{other:?} after {out:?}"),
            }
        }
        out
    }
}

fn exec(daemon: &Daemon, argv: &[&str]) -> (String, String, ExitStatus) {
    Exec::start(agent(daemon, "web"), &request(argv)).finish()
}

#[test]
fn commands_run_through_a_descriptor_of_their_own() {
    let home = Home::new();
    let daemon = home.start();
    daemon.run("web");
    let exited = |code| ExitStatus::Exited { code };
    let (out, err, status) = exec(&daemon, &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((out.as_str(), err.as_str(), status), ("out\n", "err\n", exited(7)));
    assert_eq!(exec(&daemon, &["false"]).2, exited(1));
    assert_eq!(exec(&daemon, &["sh", "-c", "kill -9 $$"]).2, ExitStatus::Signaled { signal: 9 });
    assert_eq!(exec(&daemon, &["nope"]).2.shell_code(), 127);
    assert!(exec(&daemon, &["uname", "-a"]).0.starts_with("Linux web "));
    let mut with = request(&["sh", "-c", "echo $K; pwd"]);
    with.env = vec![("K".into(), "v w".into())];
    with.cwd = Some("/tmp".into());
    let (out, ..) = Exec::start(agent(&daemon, "web"), &with).finish();
    assert_eq!(out, "v w\n/tmp\n");

    let mut health = agent(&daemon, "web");
    health.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    health.read_to_string(&mut text).unwrap();
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["boot_id"], daemon.get("/v1/vms/web").ok()["boot_id"]);
    daemon.stop();
}

#[test]
fn input_signals_and_terminals() {
    let home = Home::new();
    let daemon = home.start();
    daemon.run("web");
    let mut cat = request(&["cat"]);
    cat.stdin = true;
    let mut session = Exec::start(agent(&daemon, "web"), &cat);
    session.send(&Frame::Stdin(b"hi\n".into()));
    session.send(&Frame::Stdin(b"there".into()));
    session.send(&Frame::StdinEnd);
    assert_eq!(session.finish(), ("hi\nthere".into(), "".into(), ExitStatus::Exited { code: 0 }));

    let mut session = Exec::start(agent(&daemon, "web"), &request(&["sleep", "1000"]));
    session.send(&Frame::Signal(28));
    session.send(&Frame::Signal(15));
    assert_eq!(session.finish().2, ExitStatus::Signaled { signal: 15 });

    let mut shell = request(&[]);
    shell.stdin = true;
    shell.tty = Some(WindowSize { rows: 24, cols: 80 });
    let mut session = Exec::start(agent(&daemon, "web"), &shell);
    assert!(session.until("# ").ends_with("root@web:~# "));
    session.send(&Frame::Resize(WindowSize { rows: 50, cols: 132 }));
    session.send(&Frame::Stdin(b"stty size\r".into()));
    assert_eq!(session.until("132\r\n"), "stty size\r\n50 132\r\n");
    session.send(&Frame::Stdin(b"sleep 100\r\x03".into()));
    assert_eq!(session.finish().2, ExitStatus::Signaled { signal: 2 });
    daemon.stop();
}

#[test]
fn a_guest_that_goes_takes_its_sessions_along() {
    let home = Home::new();
    let daemon = home.start();
    daemon.run("web");
    let mut session = Exec::start(agent(&daemon, "web"), &request(&["sleep", "1000"]));
    let (_, _, status) = {
        let mut off = Exec::start(agent(&daemon, "web"), &request(&["poweroff"]));
        assert_eq!(off.next(), None, "cut");
        daemon.wait_for("web", "stopped");
        ((), (), daemon.get("/v1/vms/web").ok())
    };
    assert_eq!(status["stopped_because"], json!({ "reason": "guest_powered_off" }));
    assert_eq!(session.next(), None, "cut");
    let (refused, ..) = ask(&daemon, &want("agent", "web"));
    assert_eq!(refused["error"]["code"], "wrong_state");
    daemon.stop();
}

#[test]
fn invalid_requests_are_refused() {
    let home = Home::new();
    let daemon = home.start();
    let long = vec![b'x'; MAX_LINE + 5000];
    for (line, code, words) in [
        (&b"{}\n"[..], "bad_request", "missing field `want`"),
        (b"\n", "bad_request", "the request is invalid"),
        (b"\xff\xfe\n", "bad_request", "the request is invalid"),
        (b"{\"want\":\"fly\",\"vm\":\"x\"}\n", "bad_request", "unknown variant `fly`"),
        (b"{\"want\":\"hold\",\"vm\":\"x\",\"a\":1}\n", "bad_request", "unknown field `a`"),
        (b"{\"want\":\"agent\",\"vm\":\"x\"}\n", "not_found", "there is no VM `x`"),
        (b"{\"want\":\"hold\",\"vm\":\"x\"}\n", "not_found", "there is no VM `x`"),
        (&long, "bad_request", "longer than 65536 bytes"),
    ] {
        let (answer, agent, _) = ask(&daemon, line);
        let shown = String::from_utf8_lossy(&line[..line.len().min(40)]);
        assert_eq!(answer["answer"], "refused", "{shown}");
        assert_eq!(answer["error"]["code"], code, "{shown}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{shown}: {message}");
        assert!(agent.is_none());
    }
    // No line at all, then the end.
    let mut stream = daemon.connect_session();
    stream.write_all(b"{\"want\"").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("does not end with a newline"), "{text}");
    daemon.stop();
}

#[test]
fn a_session_bound_vm_goes_with_its_last_holder() {
    let home = Home::new();
    let daemon = home.start();
    daemon.done("/v1/vms", r#"{"name": "web", "lifetime": "session"}"#);
    let first = hold(&daemon, "web");
    let second = hold(&daemon, "web");
    drop(first);
    // Time in which a daemon that counts wrongly would have ended it.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(daemon.state("web"), "running");
    drop(second);
    daemon.wait_for("web", "gone");
    assert!(home.world().objects.is_empty());

    // One that stops goes although it is held.
    daemon.done("/v1/vms", r#"{"name": "web", "lifetime": "session"}"#);
    let held = hold(&daemon, "web");
    daemon.done("/v1/vms/web/actions", r#"{"stop": {}}"#);
    daemon.wait_for("web", "gone");
    drop(held);

    // One that nobody's session is bound to does not mind.
    daemon.run("kept");
    drop(hold(&daemon, "kept"));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(daemon.state("kept"), "running");
    daemon.stop();
}

#[test]
fn a_session_outlives_the_daemon_when_it_is_taken_up_again() {
    let home = Home::new();
    let daemon = home.start();
    daemon.done("/v1/vms", r#"{"name": "web", "lifetime": "session"}"#);
    let _held = hold(&daemon, "web");
    daemon.stop();
    let daemon = home.start();
    assert_eq!(daemon.state("web"), "running", "stopping the daemon ends no session");
    let held = hold(&daemon, "web");
    daemon.kill();
    drop(held);
    let daemon = home.start();
    let held = hold(&daemon, "web");
    // Longer than the daemon waits for holders after its start.
    std::thread::sleep(banger_engine::create::HOLDER_GRACE + Duration::from_secs(1));
    assert_eq!(daemon.state("web"), "running");
    drop(held);
    daemon.wait_for("web", "gone");
    daemon.stop();
}
