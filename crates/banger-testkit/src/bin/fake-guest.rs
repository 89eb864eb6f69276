//! Plays both QEMU and its companion: a guest that answers at once, or behaves badly.
//!
//! With `--uds-path` among its arguments it is the companion: it listens on the vsock socket and
//! plays the agent. Otherwise it is the VMM: it says hello and ready. What it does wrong is the
//! last part of its own file name: `fake-guest-silent` never says hello, `-garbage` sends nonsense,
//! `-flood` a line without end, `-old` speaks no protocol of ours, `-dies` exits after hello,
//! `-mute` has an agent that never answers, `-stuck` ignores a shutdown.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use banger_agent_proto::HELLO_PORT;
use banger_agent_proto::boot::{BootMessage, Hello, Ready};
use banger_agent_proto::http::Health;

const BOOT_ID: &str = "fa4e0000-0000-4000-8000-000000000000";
/// The VMM ends when somebody connects here.
const POWER: &str = "fake-power.sock";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let program = args.first().cloned().unwrap_or_default();
    let mood = program.rsplit('-').next().unwrap_or_default().to_owned();
    let value = |name: &str| {
        args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned()
    };
    let played = match (value("--uds-path"), value("--socket")) {
        (Some(uds), Some(vhost)) => companion(&uds, &vhost, &mood),
        _ => vmm(&mood),
    };
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fake-guest: {error}");
            ExitCode::FAILURE
        }
    }
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

fn vmm(mood: &str) -> std::io::Result<()> {
    let power = UnixListener::bind(POWER)?;
    println!("fake console");
    if mood != "silent" {
        let mut stream = UnixStream::connect(format!("v.sock_{HELLO_PORT}"))?;
        match mood {
            "garbage" => stream.write_all(b"\x00\xff\x80 not json\n")?,
            "flood" => {
                // A gigabyte; the host hangs up long before.
                let piece = vec![b'x'; 1 << 20];
                for _ in 0..1024 {
                    if stream.write_all(&piece).is_err() {
                        break;
                    }
                }
            }
            "old" => stream.write_all(hello(0).as_bytes())?,
            "dies" => {
                stream.write_all(hello(1).as_bytes())?;
                return Err(std::io::Error::other("died as told"));
            }
            _ => boot(stream)?,
        }
    }
    power.accept()?;
    Ok(())
}

fn boot(mut stream: UnixStream) -> std::io::Result<()> {
    stream.write_all(hello(1).as_bytes())?;
    let mut config = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut config)?;
    let ready = Ready { timeline: Vec::new(), init: "fake".into(), warnings: Vec::new() };
    stream.write_all(line(&BootMessage::Ready(ready)).as_bytes())
}

fn companion(uds: &str, vhost: &str, mood: &str) -> std::io::Result<()> {
    let agent = UnixListener::bind(uds)?;
    let _vhost = UnixListener::bind(vhost)?;
    for stream in agent.incoming() {
        let (stream, mood) = (stream?, mood.to_owned());
        thread::spawn(move || {
            // A client that leaves early is its own affair.
            let _ = serve(stream, &mood);
        });
    }
    Ok(())
}

fn serve(stream: UnixStream, mood: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let mut text = String::new();
    reader.read_line(&mut text)?;
    stream.write_all(b"OK 1024\n")?;
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let header = header.trim().to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if header.is_empty() {
            break;
        }
    }
    reader.take(length).read_to_end(&mut Vec::new())?;
    if mood == "mute" {
        thread::sleep(Duration::from_secs(3600));
    }
    let body = if request.starts_with("GET /healthz") {
        serde_json::to_string(&health()).unwrap_or_default()
    } else {
        if request.starts_with("POST /shutdown") && mood != "stuck" {
            UnixStream::connect(POWER)?;
        }
        "{}".into()
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
    }
}
