//! The boot protocol: `hello` from the guest, the configuration to it, then `ready` or `failed`.

use std::io;

use banger_agent_proto::boot::{BootFailure, BootMessage, Hello};
use banger_agent_proto::{MAX_BOOT_LINE, ProtocolMismatch};
use banger_api::hint::VmLog;
use banger_api::{ApiError, ErrorCode, Hint};
use banger_engine::interrupt::Interrupt;
use banger_engine::plan::VmPlan;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;

use super::config::ReadyConfig;
use crate::handover::Handover;

/// Error of a guest's boot.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Reported by the guest.
    #[error("the guest could not boot: {}: {}", clean(&.0.stage), clean(&.0.message))]
    Reported(BootFailure),
    /// Not a message of the protocol.
    #[error("the guest sent something that is not a boot message")]
    Malformed,
    /// The line is too long.
    #[error("the guest sent a line of more than {MAX_BOOT_LINE} bytes")]
    TooLong,
    /// The connection ended.
    #[error("the guest closed the connection while it booted")]
    Closed,
    /// No common protocol version.
    #[error("the guest's agent is of another version")]
    Protocol(#[source] ProtocolMismatch),
    /// The connection failed.
    #[error("the connection to the booting guest failed")]
    Io(#[source] io::Error),
}

impl Failure {
    /// Converts to an error of a VM.
    pub fn about(&self, vm: &VmPlan) -> ApiError {
        ApiError::new(ErrorCode::GuestFailed, format!("`{}` did not boot", vm.name))
            .caused_by(self)
            .with_hint(see_console(vm))
    }
}

fn see_console(vm: &VmPlan) -> Hint {
    Hint::log(&vm.name, VmLog::Console)
}

/// Sanitises text of a guest: one line, no control characters, at most 500 characters.
pub fn clean(text: &str) -> String {
    text.chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Waits for `work` until the deadline or an interruption.
///
/// # Errors
/// The work's own, a timeout that names `what`, or the interruption.
pub async fn bounded<T>(
    vm: &VmPlan,
    what: &str,
    deadline: Instant,
    interrupt: &Interrupt,
    work: impl Future<Output = Result<T, impl IntoGuestError>>,
) -> Result<T, ApiError> {
    tokio::select! {
        biased;
        result = work => result.map_err(|error| error.into_error(vm)),
        _ = interrupt.raised() => {
            let text = format!("the wait for the {what} of `{}` was interrupted", vm.name);
            Err(ApiError::new(ErrorCode::Cancelled, text))
        }
        () = tokio::time::sleep_until(deadline) => {
            let text = format!("no {what} came from the guest of `{}` in time", vm.name);
            Err(ApiError::new(ErrorCode::Timeout, text).with_hint(see_console(vm)))
        }
    }
}

/// Errors that can be converted to an error of a VM.
pub trait IntoGuestError {
    /// The error.
    fn into_error(self, vm: &VmPlan) -> ApiError;
}

impl IntoGuestError for Failure {
    fn into_error(self, vm: &VmPlan) -> ApiError {
        self.about(vm)
    }
}

impl IntoGuestError for ApiError {
    fn into_error(self, _vm: &VmPlan) -> ApiError {
        self
    }
}

/// The connection of a booting guest.
pub struct Booting {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// A message received by [`Self::wait_failure`].
    early: Option<BootMessage>,
    /// What the guest's configuration hands over.
    pub handover: Handover,
}

/// Accepts the first connection with data, and reads its hello.
///
/// On a busy host a guest's connection attempt may time out just before it is accepted; the guest
/// then connects again. A connection that closes without data is therefore ignored.
///
/// # Errors
/// Another message than hello; the connection's.
pub async fn accept(listener: UnixListener) -> Result<(Booting, Hello), Failure> {
    loop {
        let (stream, _) = listener.accept().await.map_err(Failure::Io)?;
        let (buffer, handover) = (Vec::new(), Handover::default());
        let mut booting = Booting { stream, buffer, early: None, handover };
        return match booting.next().await {
            Err(Failure::Closed | Failure::Io(_)) if booting.buffer.is_empty() => continue,
            Err(failure) => Err(failure),
            Ok(BootMessage::Hello(hello)) => Ok((booting, hello)),
            Ok(BootMessage::Failed(failure)) => Err(Failure::Reported(failure)),
            Ok(BootMessage::Ready(_)) => Err(Failure::Malformed),
        };
    }
}

impl Booting {
    /// The next message. Cancel safe.
    ///
    /// # Errors
    /// An invalid message; the connection's.
    pub async fn next(&mut self) -> Result<BootMessage, Failure> {
        if let Some(message) = self.early.take() {
            return Ok(message);
        }
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line).map_err(|_| Failure::Malformed);
            }
            if self.buffer.len() >= MAX_BOOT_LINE {
                return Err(Failure::TooLong);
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece).await.map_err(Failure::Io)? {
                0 => return Err(Failure::Closed),
                count => self.buffer.extend_from_slice(&piece[..count]),
            }
        }
    }

    /// Resolves when the guest reports that it cannot boot; keeps any other message for later.
    pub async fn wait_failure(&mut self) -> Failure {
        loop {
            if self.early.is_some() {
                std::future::pending::<()>().await;
            }
            match self.next().await {
                Ok(BootMessage::Failed(failure)) => return Failure::Reported(failure),
                Ok(message) => self.early = Some(message),
                Err(failure) => return failure,
            }
        }
    }

    /// Sends the configuration.
    ///
    /// # Errors
    /// The connection's.
    pub async fn send(&mut self, config: &ReadyConfig) -> Result<(), Failure> {
        self.stream.write_all(&config.line).await.map_err(Failure::Io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pair() -> (Booting, UnixStream) {
        let (stream, other) = UnixStream::pair().unwrap();
        let (buffer, handover) = (Vec::new(), Handover::default());
        (Booting { stream, buffer, early: None, handover }, other)
    }

    #[tokio::test]
    async fn messages_are_read_at_any_split() {
        let (mut booting, mut guest) = pair().await;
        let line = b"{\"type\":\"failed\",\"stage\":\"mounts\",\"message\":\"no \\u0007disk\"}\n";
        for byte in line {
            guest.write_all(&[*byte]).await.unwrap();
        }
        let failure = booting.wait_failure().await;
        assert_eq!(failure.to_string(), "the guest could not boot: mounts: no  disk");
    }

    #[tokio::test]
    async fn garbage_and_endless_lines_are_refused() {
        let (mut booting, mut guest) = pair().await;
        guest.write_all(b"\x00\xffgarbage\n").await.unwrap();
        assert!(matches!(booting.next().await, Err(Failure::Malformed)));
        let writer = tokio::spawn(async move {
            // The host stops reading, so this fails or blocks.
            let _ = guest.write_all(&vec![b'x'; 4 * MAX_BOOT_LINE]).await;
        });
        assert!(matches!(booting.next().await, Err(Failure::TooLong)));
        drop(booting);
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_that_sends_nothing_is_not_the_hello() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.sock_1");
        let accepting = tokio::spawn(accept(UnixListener::bind(&path).unwrap()));
        drop(UnixStream::connect(&path).await.unwrap());
        let mut guest = UnixStream::connect(&path).await.unwrap();
        let hello = "{\"type\":\"hello\",\"protocol_min\":1,\"protocol_max\":1,\"build\":\"b\",\
                     \"boot_id\":\"x\",\"kernel_release\":\"6\",\"uptime_ms\":1}\n";
        guest.write_all(hello.as_bytes()).await.unwrap();
        let (_booting, hello) = accepting.await.unwrap().unwrap();
        assert_eq!(hello.boot_id, "x");
    }

    #[tokio::test]
    async fn an_early_ready_is_kept() {
        let (mut booting, mut guest) = pair().await;
        guest.write_all(b"{\"type\":\"ready\",\"timeline\":[],\"init\":\"/x\"}\n").await.unwrap();
        let waited =
            tokio::time::timeout(std::time::Duration::from_millis(50), booting.wait_failure());
        assert!(waited.await.is_err());
        assert!(matches!(booting.next().await, Ok(BootMessage::Ready(_))));
        drop(guest);
        assert!(matches!(booting.next().await, Err(Failure::Closed)));
    }
}
