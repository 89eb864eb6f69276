//! VMs that change all the time, and a reader of the event stream: HTTP/1.1 on the daemon's socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::{PATIENCE, unix_ms};
use crate::bench::median;

/// Operations that are requested each second: each changes its VM at least once.
const OPERATIONS: u64 = 500;
/// Connections that request them.
const CONNECTIONS: usize = 4;
/// Time at the beginning and at the end of the load of which the delays are compared.
const EDGE_MS: f64 = 1000.0;

/// A load in progress.
pub struct Load {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    began: Instant,
    requests: Vec<JoinHandle<anyhow::Result<()>>>,
    reader: JoinHandle<anyhow::Result<Vec<Seen>>>,
    socket: PathBuf,
}

/// An event, in milliseconds since 1970.
struct Seen {
    at: f64,
    arrived: f64,
    kind: Kind,
}

enum Kind {
    Changed,
    Missed,
    Other,
}

/// What a load was.
pub struct Figures {
    /// Changes of VMs in the event stream, each second.
    pub each_second: f64,
    /// Operations, each second.
    pub operations_each_second: f64,
    /// How often the reader fell behind.
    pub missed: usize,
    /// Median delay of an event in the first and in the last second, in milliseconds.
    pub delays: (f64, f64),
}

/// Pauses and resumes all VMs again and again.
///
/// # Errors
/// The daemon does not answer.
pub fn begin(socket: &Path, vms: usize) -> anyhow::Result<Load> {
    let stop = Arc::<AtomicBool>::default();
    let accepted = Arc::<AtomicUsize>::default();
    let mut stream = connect(socket)?;
    write!(stream, "GET /v1/events HTTP/1.0\r\nhost: x\r\n\r\n")?;
    let reader = std::thread::spawn({
        let stop = stop.clone();
        move || read_events(stream, &stop)
    });
    let requests = (0..CONNECTIONS).map(|number| {
        let (stop, accepted) = (stop.clone(), accepted.clone());
        let mut connection = Connection(BufReader::new(connect(socket)?));
        let mine = (number..vms).step_by(CONNECTIONS).collect::<Vec<usize>>();
        Ok(std::thread::spawn(move || {
            let pause = Duration::from_micros(CONNECTIONS as u64 * 1_000_000 / OPERATIONS);
            let mut next = Instant::now();
            for action in ["pause", "resume"].into_iter().cycle() {
                for vm in &mine {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    let path = format!("/v1/vms/vm-{vm}/actions");
                    connection.post(&path, &format!("{{\"{action}\":{{}}}}"))?;
                    accepted.fetch_add(1, Ordering::Relaxed);
                    next += pause;
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
            }
            Ok(())
        }))
    });
    let requests = requests.collect::<anyhow::Result<Vec<_>>>()?;
    let socket = socket.to_owned();
    Ok(Load { stop, accepted, began: Instant::now(), requests, reader, socket })
}

impl Load {
    /// Ends it.
    ///
    /// # Errors
    /// A request was refused, or the event stream ended.
    pub fn end(self) -> anyhow::Result<Figures> {
        let seconds = self.began.elapsed().as_secs_f64();
        let accepted = self.accepted.load(Ordering::Relaxed);
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.requests {
            thread.join().ok().context("a thread has panicked")??;
        }
        // One more event, so that the reader sees that it should end.
        create(&self.socket, "last-of-the-load")?;
        let seen = self.reader.join().ok().context("a thread has panicked")??;
        let changes = seen.iter().filter(|one| matches!(one.kind, Kind::Changed)).count();
        let missed = seen.iter().filter(|one| matches!(one.kind, Kind::Missed)).count();
        let (first, last) = (seen.first().context("no event")?, seen.last().context("no event")?);
        let (first, last) = (first.at + EDGE_MS, last.at - EDGE_MS);
        let delays = |within: &dyn Fn(f64) -> bool| {
            let edge = seen.iter().filter(|one| within(one.at));
            median(&edge.map(|one| one.arrived - one.at).collect::<Vec<_>>())
        };
        Ok(Figures {
            each_second: changes as f64 / seconds,
            operations_each_second: accepted as f64 / seconds,
            missed,
            delays: (delays(&|at| at < first), delays(&|at| at > last)),
        })
    }
}

fn connect(socket: &Path) -> anyhow::Result<UnixStream> {
    let stream = UnixStream::connect(socket)
        .with_context(|| format!("the daemon at `{}` does not answer", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn read_events(stream: UnixStream, stop: &AtomicBool) -> anyhow::Result<Vec<Seen>> {
    let mut seen = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let arrived = unix_ms();
        let event: Value = serde_json::from_str(data)?;
        let kind = match (event["event"].as_str(), event["missed"].as_bool()) {
            (Some("changed"), _) => Kind::Changed,
            (_, Some(true)) => Kind::Missed,
            _ => Kind::Other,
        };
        // The first event is about all VMs.
        if event["event"] != "all" || matches!(kind, Kind::Missed) {
            let at = event["at_unix_ms"].as_f64().context("an event without a time")?;
            seen.push(Seen { at, arrived, kind });
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(seen);
        }
    }
    bail!("the event stream has ended")
}

/// A connection that is used again and again.
struct Connection(BufReader<UnixStream>);

impl Connection {
    fn post(&mut self, path: &str, body: &str) -> anyhow::Result<()> {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n");
        let request = format!("{head}content-length: {length}\r\n\r\n{body}");
        self.0.get_mut().write_all(request.as_bytes())?;
        let mut status = String::new();
        self.0.read_line(&mut status)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            ensure!(self.0.read_line(&mut line)? > 0, "the daemon has closed the connection");
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(status.contains(" 20"), "{path} {body}: {} {answer}", status.trim());
        Ok(())
    }
}

/// Creates a VM without starting it.
///
/// # Errors
/// The daemon refuses.
pub fn create(socket: &Path, name: &str) -> anyhow::Result<()> {
    let mut connection = Connection(BufReader::new(connect(socket)?));
    connection.post("/v1/vms", &format!("{{\"name\":\"{name}\",\"no_start\":true}}"))
}
