//! A command in a guest, tied to our own streams: input, output, signals, window size, exit code.

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
use tokio::time::Instant;

use crate::errors::PIPE_CLOSED;
use crate::terminal::{self, RawTerminal};

/// Largest piece of input read at once.
const PIECE: usize = 64 * 1024;
/// Most output kept where it is to be part of a document.
const MAX_CAPTURED: usize = 16 * 1024 * 1024;
/// Ctrl-C or SIGTERM as often as this leaves a command that does not heed them.
const LEAVE_AFTER: u32 = 3;
/// How long a command may take to end after SIGTERM before it is left. `docker stop` gives as much
/// and then kills.
const TERM_GRACE: Duration = Duration::from_secs(8);
/// How long a guest may be silent after Ctrl-C before its agent is asked whether it lives.
const SILENCE: Duration = Duration::from_secs(3);
/// How long that answer may take; the daemon waits for 5 s.
const PROBE_TIMEOUT: Duration = Duration::from_secs(6);
/// What Ctrl-C is to a terminal in raw mode.
const ETX: u8 = 3;

/// How an attached command came to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself.
    Exited(ExitStatus),
    /// We left it; the exit code that tells why.
    Left(u8),
    /// We left it because of its guest or because it did not end; the exit code and the reason.
    GaveUp(u8, String),
}

/// The VM of a command, asked whether it lives when the command does not react.
pub struct Guest<'a> {
    /// The daemon.
    pub client: &'a Client,
    /// Name, id or prefix.
    pub vm: &'a str,
}

impl Guest<'_> {
    /// Whether its agent answers.
    async fn answers(&self) -> bool {
        let asked = tokio::time::timeout(PROBE_TIMEOUT, self.client.health(self.vm)).await;
        matches!(asked, Ok(Ok(health)) if health.agent == AgentHealth::Ok)
    }
}

/// What became of its output.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Its output.
    pub stdout: Vec<u8>,
    /// Its error output.
    pub stderr: Vec<u8>,
    /// Whether there was more than is kept.
    pub truncated: bool,
}

/// Where output goes.
pub enum Sink {
    /// To our own streams.
    Streams,
    /// Into memory.
    Memory(Captured),
}

/// Runs a command to its end with our streams tied to its.
///
/// SIGTERM, SIGINT and SIGHUP end it at every moment: before the command has started at once, later
/// within [`TERM_GRACE`] of SIGTERM, and of Ctrl-C where the guest does not react at all.
///
/// # Errors
/// The agent refuses it, or the connection ends before the command does.
pub async fn run(
    session: AgentSession,
    request: &ExecRequest,
    sink: &mut Sink,
    guest: &Guest<'_>,
) -> Result<Ended, ApiError> {
    let mut signals = Signals::listen().map_err(|error| {
        ApiError::new(ErrorCode::Internal, "signals cannot be listened for").caused_by(&error)
    })?;
    let exec = tokio::select! {
        started = Exec::start(session, request) => started?,
        number = signals.ending() => return Ok(Ended::Left(128 + number.0)),
    };
    let Exec { input, control, mut output } = exec;
    let raw = request.tty.map(|_| RawTerminal::take()).transpose()?;
    let interrupted = Arc::new(Notify::new());
    if let Some(input) = input {
        tokio::spawn(feed(input, raw.is_some().then(|| interrupted.clone())));
    }
    let heard = AtomicU64::new(0);
    let shown = show(&mut output, sink, &heard);
    tokio::pin!(shown);
    let mut patience = Patience::new(guest, &heard);
    let mut insisted = 0;
    loop {
        let number = tokio::select! {
            ended = &mut shown => return ended,
            number = signals.next() => number,
            () = interrupted.notified() => {
                patience.interrupted(Number::INT);
                continue;
            }
            ended = patience.over() => return Ok(ended),
        };
        match (number, &raw) {
            (Number::WINCH, Some(_)) => control.resize(terminal::size()),
            (Number::CONT, Some(raw)) => {
                // A terminal that went away meanwhile is told by its input.
                let _ = raw.apply();
                control.resize(terminal::size());
            }
            (Number::WINCH | Number::CONT, None) => {}
            // Nobody can press a key any more.
            (Number::HUP | Number::TERM, Some(_)) => return Ok(Ended::Left(128 + number.0)),
            (Number::INT | Number::TERM, _) if insisted + 1 >= LEAVE_AFTER => {
                return Ok(Ended::Left(128 + number.0));
            }
            _ => {
                if matches!(number, Number::INT | Number::TERM) {
                    insisted += 1;
                    patience.interrupted(number);
                }
                pass_on(&control, number);
            }
        }
    }
}

/// Resolves to whether the guest is lost.
type Probe<'a> = Pin<Box<dyn Future<Output = bool> + 'a>>;

/// How long a command that was asked to end is waited for.
struct Patience<'a> {
    guest: &'a Guest<'a>,
    /// Counts what comes from the guest.
    heard: &'a AtomicU64,
    term: Option<Instant>,
    probe: Option<(Number, Probe<'a>)>,
}

impl<'a> Patience<'a> {
    fn new(guest: &'a Guest<'a>, heard: &'a AtomicU64) -> Self {
        Self { guest, heard, term: None, probe: None }
    }

    /// The user wants the end of the command.
    fn interrupted(&mut self, number: Number) {
        if number == Number::TERM {
            self.term.get_or_insert(Instant::now() + TERM_GRACE);
        }
        if self.probe.is_none() {
            let (guest, heard) = (self.guest, self.heard);
            let before = heard.load(Ordering::Relaxed);
            let probe = async move {
                tokio::time::sleep(SILENCE).await;
                heard.load(Ordering::Relaxed) == before && !guest.answers().await
            };
            self.probe = Some((number, Box::pin(probe)));
        }
    }

    /// Resolves when the command is to be left. May be dropped and called again.
    async fn over(&mut self) -> Ended {
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
                        return Ended::GaveUp(128 + number.0, text);
                    }
                }
                () = limit => {
                    let seconds = TERM_GRACE.as_secs();
                    let text = format!("the command did not end within {seconds} s of SIGTERM");
                    return Ended::GaveUp(128 + Number::TERM.0, text);
                }
            }
        }
    }
}

fn pass_on(control: &Control, number: Number) {
    control.signal(number.0);
}

/// Passes our input on until it ends or the command takes no more, and tells of each Ctrl-C in what
/// a raw terminal sends.
async fn feed(input: ExecInput, interrupted: Option<Arc<Notify>>) {
    let mut stdin = tokio::io::stdin();
    loop {
        let mut piece = BytesMut::with_capacity(PIECE);
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
            // The end of our input, or a terminal that went away, is the end of the command's.
            Ok(_) | Err(_) => return,
        }
    }
}

/// Passes output on until the command ends.
async fn show(
    output: &mut ExecOutput,
    sink: &mut Sink,
    heard: &AtomicU64,
) -> Result<Ended, ApiError> {
    let mut stdout = tokio::io::stdout();
    let mut stderr = tokio::io::stderr();
    loop {
        let said = output.next().await?;
        heard.fetch_add(1, Ordering::Relaxed);
        let written = match (said, &mut *sink) {
            (Output::Exit(status), _) => return Ok(Ended::Exited(status)),
            (Output::Stdout(data), Sink::Streams) => write(&mut stdout, &data).await,
            (Output::Stderr(data), Sink::Streams) => {
                // Whoever closed stderr does not want to hear what goes wrong.
                let _ = write(&mut stderr, &data).await;
                Ok(())
            }
            (Output::Stdout(data), Sink::Memory(kept)) => {
                kept.truncated |= keep(&mut kept.stdout, &data);
                Ok(())
            }
            (Output::Stderr(data), Sink::Memory(kept)) => {
                kept.truncated |= keep(&mut kept.stderr, &data);
                Ok(())
            }
        };
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(Ended::Left(PIPE_CLOSED));
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

/// Keeps what there is room for; whether something was left out.
fn keep(kept: &mut Vec<u8>, data: &[u8]) -> bool {
    let room = MAX_CAPTURED.saturating_sub(kept.len()).min(data.len());
    kept.extend_from_slice(data.get(..room).unwrap_or_default());
    room < data.len()
}

/// Number of a signal on Linux, x86-64 and aarch64 alike (signal(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Number(u8);

impl Number {
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

struct Signals(Vec<(Number, Signal)>);

impl Signals {
    fn listen() -> io::Result<Self> {
        let listen = |number: Number| {
            let kind = SignalKind::from_raw(number.0.into());
            Ok((number, signal(kind)?))
        };
        Number::ALL.into_iter().map(listen).collect::<io::Result<_>>().map(Self)
    }

    /// The next signal that asks for the end.
    async fn ending(&mut self) -> Number {
        loop {
            let number = self.next().await;
            if matches!(number, Number::HUP | Number::INT | Number::QUIT | Number::TERM) {
                return number;
            }
        }
    }

    async fn next(&mut self) -> Number {
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
    fn kept_output_has_an_end() {
        let mut kept = vec![0; MAX_CAPTURED - 2];
        assert!(!keep(&mut kept, b"a"));
        assert!(keep(&mut kept, b"bc"));
        assert!(keep(&mut kept, b"d"));
        assert_eq!(kept.len(), MAX_CAPTURED);
    }
}
