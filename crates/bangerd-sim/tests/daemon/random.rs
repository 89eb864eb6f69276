//! Random and broken requests, and clients that disconnect after every byte: the daemon keeps
//! answering and releases what they used.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use banger_api::routes;
use serde_json::{Value, json};

use crate::support::{Daemon, Home};

/// Number of random requests.
const REQUESTS: usize = 10_000;
/// Maximum growth of the daemon's memory in KiB: the log and the recorded operations are not part
/// of it.
const MAX_GROWTH_KIB: u64 = 64 << 10;
/// Limit of one request, within which the daemon answers or closes the connection.
const ANSWER: Duration = Duration::from_secs(10);

/// xorshift64*: a seed gives one sequence.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next()).unwrap() % limit
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    fn bytes(&mut self, limit: usize) -> Vec<u8> {
        (0..self.below(limit)).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

const METHODS: [&str; 9] =
    ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "FR\u{f6}B"];

const PIECES: [&str; 14] = [
    "web",
    "none",
    "debian",
    "op-000000",
    "..",
    "%2e%2e",
    "%00",
    "%ff%fe",
    "%",
    "a//b",
    "\u{e9}",
    "{vm}",
    "*",
    "0",
];

const QUERIES: [&str; 10] = [
    "",
    "",
    "",
    "?",
    "?tail=-1",
    "?tail=99999999999999999999",
    "?limit=1e9",
    "?wait=ready&timeout_ms=1",
    "?from=1:2:3",
    "?name=%00&name=x",
];

const HEADERS: [&str; 11] = [
    "",
    "",
    "",
    "connection: upgrade\r\nupgrade: banger-exec/1\r\n",
    "connection: upgrade\r\nupgrade: banger-hold/1\r\n",
    "connection: upgrade\r\nupgrade: h2c\r\n",
    "last-event-id: 18446744073709551616\r\n",
    "banger-expect-build: \u{0}\r\n",
    "expect: 100-continue\r\n",
    "content-length: -1\r\n",
    "transfer-encoding: gzip, chunked\r\n",
];

/// A path of the API, mutated.
fn path(random: &mut Random) -> String {
    // The daemon is not to be stopped.
    let known: Vec<&str> =
        routes::ALL.iter().copied().filter(|route| *route != routes::DAEMON_STOP).collect();
    let mut path = String::new();
    for (index, part) in random.pick(&known).split(['{', '}']).enumerate() {
        path.push_str(if index % 2 == 0 { part } else { random.pick(&PIECES) });
    }
    if random.one_in(5) {
        path.push('/');
        path.push_str(random.pick(&PIECES));
    }
    if random.one_in(50) {
        path.push_str(&"x".repeat(random.below(100_000)));
    }
    path + random.pick(&QUERIES)
}

/// JSON of any shape, and bytes that are none. No VM or image is made from it: `name` of each is
/// invalid, or the name is a VM that exists.
fn body(random: &mut Random) -> Vec<u8> {
    let depth = random.below(5_000);
    let valid = [
        json!({ "name": "web" }),
        json!({ "name": "web", "vcpus": u64::MAX }),
        json!({ "name": "-", "memory_mib": -1 }),
        json!({ "name": "web", "publish": vec![json!({}); 100] }),
        json!({ "stop": { "grace_ms": 1e300 } }),
        json!({ "vm": "none" }),
        json!({ "argv": ["true"], "cwd": "\u{0}" }),
        json!({ "argv": vec!["x"; 2_000] }),
        json!([1, 2, 3]),
        Value::Null,
    ];
    let mut text = match random.below(8) {
        0 => random.bytes(300),
        1 => "[".repeat(depth).into_bytes(),
        2 => "{\"name\":".repeat(depth).into_bytes(),
        3 => format!("{{\"vcpus\": {}}}", "9".repeat(depth + 1)).into_bytes(),
        4 => b"{\"name\": \"\xff\xfe\x00\"}".to_vec(),
        _ => valid[random.below(valid.len())].to_string().into_bytes(),
    };
    if random.one_in(3) {
        text.truncate(random.below(text.len() + 1));
    }
    text
}

/// A request, of which the client may send only a part.
fn request(random: &mut Random) -> Vec<u8> {
    if random.one_in(20) {
        return random.bytes(400);
    }
    let version = random.pick(&["1.1", "1.1", "1.1", "1.0", "2.0"]);
    let (method, path) = (random.pick(&METHODS), path(random));
    let mut request = format!("{method} {path} HTTP/{version}\r\nhost: x\r\n").into_bytes();
    request.extend_from_slice(random.pick(&HEADERS).as_bytes());
    let body = body(random);
    let kind = random.pick(&["application/json", "application/json", "text/plain", "\u{1}"]);
    request.extend_from_slice(format!("content-type: {kind}\r\n").as_bytes());
    match random.below(5) {
        0 => request.extend_from_slice(b"\r\n"),
        1 => {
            let pieces = random.pick(&["1\r\nx\r\n0\r\n\r\n", "zz\r\n", "ffffffffffffffff\r\nx"]);
            request.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
            request.extend_from_slice(pieces.as_bytes());
        }
        more => {
            // One in three announces more than it sends.
            let length = body.len() + usize::from(more == 2);
            request.extend_from_slice(format!("content-length: {length}\r\n\r\n").as_bytes());
            request.extend_from_slice(&body);
        }
    }
    if random.one_in(10) {
        request = request.repeat(3);
    }
    request
}

/// Reads until the daemon closes the connection, or begins a stream of events, which has no end.
fn read_answers(stream: &mut impl Read, answer: &mut Vec<u8>) -> std::io::Result<()> {
    let mut piece = vec![0; 64 << 10];
    loop {
        let count = stream.read(&mut piece)?;
        answer.extend_from_slice(&piece[..count]);
        if count == 0 || String::from_utf8_lossy(answer).contains("text/event-stream\r\n") {
            return Ok(());
        }
    }
}

/// Statuses of all answers in what the daemon sent.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let heads = text.split("HTTP/1.").skip(1);
    heads.filter_map(|head| head.get(2..5)?.parse().ok()).collect()
}

/// What the daemon holds: open descriptors, and memory in KiB.
fn held(daemon: &Daemon) -> (usize, u64) {
    let proc = format!("/proc/{}", daemon.pid());
    let descriptors = std::fs::read_dir(format!("{proc}/fd")).unwrap().count();
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (descriptors, rss.trim().trim_end_matches(" kB").parse().unwrap())
}

/// Waits until the daemon has as few descriptors as before.
fn released(daemon: &Daemon, before: usize) {
    let deadline = Instant::now() + crate::support::PATIENCE;
    while held(daemon).0 > before {
        assert!(Instant::now() < deadline, "{} descriptors, {before} before", held(daemon).0);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Lines of the daemon's log that no request may cause.
fn complaints(home: &Home) -> Vec<String> {
    let log = std::fs::read_to_string(home.file("state/log/bangerd.log")).unwrap();
    let bad = |line: &&str| line.contains("\"ERROR\"") || line.contains("panicked");
    log.lines().filter(bad).map(str::to_owned).collect()
}

#[test]
fn random_requests_change_nothing() {
    let home = Home::new();
    let daemon = home.start();
    daemon.run("web");
    let vms = daemon.get("/v1/vms").ok();
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut before = (0, 0);
    for index in 0..REQUESTS {
        // The first ones fill caches and start threads.
        if index == REQUESTS / 10 {
            before = held(&daemon);
        }
        let request = request(&mut random);
        let mut stream = daemon.connect();
        stream.set_read_timeout(Some(ANSWER)).unwrap();
        // The daemon may answer and close before it has read all.
        let _ = stream.write_all(&request);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let ended = read_answers(&mut stream, &mut answer);
        let shown = || String::from_utf8_lossy(&request[..request.len().min(400)]).into_owned();
        let timed_out = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!timed_out, "request {index} has no end: {}", shown());
        for status in statuses(&answer) {
            assert!(status < 500, "request {index} got {status}: {}", shown());
        }
    }
    let after = held(&daemon);
    assert!(after.1 <= before.1 + MAX_GROWTH_KIB, "{before:?} {after:?}");
    // Threads of the blocking pool may open a file meanwhile.
    released(&daemon, before.0);
    assert_eq!(complaints(&home), Vec::<String>::new());
    let now = daemon.get("/v1/vms").ok();
    let names = |list: &Value| -> Vec<Value> {
        list.as_array().unwrap().iter().map(|vm| vm["id"].clone()).collect()
    };
    assert_eq!(names(&now), names(&vms));
    assert_eq!(now[0]["state"], "running");
    daemon.stop();
}

#[test]
fn clients_that_disconnect_after_every_byte_leave_nothing() {
    let home = Home::new();
    let daemon = home.start();
    daemon.run("web");
    let post = |path: &str, headers: &str, body: &str| {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\n{headers}content-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        )
    };
    let exec = "connection: upgrade\r\nupgrade: banger-exec/1\r\n";
    let hold = "connection: upgrade\r\nupgrade: banger-hold/1\r\n";
    let requests = [
        post("/v1/vms", "", r#"{"name": "new", "no_start": true}"#),
        post("/v1/vms/web/actions", "", r#"{"start": {}}"#),
        post("/v1/vms/web/exec", exec, r#"{"argv": ["cat"], "stdin": true}"#),
        post("/v1/vms/web/hold", hold, ""),
        post("/v1/image-uploads?name=mine", "", "archive"),
        "GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n".into(),
        "GET /v1/daemon/logs?follow=true HTTP/1.1\r\nhost: x\r\n\r\n".into(),
    ];
    let before = held(&daemon).0;
    for request in &requests {
        for end in 0..request.len() {
            let mut stream = daemon.connect();
            stream.write_all(&request.as_bytes()[..end]).unwrap();
            drop(stream);
        }
    }
    released(&daemon, before);
    // None of the requests was complete.
    assert_eq!(daemon.get("/v1/vms").ok().as_array().unwrap().len(), 1);
    assert_eq!(daemon.get("/v1/operations").ok().as_array().unwrap().len(), 1);
    // A complete one whose client is gone is either unread or carried out.
    for request in &requests {
        let mut stream = daemon.connect();
        stream.write_all(request.as_bytes()).unwrap();
        drop(stream);
    }
    released(&daemon, before);
    assert!(["gone", "stopped"].contains(&daemon.state("new").as_str()));
    assert_eq!(daemon.state("web"), "running");
    assert_eq!(complaints(&home), Vec::<String>::new());
    daemon.stop();
}
