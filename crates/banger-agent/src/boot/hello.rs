//! The boot conversation with the host: hello, configuration, ready or failed.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use banger_agent_proto::boot::{BootFailure, BootMessage, GuestConfig, Hello, Ready};
use banger_agent_proto::{
    HELLO_PORT, HOST_CID, MAX_BOOT_LINE, MAX_CONFIG_LINE, PROTOCOL_MAX, PROTOCOL_MIN,
};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::log::uptime_ms;
use crate::fault::{Context, Fault};
use crate::sys::vsock::{self, VsockAddr};

/// How long one attempt to reach the host may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);

/// How long the host is tried in all, in seconds. It listens before the VMM starts, so this only
/// covers a host under heavy load.
const DIAL_SECONDS: i64 = 45;

/// Pause after a refusal, which comes at once: there is no event to wait for.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How long the host may take to answer hello with the configuration.
const CONFIG_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the guest waits for the host to take note of a failure before it goes down: what is
/// still in the queue when the VMM ends is lost.
const FAILED_LINGER: Duration = Duration::from_secs(2);

/// The connection of the boot conversation.
pub struct BootConnection {
    reader: BufReader<File>,
    /// When hello was sent, by the monotonic clock.
    hello_sent: Timespec,
}

/// The configuration, and the time that the host took at most to send it.
pub struct Received {
    /// The configuration.
    pub config: GuestConfig,
    /// From hello to the arrival of the configuration.
    pub round_trip: Duration,
}

impl BootConnection {
    /// Dials the host.
    pub fn dial() -> Result<Self, Fault> {
        let address = VsockAddr { cid: HOST_CID, port: HELLO_PORT };
        let deadline = clock_gettime(ClockId::Monotonic).tv_sec + DIAL_SECONDS;
        loop {
            match vsock::connect(address, CONNECT_TIMEOUT) {
                Ok(stream) => return Ok(Self::over(stream)),
                Err(error) if clock_gettime(ClockId::Monotonic).tv_sec >= deadline => {
                    return Err(error)
                        .context(|| format!("no answer from the host on vsock port {HELLO_PORT}"));
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => {}
                Err(_) => thread::sleep(RETRY_PAUSE),
            }
        }
    }

    fn over(stream: OwnedFd) -> Self {
        let reader = BufReader::with_capacity(64 * 1024, File::from(stream));
        Self { reader, hello_sent: clock_gettime(ClockId::Monotonic) }
    }

    /// Sends hello.
    pub fn say_hello(&mut self) -> Result<(), Fault> {
        let uname = rustix::system::uname();
        self.hello_sent = clock_gettime(ClockId::Monotonic);
        self.send(&BootMessage::Hello(Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            build: crate::BUILD.into(),
            boot_id: boot_id(),
            kernel_release: uname.release().to_string_lossy().into_owned(),
            uptime_ms: uptime_ms(),
        }))
    }

    /// Receives the configuration.
    pub fn receive_config(&mut self) -> Result<Received, Fault> {
        let no_answer = || "the host did not send the guest's configuration".to_owned();
        self.set_timeout(CONFIG_TIMEOUT);
        let mut line = Vec::new();
        let limit = MAX_CONFIG_LINE as u64;
        (&mut self.reader).take(limit).read_until(b'\n', &mut line).context(no_answer)?;
        if line.pop() != Some(b'\n') {
            let reason = if line.len() + 1 >= MAX_CONFIG_LINE {
                format!("the guest's configuration is longer than {MAX_CONFIG_LINE} bytes")
            } else {
                no_answer()
            };
            return Err(Fault::new(reason));
        }
        let elapsed = clock_gettime(ClockId::Monotonic) - self.hello_sent;
        let round_trip = Duration::try_from(elapsed).unwrap_or_default();
        let config = serde_json::from_slice(&line)
            .map_err(std::io::Error::from)
            .context(|| "cannot understand the guest's configuration".to_owned())?;
        Ok(Received { config, round_trip })
    }

    /// Reports that the image's init runs, and ends the conversation.
    pub fn ready(mut self, ready: Ready) -> Result<(), Fault> {
        self.send(&BootMessage::Ready(ready))
    }

    /// Reports that the boot ends here, and waits a moment for the host to have read it.
    pub fn fail(mut self, failure: BootFailure) {
        eprintln!("banger: boot failed in stage {}: {}", failure.stage, failure.message);
        // If the host is gone, the console has it.
        if self.send(&BootMessage::Failed(failure)).is_ok() {
            self.set_timeout(FAILED_LINGER);
            let _ = self.reader.read(&mut [0]);
        }
    }

    fn send(&mut self, message: &BootMessage) -> Result<(), Fault> {
        let mut line = encode(message);
        line.push(b'\n');
        self.reader.get_mut().write_all(&line).context(|| "cannot write to the host".to_owned())
    }

    fn set_timeout(&self, timeout: Duration) {
        // Without the timeout the guest waits for a silent host, which is correct too.
        let _ = set_socket_timeout(self.reader.get_ref(), Timeout::Recv, Some(timeout));
    }
}

/// The message as JSON, cut down to what the host accepts in one line.
fn encode(message: &BootMessage) -> Vec<u8> {
    let json = serde_json::to_vec(message).unwrap_or_default();
    if json.len() < MAX_BOOT_LINE {
        return json;
    }
    // Only warnings and failure messages can be long, and both are for a human to read.
    let shorter = match message.clone() {
        BootMessage::Ready(ready) => BootMessage::Ready(Ready { warnings: Vec::new(), ..ready }),
        BootMessage::Failed(failure) => BootMessage::Failed(BootFailure {
            message: failure.message.chars().take(1000).collect(),
            ..failure
        }),
        hello => hello,
    };
    serde_json::to_vec(&shorter).unwrap_or_default()
}

/// This boot's id: new each time the guest's kernel starts.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_is_longer_than_the_host_accepts() {
        let failure = BootFailure { stage: "mounts".into(), message: "\u{1}".repeat(100_000) };
        let long = BootMessage::Failed(failure);
        assert!(encode(&long).len() < MAX_BOOT_LINE);
        let ready = Ready {
            timeline: Vec::new(),
            init: "/sbin/init".into(),
            warnings: vec!["\u{1}".repeat(500); 32],
        };
        assert!(encode(&BootMessage::Ready(ready)).len() < MAX_BOOT_LINE);
    }

    #[test]
    fn a_message_is_one_line() {
        let failure = BootFailure { stage: "a\nb".into(), message: "c\nd".into() };
        assert!(!encode(&BootMessage::Failed(failure)).contains(&b'\n'));
    }
}
