//! Memory and descriptors of `banger web` after many requests and clients that leave.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use banger_testkit::{Home, Options, Web, descriptors, program, resident_kib};

/// Requests whose memory is compared with that after the first ones.
const REQUESTS: usize = 10_000;
/// Requests after which caches and the allocator have their size.
const FIRST: usize = 2_000;
/// Clients that leave in the middle.
const CLIENTS: usize = 200;
/// Idle connections to the daemon that are kept for the next request.
const IDLE: usize = 16;
/// Growth that the allocator explains: less than half a kilobyte for a request.
const MAX_GROWTH_KIB: u64 = 4096;

struct Page {
    web: Web,
    host: String,
    cookie: String,
}

impl Page {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    fn head(&self, path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\n", self.host, self.cookie)
    }

    /// Many requests on one connection.
    fn requests(&self, count: usize) {
        let mut stream = BufReader::new(self.connect());
        let paths = ["/", "/vms/web", "/operations", "/vms/new", "/vms/nope", "/vms/web/usage"];
        for path in paths.iter().cycle().take(count) {
            stream.get_mut().write_all(format!("{}\r\n", self.head(path)).as_bytes()).unwrap();
            let mut length = 0;
            loop {
                let mut line = String::new();
                assert!(stream.read_line(&mut line).unwrap() > 0, "{path}: closed");
                if line == "\r\n" {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
        }
    }

    /// Clients that leave in the middle of a request, of a stream and of a terminal.
    fn leave(&self) {
        let origin = format!("Origin: http://{}\r\n", self.host);
        let socket = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let terminal = self.head("/vms/web/terminal/socket?rows=24&cols=80") + &origin + socket;
        let form = format!(
            "POST /vms HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\n{origin}Content-Length: 1000\r\n\r\n",
            self.host, self.cookie
        );
        let requests = [
            self.head("/live/vms?since=0-0") + "\r\n",
            self.head("/live/vms/web") + "\r\n",
            terminal,
            form + "csrf=",
            self.head("/"),
        ];
        for request in requests.iter().cycle().take(CLIENTS) {
            let mut stream = self.connect();
            stream.write_all(request.as_bytes()).unwrap();
            if request.ends_with("\r\n\r\n") {
                // It has begun to answer.
                stream.read_exact(&mut [0]).unwrap();
            }
        }
    }
}

#[test]
fn requests_and_clients_that_leave_take_no_memory() {
    let home = Home::bare(Options {
        env: vec![("BANGERD".into(), program("bangerd-sim").display().to_string())],
        ..Options::default()
    });
    home.ok(&["vm", "create", "--name", "web"]);
    let web = Web::serve(&home);
    let link = web.link().to_owned();
    let rest = link.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut page = Page { host: host.into(), cookie: String::new(), web };
    let mut stream = page.connect();
    let end = format!("Host: {}\r\nConnection: close\r\n\r\n", page.host);
    stream.write_all(format!("GET /{path} HTTP/1.1\r\n{end}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, cookie) = answer.split_once("set-cookie: ").unwrap();
    page.cookie = cookie.split(';').next().unwrap().to_owned();
    let pid = page.web.pid();
    page.requests(FIRST);
    let few = descriptors(pid) + IDLE;
    page.leave();
    page.requests(FIRST);
    let before = resident_kib(pid);
    page.leave();
    page.requests(REQUESTS);
    let after = resident_kib(pid);
    home.wait("descriptors of clients that have left to be closed", || descriptors(pid) <= few);
    assert!(after <= before + MAX_GROWTH_KIB, "{before} KiB, and later {after} KiB");
    drop(page);
    home.ok(&["vm", "delete", "-f", "web"]);
    home.finish();
}
