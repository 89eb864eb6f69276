//! Attaches a command in a guest to this process: input, output, signals, window size, exit code.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use banger_api::vm::AgentHealth;
use banger_api::{ApiError, ErrorCode};
use banger_client::{
    AgentSession, Client, Control, Exec, ExecInput, ExecOutput, ExecRequest, ExitStatus, Output,
};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::errors::PIPE_CLOSED;
use crate::terminal::{self, RawTerminal};

/// Maximum size of one read of input, in bytes.
const MAX_READ: usize = 64 * 1024;
/// Maximum size of each captured stream, in bytes.
const MAX_CAPTURED: usize = 16 * 1024 * 1024;
/// Number of SIGINT and SIGTERM after which the client ends without the command.
const MAX_ENDING_SIGNALS: u32 = 3;
/// Time limit for a command to end after SIGTERM; `docker stop` kills after 10 s.
const TERM_GRACE: Duration = Duration::from_secs(8);
/// Time without output after SIGINT or SIGTERM before the client checks the agent's health.
const PROBE_DELAY: Duration = Duration::from_secs(3);
/// Time limit of that check; the daemon waits for 5 s.
const PROBE_TIMEOUT: Duration = Duration::from_secs(6);
/// The byte that Ctrl-C sends in raw mode.
const ETX: u8 = 3;

/// How an attached session ended.
#[derive(Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The command ended.
    Exited(ExitStatus),
    /// A signal or a closed pipe ended the client; its exit code.
    Interrupted(u8),
    /// The guest or the command does not respond; exit code and reason.
    Unresponsive(u8, String),
}

impl SessionEnd {
    /// The exit code of the client.
    pub fn code(&self) -> u8 {
        match self {
            Self::Exited(status) => status.shell_code(),
            Self::Interrupted(code) | Self::Unresponsive(code, _) => *code,
        }
    }
}

/// The VM of a command, for health checks of an unresponsive guest.
pub struct Guest<'a> {
    /// The daemon.
    pub client: &'a Client,
    /// Name, id or prefix.
    pub vm: &'a str,
}

impl Guest<'_> {
    /// Whether the agent answers.
    async fn answers(&self) -> bool {
        let answer = tokio::time::timeout(PROBE_TIMEOUT, self.client.health(self.vm)).await;
        match answer {
            Ok(Ok(health)) => health.agent == AgentHealth::Ok,
            // The VM was renamed during the session, or deleted, which ends the session.
            Ok(Err(error)) => error.code == ErrorCode::NotFound,
            Err(_) => false,
        }
    }
}

/// Captured output.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Whether a stream was longer than [`MAX_CAPTURED`].
    pub truncated: bool,
}

/// Destination of the output.
pub enum Sink {
    /// The streams of this process.
    Streams,
    /// Memory.
    Memory(Captured),
}

/// Runs a command to its end with the streams of this process.
///
/// SIGTERM, SIGINT and SIGHUP always end the session: at once before the command has started, later
/// within [`TERM_GRACE`] of SIGTERM, and after SIGINT if the guest does not respond.
///
/// # Errors
/// The agent refuses the command, or the connection ends before the command does.
pub async fn run(
    session: AgentSession,
    request: &ExecRequest,
    sink: &mut Sink,
    guest: &Guest<'_>,
) -> Result<SessionEnd, ApiError> {
    let mut signals = Signals::listen().map_err(|error| {
        ApiError::new(ErrorCode::Internal, "signal handlers cannot be installed").caused_by(&error)
    })?;
    let exec = tokio::select! {
        started = Exec::start(session, request) => started?,
        number = signals.ending() => return Ok(SessionEnd::Interrupted(128 + number.0)),
    };
    let Exec { input, control, mut output } = exec;
    let raw = request.tty.map(|_| RawTerminal::take()).transpose()?;
    let interrupted = Arc::new(Notify::new());
    // Ends with this function: an open input keeps the connection open.
    let mut forwarding = JoinSet::new();
    if let Some(input) = input {
        forwarding.spawn(forward_input(input, raw.is_some().then(|| interrupted.clone())));
    }
    let message_count = AtomicU64::new(0);
    let output_end = forward_output(&mut output, sink, &message_count);
    tokio::pin!(output_end);
    let mut termination = TerminationWatch::new(guest, &message_count);
    let mut repeated = 0;
    loop {
        let number = tokio::select! {
            ended = &mut output_end => return ended,
            number = signals.next() => number,
            () = interrupted.notified() => {
                termination.interrupted(SignalNumber::INT);
                continue;
            }
            ended = termination.expired() => return Ok(ended),
        };
        match (number, &raw) {
            (SignalNumber::WINCH, Some(_)) => control.resize(terminal::size()),
            (SignalNumber::CONT, Some(raw)) => {
                // If the terminal was closed, reading from it fails.
                let _ = raw.apply();
                control.resize(terminal::size());
            }
            (SignalNumber::WINCH | SignalNumber::CONT, None) => {}
            // The terminal is gone.
            (SignalNumber::HUP | SignalNumber::TERM, Some(_)) => {
                return Ok(SessionEnd::Interrupted(128 + number.0));
            }
            (SignalNumber::INT | SignalNumber::TERM, _) if repeated + 1 >= MAX_ENDING_SIGNALS => {
                return Ok(SessionEnd::Interrupted(128 + number.0));
            }
            _ => {
                if matches!(number, SignalNumber::INT | SignalNumber::TERM) {
                    repeated += 1;
                    termination.interrupted(number);
                }
                forward_signal(&control, number);
            }
        }
    }
}

/// Resolves to whether the guest is lost.
type Probe<'a> = Pin<Box<dyn Future<Output = bool> + 'a>>;

/// Decides when to end the session of a command after a request to end.
struct TerminationWatch<'a> {
    guest: &'a Guest<'a>,
    /// Number of messages from the guest.
    message_count: &'a AtomicU64,
    term: Option<Instant>,
    probe: Option<(SignalNumber, Probe<'a>)>,
}

impl<'a> TerminationWatch<'a> {
    fn new(guest: &'a Guest<'a>, message_count: &'a AtomicU64) -> Self {
        Self { guest, message_count, term: None, probe: None }
    }

    /// Records a signal that asks the command to end.
    fn interrupted(&mut self, number: SignalNumber) {
        if number == SignalNumber::TERM {
            self.term.get_or_insert(Instant::now() + TERM_GRACE);
        }
        if self.probe.is_none() {
            let (guest, message_count) = (self.guest, self.message_count);
            let before = message_count.load(Ordering::Relaxed);
            let probe = async move {
                tokio::time::sleep(PROBE_DELAY).await;
                message_count.load(Ordering::Relaxed) == before && !guest.answers().await
            };
            self.probe = Some((number, Box::pin(probe)));
        }
    }

    /// Resolves when the session must end. Cancel-safe.
    async fn expired(&mut self) -> SessionEnd {
        loop {
            let term = self.term;
            let limit = async {
                match term {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let lost = async {
                match &mut self.probe {
                    Some((number, probe)) => (*number, probe.await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                (number, lost) = lost => {
                    self.probe = None;
                    if lost {
                        let text = format!("the guest of `{}` does not answer", self.guest.vm);
                        return SessionEnd::Unresponsive(128 + number.0, text);
                    }
                }
                () = limit => {
                    let seconds = TERM_GRACE.as_secs();
                    let text = format!("the command did not end within {seconds} s of SIGTERM");
                    return SessionEnd::Unresponsive(128 + SignalNumber::TERM.0, text);
                }
            }
        }
    }
}

fn forward_signal(control: &Control, number: SignalNumber) {
    control.signal(number.0);
}

/// Forwards standard input until it ends or the command accepts no more; reports each Ctrl-C in the
/// input from a raw terminal.
async fn forward_input(input: ExecInput, interrupted: Option<Arc<Notify>>) {
    let mut stdin = tokio::io::stdin();
    loop {
        let mut piece = BytesMut::with_capacity(MAX_READ);
        match stdin.read_buf(&mut piece).await {
            Ok(length) if length > 0 => {
                if let Some(interrupted) = &interrupted
                    && piece.contains(&ETX)
                {
                    interrupted.notify_one();
                }
                if !input.send(piece.freeze()).await {
                    return;
                }
            }
            // End of file and a closed terminal end the command's input.
            Ok(_) | Err(_) => return,
        }
    }
}

/// Forwards output until the command ends.
async fn forward_output(
    output: &mut ExecOutput,
    sink: &mut Sink,
    message_count: &AtomicU64,
) -> Result<SessionEnd, ApiError> {
    let mut stdout = tokio::io::stdout();
    let mut stderr = tokio::io::stderr();
    loop {
        let message = output.next().await?;
        message_count.fetch_add(1, Ordering::Relaxed);
        let written = match (message, &mut *sink) {
            (Output::Exit(status), _) => return Ok(SessionEnd::Exited(status)),
            (Output::Stdout(data), Sink::Streams) => write(&mut stdout, &data).await,
            (Output::Stderr(data), Sink::Streams) => {
                // A closed stderr does not end the session.
                let _ = write(&mut stderr, &data).await;
                Ok(())
            }
            (Output::Stdout(data), Sink::Memory(kept)) => {
                kept.truncated |= append_bounded(&mut kept.stdout, &data);
                Ok(())
            }
            (Output::Stderr(data), Sink::Memory(kept)) => {
                kept.truncated |= append_bounded(&mut kept.stderr, &data);
                Ok(())
            }
        };
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(SessionEnd::Interrupted(PIPE_CLOSED));
            }
            Err(error) => {
                return Err(ApiError::new(ErrorCode::Internal, "the output cannot be written")
                    .caused_by(&error));
            }
        }
    }
}

async fn write(stream: &mut (impl AsyncWriteExt + Unpin), data: &[u8]) -> io::Result<()> {
    stream.write_all(data).await?;
    stream.flush().await
}

/// Appends up to [`MAX_CAPTURED`] bytes in all; returns whether data was cut off.
fn append_bounded(kept: &mut Vec<u8>, data: &[u8]) -> bool {
    let room = MAX_CAPTURED.saturating_sub(kept.len()).min(data.len());
    kept.extend_from_slice(data.get(..room).unwrap_or_default());
    room < data.len()
}

/// SignalNumber of a signal on Linux, x86-64 and aarch64 alike (signal(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SignalNumber(u8);

impl SignalNumber {
    const HUP: Self = Self(1);
    const INT: Self = Self(2);
    const QUIT: Self = Self(3);
    const USR1: Self = Self(10);
    const USR2: Self = Self(12);
    const TERM: Self = Self(15);
    const CONT: Self = Self(18);
    const WINCH: Self = Self(28);

    const ALL: [Self; 8] = [
        Self::HUP,
        Self::INT,
        Self::QUIT,
        Self::USR1,
        Self::USR2,
        Self::TERM,
        Self::CONT,
        Self::WINCH,
    ];
}

struct Signals(Vec<(SignalNumber, Signal)>);

impl Signals {
    fn listen() -> io::Result<Self> {
        let listen = |number: SignalNumber| {
            let kind = SignalKind::from_raw(number.0.into());
            Ok((number, signal(kind)?))
        };
        SignalNumber::ALL.into_iter().map(listen).collect::<io::Result<_>>().map(Self)
    }

    /// The next signal that ends a process by default.
    async fn ending(&mut self) -> SignalNumber {
        loop {
            let number = self.next().await;
            if matches!(
                number,
                SignalNumber::HUP | SignalNumber::INT | SignalNumber::QUIT | SignalNumber::TERM
            ) {
                return number;
            }
        }
    }

    async fn next(&mut self) -> SignalNumber {
        std::future::poll_fn(|cx| {
            for (number, signal) in &mut self.0 {
                if signal.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(*number);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captured_output_is_bounded() {
        let mut kept = vec![0; MAX_CAPTURED - 2];
        assert!(!append_bounded(&mut kept, b"a"));
        assert!(append_bounded(&mut kept, b"bc"));
        assert!(append_bounded(&mut kept, b"d"));
        assert_eq!(kept.len(), MAX_CAPTURED);
    }
}
