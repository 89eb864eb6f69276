//! A command in a guest: its streams as frames (see [`banger_agent_proto::frame`]) on a connection
//! to the agent or through the daemon.

use std::sync::{Arc, Mutex, PoisonError};

use banger_agent_proto::exec::{ExecRequest, ExitStatus, UPGRADE, WindowSize};
use banger_agent_proto::frame::{Decoder, Frame, MAX_PAYLOAD, STDIN_WINDOW, STDIN_WINDOW_MAX};
use banger_api::{ApiError, ErrorCode, routes};
use bytes::Bytes;
use hyper::StatusCode;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc};

use crate::agent;
use crate::call::Idempotency;
use crate::client::fill;
use crate::http;
use crate::session::{AgentRoute, AgentSession};

/// Capacity of the queue of input, in pieces.
const INPUT_QUEUE: usize = 4;
/// Capacity of the queue of signals and window sizes.
const CONTROL_QUEUE: usize = 64;

/// A running command.
pub struct Exec {
    /// Its input; absent if the request has none.
    pub input: Option<ExecInput>,
    /// Signals and window sizes for it.
    pub control: Control,
    /// Its output and its exit status.
    pub output: ExecOutput,
}

/// Input for a command; the command sees its end when this is dropped.
pub struct ExecInput(mpsc::Sender<Bytes>);

/// Signals and window sizes for a command.
#[derive(Clone)]
pub struct Control(mpsc::Sender<Frame>);

/// Output of a command.
pub struct ExecOutput {
    stream: Box<dyn AsyncRead + Send + Unpin>,
    decoder: Decoder,
    piece: Box<[u8]>,
    credit: Arc<Credit>,
    _lease: Option<UnixStream>,
}

/// One piece of output, or the exit status.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Its output.
    Stdout(Vec<u8>),
    /// Its error output.
    Stderr(Vec<u8>),
    /// The command ended; nothing follows.
    Exit(ExitStatus),
}

/// Flow control of the input.
struct Credit {
    /// Bytes that the agent accepts.
    bytes: Mutex<u32>,
    more: Notify,
}

impl Credit {
    /// Takes up to `wanted` bytes, at least one.
    async fn take(&self, wanted: usize) -> usize {
        loop {
            {
                let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
                let taken = (*bytes).min(u32::try_from(wanted).unwrap_or(u32::MAX));
                if taken > 0 {
                    *bytes -= taken;
                    return taken as usize;
                }
            }
            self.more.notified().await;
        }
    }

    /// Adds credit up to [`STDIN_WINDOW_MAX`], whatever the guest grants.
    fn give(&self, more: u32) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *bytes = bytes.saturating_add(more).min(STDIN_WINDOW_MAX);
        self.more.notify_one();
    }
}

impl Exec {
    /// Starts a command.
    ///
    /// # Errors
    /// The agent refuses the request (unknown user, missing folder), or does not answer within
    /// [`agent::ANSWER_TIMEOUT`].
    pub async fn start(
        session: impl Into<AgentSession>,
        request: &ExecRequest,
    ) -> Result<Self, ApiError> {
        agent::within(agent::ANSWER_TIMEOUT, Self::start_unbounded(session.into(), request)).await
    }

    async fn start_unbounded(
        session: AgentSession,
        request: &ExecRequest,
    ) -> Result<Self, ApiError> {
        let upgrading = |path: &str| {
            let call = agent::command_call(path, request)?.with_header("connection", "upgrade");
            Ok::<_, ApiError>(call.with_header("upgrade", UPGRADE))
        };
        let (answer, lease) = match session.0 {
            AgentRoute::Descriptor { agent, lease } => {
                (agent::ask(agent, upgrading("/exec")?).await?, lease)
            }
            AgentRoute::Upgrade { client, vm } => {
                let call = upgrading(&fill(routes::VM_EXEC, "vm", &vm)?)?;
                let answer = client.answer(call, Idempotency::NotIdempotent).await?;
                if !answer.status().is_informational() {
                    http::accept(answer).await?;
                    let text = "the daemon did not start the command";
                    return Err(ApiError::new(ErrorCode::DaemonUnavailable, text));
                }
                (answer, None)
            }
        };
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let text = format!("the agent did not start the command ({})", answer.status());
            return Err(ApiError::new(ErrorCode::GuestFailed, text));
        }
        let broken = |error: &dyn std::error::Error| {
            ApiError::new(ErrorCode::GuestFailed, "the agent did not begin the session")
                .caused_by(error)
        };
        let upgraded = hyper::upgrade::on(answer).await.map_err(|error| broken(&error))?;
        let credit = Arc::new(Credit { bytes: Mutex::new(STDIN_WINDOW), more: Notify::new() });
        let (control, controls) = mpsc::channel(CONTROL_QUEUE);
        let (input, inputs) = mpsc::channel(INPUT_QUEUE);
        let input = request.stdin.then_some(ExecInput(input));
        let source = SendQueues { inputs: request.stdin.then_some(inputs), controls };
        let mut decoder = Decoder::default();
        let stream: Box<dyn AsyncRead + Send + Unpin> =
            match upgraded.downcast::<TokioIo<UnixStream>>() {
                Ok(parts) => {
                    decoder.push(&parts.read_buf);
                    let (read, mut write) = parts.io.into_inner().into_split();
                    let credit = credit.clone();
                    tokio::spawn(async move {
                        send(&mut write, source, credit).await;
                        // A half-close would end the whole connection on vsock.
                        write.forget();
                    });
                    Box::new(read)
                }
                Err(relayed) => {
                    let (read, mut write) = tokio::io::split(TokioIo::new(relayed));
                    let credit = credit.clone();
                    tokio::spawn(async move { send(&mut write, source, credit).await });
                    Box::new(read)
                }
            };
        let piece = vec![0; MAX_PAYLOAD].into_boxed_slice();
        let output = ExecOutput { stream, decoder, piece, credit, _lease: lease };
        Ok(Self { input, control: Control(control), output })
    }
}

impl ExecInput {
    /// Queues input, waiting for room in the queue; false if the command accepts no more.
    pub async fn send(&self, data: Bytes) -> bool {
        self.0.send(data).await.is_ok()
    }
}

impl Control {
    /// Sends a signal to the command's process group. A signal is dropped if the queue is full.
    pub fn signal(&self, number: u8) {
        let _ = self.0.try_send(Frame::Signal(number));
    }

    /// Sends the size of the user's terminal.
    pub fn resize(&self, size: WindowSize) {
        let _ = self.0.try_send(Frame::Resize(size));
    }
}

impl ExecOutput {
    /// The next piece. Cancel-safe.
    ///
    /// # Errors
    /// The connection ended before the command did, or the guest sent malformed frames.
    pub async fn next(&mut self) -> Result<Output, ApiError> {
        let malformed = |error: &dyn std::error::Error| {
            ApiError::new(ErrorCode::GuestFailed, "the guest agent sent a malformed frame")
                .caused_by(error)
        };
        loop {
            match self.decoder.next_frame().map_err(|error| malformed(&error))? {
                Some(Frame::Stdout(data)) => return Ok(Output::Stdout(data)),
                Some(Frame::Stderr(data)) => return Ok(Output::Stderr(data)),
                Some(Frame::Exit(status)) => return Ok(Output::Exit(status)),
                Some(Frame::Credit(bytes)) => self.credit.give(bytes),
                Some(Frame::Stdin(_) | Frame::StdinEnd | Frame::Resize(_) | Frame::Signal(_)) => {
                    let text = "the guest agent sent a frame that only clients send";
                    return Err(ApiError::new(ErrorCode::GuestFailed, text));
                }
                None => {
                    let cut = "the connection to the guest ended before the command did";
                    let cut = ApiError::new(ErrorCode::GuestFailed, cut);
                    match self.stream.read(&mut self.piece).await {
                        Ok(0) => return Err(cut),
                        Ok(length) => self.decoder.push(&self.piece[..length]),
                        Err(error) => return Err(cut.caused_by(&error)),
                    }
                }
            }
        }
    }
}

struct SendQueues {
    inputs: Option<mpsc::Receiver<Bytes>>,
    controls: mpsc::Receiver<Frame>,
}

/// Sends frames: signals and window sizes first, input within the agent's credit.
async fn send(stream: &mut (impl AsyncWrite + Unpin), mut source: SendQueues, credit: Arc<Credit>) {
    let mut pending = Bytes::new();
    loop {
        let wanted = pending.len().min(MAX_PAYLOAD);
        let frame = tokio::select! {
            biased;
            Some(frame) = source.controls.recv() => frame,
            count = credit.take(wanted), if wanted > 0 => {
                Frame::Stdin(pending.split_to(count).into())
            }
            input = next_input(&mut source.inputs), if wanted == 0 && source.inputs.is_some() => {
                match input {
                    Some(bytes) => {
                        pending = bytes;
                        continue;
                    }
                    None => {
                        source.inputs = None;
                        Frame::StdinEnd
                    }
                }
            }
            else => break,
        };
        if stream.write_all(&frame.to_bytes()).await.is_err() {
            // The reader reports the end of the connection.
            break;
        }
    }
}

async fn next_input(inputs: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    match inputs {
        Some(inputs) => inputs.recv().await,
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// An agent that answers the request with `101` and then does nothing.
    async fn agent(mut stream: UnixStream) -> UnixStream {
        let mut head = Vec::new();
        while !head.ends_with(b"}") {
            let mut piece = [0; 1024];
            let length = stream.read(&mut piece).await.unwrap();
            assert!(length > 0, "the client went away");
            head.extend_from_slice(&piece[..length]);
        }
        let text = String::from_utf8(head).unwrap();
        assert!(text.starts_with("POST /exec HTTP/1.1\r\n"), "{text}");
        assert!(text.contains("upgrade: banger-exec/1\r\n"), "{text}");
        let answer = "HTTP/1.1 101 Switching Protocols\r\n\
            connection: upgrade\r\nupgrade: banger-exec/1\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream
    }

    fn request(stdin: bool) -> ExecRequest {
        ExecRequest { argv: vec!["cat".into()], stdin, ..ExecRequest::default() }
    }

    /// Reads frames until the connection or the input ends; gives credit for each piece of input.
    async fn echo(mut stream: UnixStream) {
        let mut decoder = Decoder::default();
        let mut piece = vec![0; 4096];
        let mut unpaid = 0u32;
        loop {
            let length = stream.read(&mut piece).await.unwrap();
            assert!(length > 0, "the client went away");
            decoder.push(&piece[..length]);
            while let Some(frame) = decoder.next_frame().unwrap() {
                match frame {
                    Frame::Stdin(data) => {
                        unpaid += data.len() as u32;
                        assert!(unpaid <= STDIN_WINDOW, "sent without credit");
                        let mut out = Frame::Stdout(data.clone()).to_bytes();
                        Frame::Credit(data.len() as u32).encode(&mut out);
                        unpaid -= data.len() as u32;
                        stream.write_all(&out).await.unwrap();
                    }
                    Frame::Signal(number) => {
                        let text = format!("signal {number}");
                        let frame = Frame::Stderr(text.into_bytes());
                        stream.write_all(&frame.to_bytes()).await.unwrap();
                    }
                    Frame::StdinEnd => {
                        let exit = Frame::Exit(ExitStatus::Exited { code: 7 });
                        stream.write_all(&exit.to_bytes()).await.unwrap();
                        return;
                    }
                    other => panic!("unexpected {other:?}"),
                }
            }
        }
    }

    #[tokio::test]
    async fn large_input_is_echoed_intact() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let guest = tokio::spawn(async { echo(agent(theirs).await).await });
        let Exec { input, mut output, .. } = Exec::start(ours, &request(true)).await.unwrap();
        let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let data = Bytes::from(sent.clone());
        let feed = tokio::spawn(async move {
            let input = input.unwrap();
            for piece in data.chunks(100_001) {
                assert!(input.send(Bytes::copy_from_slice(piece)).await);
            }
        });
        let mut received = Vec::new();
        let exit = loop {
            match output.next().await.unwrap() {
                Output::Stdout(data) => received.extend(data),
                Output::Stderr(data) => panic!("{data:?}"),
                Output::Exit(status) => break status,
            }
        };
        assert_eq!(exit, ExitStatus::Exited { code: 7 });
        assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
        feed.await.unwrap();
        guest.await.unwrap();
    }

    #[tokio::test]
    async fn a_signal_passes_input_that_waits_for_credit() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let guest = tokio::spawn(async {
            let mut stream = agent(theirs).await;
            let mut decoder = Decoder::default();
            let mut piece = vec![0; 4096];
            let mut input = 0;
            loop {
                let length = stream.read(&mut piece).await.unwrap();
                decoder.push(&piece[..length]);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    match frame {
                        Frame::Stdin(data) => input += data.len(),
                        Frame::Signal(15) => return input,
                        other => panic!("unexpected {other:?}"),
                    }
                }
            }
        });
        let Exec { input, control, .. } = Exec::start(ours, &request(true)).await.unwrap();
        let input = input.unwrap();
        let large = Bytes::from(vec![0; 2 * STDIN_WINDOW as usize]);
        assert!(input.send(large).await);
        control.signal(15);
        assert!(guest.await.unwrap() <= STDIN_WINDOW as usize);
    }

    /// A hostile agent, before a command has started.
    async fn hostile_agent(mut stream: UnixStream, behaviour: &str) {
        let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                    upgrade: banger-exec/1\r\n\r\n";
        match behaviour {
            "silent" => std::future::pending().await,
            "drips" => {
                for byte in head.bytes().cycle() {
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(40)).await;
                }
            }
            "continues" => {
                while stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_ok() {}
            }
            "stops in its head" => {
                stream.write_all(&head.as_bytes()[..40]).await.unwrap();
                std::future::pending().await
            }
            "refuses without end" => {
                let refusal = "HTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(refusal.as_bytes()).await.unwrap();
                while stream.write_all(b"1\r\nx\r\n").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            other => panic!("unknown behaviour: {other}"),
        }
    }

    #[tokio::test]
    async fn a_hostile_agent_cannot_delay_a_start_beyond_its_limit() {
        for behaviour in
            ["silent", "drips", "continues", "stops in its head", "refuses without end"]
        {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let guest = tokio::spawn(hostile_agent(theirs, behaviour));
            let request = request(true);
            let start = Exec::start_unbounded(ours.into(), &request);
            let Err(error) = agent::within(Duration::from_millis(300), start).await else {
                panic!("{behaviour}: started");
            };
            assert_eq!(error.code, ErrorCode::GuestFailed, "{behaviour}");
            assert!(error.message.contains("does not answer within 0.3 s"), "{behaviour}: {error}");
            guest.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_agent_times_out() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = Exec::start(ours, &request(false)).await.map(|_| ()).unwrap_err();
        assert!(error.message.ends_with("does not answer within 30 s"), "{error}");
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = agent::health(ours).await.unwrap_err();
        assert!(error.message.ends_with("does not answer within 30 s"), "{error}");
    }

    #[tokio::test]
    async fn next_is_cancel_safe() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let frame = Frame::Stdout(b"whole".to_vec()).to_bytes();
        let (half, rest) = frame.split_at(7);
        let (half, rest) = (half.to_vec(), rest.to_vec());
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let guest = tokio::spawn(async move {
            let mut stream = agent(theirs).await;
            stream.write_all(&half).await.unwrap();
            gone.await.unwrap();
            stream.write_all(&rest).await.unwrap();
        });
        let mut exec = Exec::start(ours, &request(false)).await.unwrap();
        // Half a frame: `next` waits for the rest.
        let waited = tokio::time::timeout(Duration::from_millis(100), exec.output.next()).await;
        assert!(waited.is_err());
        go.send(()).unwrap();
        assert_eq!(exec.output.next().await.unwrap(), Output::Stdout(b"whole".to_vec()));
        guest.await.unwrap();
    }

    #[tokio::test]
    async fn errors_of_broken_sessions_name_the_cause() {
        for (sent, expected) in [
            (Frame::Stdin(b"x".to_vec()).to_bytes(), "sent a frame that only clients send"),
            (vec![99, 0, 0, 0, 0], "sent a malformed frame"),
            (vec![16, 0xff, 0xff, 0xff, 0xff], "sent a malformed frame"),
            (vec![16, 0, 0, 0, 9, 1], "ended before the command did"),
            (Vec::new(), "ended before the command did"),
        ] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let guest = tokio::spawn(async move {
                let mut stream = agent(theirs).await;
                stream.write_all(&sent).await.unwrap();
            });
            let mut exec = Exec::start(ours, &request(false)).await.unwrap();
            assert!(exec.input.is_none());
            let error = exec.output.next().await.unwrap_err();
            assert!(error.message.ends_with(expected), "{error}");
            guest.await.unwrap();
        }
    }

    #[tokio::test]
    async fn refusals_are_reported_and_oversized_ones_are_cut_off() {
        let huge = "x".repeat(2 * 1024 * 1024);
        for (status, body, expected) in [
            ("400 Bad Request", r#"{"error":"there is no user `x`"}"#, "there is no user `x`"),
            ("500 Oh", "nonsense", "the agent refused (500 Internal Server Error)"),
            ("400 Bad Request", huge.as_str(), "the agent did not send a whole answer"),
        ] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let guest = tokio::spawn(async move {
                let mut piece = [0; 4096];
                assert!(theirs.read(&mut piece).await.unwrap() > 0);
                // The client hangs up on the flood.
                let _ = theirs.write_all(answer.as_bytes()).await;
            });
            let error = match Exec::start(ours, &request(false)).await {
                Ok(_) => panic!("{expected}"),
                Err(error) => error,
            };
            assert!(error.message.starts_with(expected), "{error}");
            guest.await.unwrap();
        }
    }
}
