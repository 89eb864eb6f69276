//! The guest of the fake VMMs: it boots at once and answers as the agent, or misbehaves.
//!
//! The last part of the fake's file name selects its behavior: `silent` never says hello, `garbage`
//! sends invalid bytes, `flood` an endless line, `old` an unsupported protocol, `dies` ends after
//! hello, `mute` has an agent that never answers, and `stuck` ignores a shutdown.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use banger_agent_proto::boot::{BootMessage, Hello, Ready};
use banger_agent_proto::http::Health;

const BOOT_ID: &str = "fa4e0000-0000-4000-8000-000000000000";
/// Maximum length of a request line and of a body, in bytes.
const MAX_REQUEST: u64 = 1 << 20;

/// The behavior that a program's path selects.
pub fn behavior(program: &str) -> String {
    program.rsplit('-').next().unwrap_or_default().to_owned()
}

/// An HTTP request.
#[derive(Debug)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Body.
    pub body: Vec<u8>,
}

/// Reads the next request of a connection; `None` at its end.
///
/// # Errors
/// read(2).
pub fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut head = reader.take(MAX_REQUEST);
    let mut first = String::new();
    if head.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut length = 0u64;
    loop {
        let mut header = String::new();
        if head.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = Vec::new();
    reader.take(length.min(MAX_REQUEST)).read_to_end(&mut body)?;
    let mut words = first.split_whitespace().map(str::to_owned);
    let mut word = || words.next().unwrap_or_default();
    Ok(Some(Request { method: word(), path: word(), body }))
}

fn hello(protocol: u32) -> String {
    line(&BootMessage::Hello(Hello {
        protocol_min: protocol,
        protocol_max: protocol,
        build: "fake".into(),
        boot_id: BOOT_ID.into(),
        kernel_release: "fake".into(),
        uptime_ms: 1,
    }))
}

fn line(message: &BootMessage) -> String {
    let mut text = serde_json::to_string(message).unwrap_or_default();
    text.push('\n');
    text
}

/// Boots over the connection that the guest has opened.
///
/// # Errors
/// I/O errors of the connection, and the behavior `dies`: the VMM ends with them.
pub fn boot(mut stream: UnixStream, behavior: &str) -> io::Result<()> {
    match behavior {
        "garbage" => return stream.write_all(b"\x00\xff\x80 not json\n"),
        "flood" => {
            // A gigabyte; the host closes the connection long before.
            let piece = vec![b'x'; 1 << 20];
            for _ in 0..1024 {
                if stream.write_all(&piece).is_err() {
                    break;
                }
            }
            return Ok(());
        }
        "old" => return stream.write_all(hello(0).as_bytes()),
        "dies" => {
            stream.write_all(hello(1).as_bytes())?;
            return Err(io::Error::other("died as configured"));
        }
        _ => stream.write_all(hello(1).as_bytes())?,
    }
    let mut config = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut config)?;
    let ready = Ready { timeline: Vec::new(), init: "fake".into(), warnings: Vec::new() };
    stream.write_all(line(&BootMessage::Ready(ready)).as_bytes())
}

/// Serves a connection to the vsock socket as the agent; calls `power_off` at a shutdown.
///
/// # Errors
/// I/O errors of the connection.
pub fn serve(
    mut stream: UnixStream,
    behavior: &str,
    power_off: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut connect = String::new();
    reader.read_line(&mut connect)?;
    stream.write_all(b"OK 1024\n")?;
    let Some(request) = read_request(&mut reader)? else { return Ok(()) };
    if behavior == "mute" {
        thread::sleep(Duration::from_secs(3600));
    }
    let body = match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/healthz") => serde_json::to_string(&health()).unwrap_or_default(),
        ("GET", "/clock") => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            format!("{{\"unix_us\": {}}}", now.as_micros())
        }
        ("POST", "/shutdown") if behavior != "stuck" => {
            power_off()?;
            "{}".into()
        }
        _ => "{}".into(),
    };
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length:";
    write!(stream, "{head} {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn health() -> Health {
    Health {
        status: "ok".into(),
        boot_id: BOOT_ID.into(),
        build: "fake".into(),
        protocol_min: 1,
        protocol_max: 1,
        uptime_ms: 1,
        root_used_bytes: None,
        agent_restarts: 0,
        boot: None,
    }
}
