//! A command of a simulated guest, connected by frames.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use banger_agent_proto::ByteString;
use banger_agent_proto::exec::{ExecRequest, ExitStatus, WindowSize};
use banger_agent_proto::frame::{Decoder, Frame, STDIN_WINDOW};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::Machine;
use super::shell::{self, Shell};
use super::terminal::{Key, Terminal};

/// Maximum number of queued frames in each direction.
const QUEUED_FRAMES: usize = 16;
/// SIGINT.
const INTERRUPT: u8 = 2;
/// Signals whose default action is not to terminate: SIGCHLD, SIGCONT, SIGURG, SIGWINCH
/// (signal(7)).
const HARMLESS: [u8; 4] = [17, 18, 23, 28];

/// The commands of a connection, which end with it.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Mutex<JoinSet<()>>>);

impl Sessions {
    /// Starts a command.
    pub fn begin(&self, session: impl Future<Output = ()> + Send + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spawn(session);
    }

    /// Waits until all commands have ended. No command may be started during the wait.
    pub async fn ended(&self) {
        let mut all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        while all.join_next().await.is_some() {}
    }
}

/// Standard streams of a command.
pub struct Streams {
    input: mpsc::UnboundedReceiver<Vec<u8>>,
    window: Arc<Semaphore>,
    output: mpsc::Sender<Frame>,
    /// Size of its terminal, if it has one.
    pub size: Option<watch::Receiver<WindowSize>>,
}

impl Streams {
    /// The next input; `None` at its end.
    pub async fn read(&mut self) -> Option<Vec<u8>> {
        let data = self.input.recv().await?;
        let credit = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.window.add_permits(data.len());
        self.send(Frame::Credit(credit)).await;
        Some(data)
    }

    /// Output.
    pub async fn out(&self, data: impl Into<Vec<u8>>) {
        let data = data.into();
        if self.size.is_some() {
            return self.send(Frame::Stdout(Terminal::output(&data))).await;
        }
        self.send(Frame::Stdout(data)).await;
    }

    /// Error output; a terminal has one output only.
    pub async fn err(&self, data: impl Into<Vec<u8>>) {
        if self.size.is_some() {
            return self.out(data).await;
        }
        self.send(Frame::Stderr(data.into())).await;
    }

    async fn send(&self, frame: Frame) {
        // If the client has disconnected, the command ends at the end of its input.
        let _ = self.output.send(frame).await;
    }
}

/// Runs a command to its end; returns how it ended, unless its client disconnected before.
pub async fn run(
    machine: Arc<Machine>,
    request: ExecRequest,
    stream: impl AsyncRead + AsyncWrite + Send,
) -> Option<ExitStatus> {
    let end = Arc::new(OnceLock::new());
    let ended = end.clone();
    let (reader, mut writer) = tokio::io::split(stream);
    let (output, mut frames) = mpsc::channel::<Frame>(QUEUED_FRAMES);
    // Limited by the window, so that pending input does not delay a signal.
    let (keys, input) = mpsc::unbounded_channel();
    let window = Arc::new(Semaphore::new(STDIN_WINDOW as usize));
    let (signals, mut raised) = mpsc::channel(QUEUED_FRAMES);
    let size = request.tty.map(watch::Sender::new);
    let listen = FrameReader {
        keys: request.stdin.then_some(keys),
        window: window.clone(),
        signals,
        terminal: size.map(|size| (Terminal::default(), size)),
        echo: output.clone(),
    };
    let streams = Streams {
        input,
        window,
        output: output.clone(),
        size: listen.terminal.as_ref().map(|(_, size)| size.subscribe()),
    };
    let command = async move {
        let text = |bytes: &ByteString| bytes.to_string_lossy().into_owned();
        let env = request.env.iter().map(|(name, value)| (text(name), text(value))).collect();
        let cwd = request.cwd.as_ref().map(text);
        let argv: Vec<String> = request.argv.iter().map(text).collect();
        let mut shell = Shell::new(machine, env, cwd, streams);
        let status = tokio::select! {
            status = shell::run(&mut shell, &argv) => status,
            Some(signal) = raised.recv() => ExitStatus::Signaled { signal },
        };
        // Set once, here.
        let _ = ended.set(status.clone());
        let _ = output.send(Frame::Exit(status)).await;
    };
    let write = async {
        while let Some(frame) = frames.recv().await {
            let last = matches!(frame, Frame::Exit(_));
            if writer.write_all(&frame.to_bytes()).await.is_err() || last {
                return;
            }
        }
    };
    tokio::select! {
        // The last frame was sent, or the client has disconnected.
        () = write => {}
        // The client has disconnected: the command gets SIGHUP.
        () = listen.run(reader) => {}
        () = async { command.await; std::future::pending().await } => {}
    }
    // The client may have disconnected.
    let _ = writer.shutdown().await;
    end.get().cloned()
}

/// Converts the client's frames to input and signals.
struct FrameReader {
    keys: Option<mpsc::UnboundedSender<Vec<u8>>>,
    window: Arc<Semaphore>,
    signals: mpsc::Sender<u8>,
    terminal: Option<(Terminal, watch::Sender<WindowSize>)>,
    echo: mpsc::Sender<Frame>,
}

impl FrameReader {
    async fn run(mut self, mut reader: impl AsyncRead + Unpin) {
        let mut decoder = Decoder::default();
        let mut piece = vec![0; 16 * 1024];
        loop {
            let count = match reader.read(&mut piece).await {
                Ok(count) if count > 0 => count,
                _ => return,
            };
            decoder.push(piece.get(..count).unwrap_or_default());
            loop {
                match decoder.next_frame() {
                    Ok(Some(Frame::Stdin(data))) if !self.fits(&data) => {
                        tracing::debug!("more input than was credited: the session is cut");
                        return;
                    }
                    Ok(Some(frame)) => self.handle(frame).await,
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(error = %error, "an exec session was cut");
                        return;
                    }
                }
            }
        }
    }

    /// Subtracts input from the window, if it fits; the command's reads return credit.
    fn fits(&self, data: &[u8]) -> bool {
        let permits = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.window.try_acquire_many(permits).map(|permit| permit.forget()).is_ok()
    }

    async fn handle(&mut self, frame: Frame) {
        match frame {
            Frame::Stdin(data) => self.input(data).await,
            Frame::StdinEnd => self.keys = None,
            Frame::Resize(size) => {
                if let Some((_, sender)) = &self.terminal {
                    sender.send_replace(size);
                }
            }
            Frame::Signal(signal) => self.raise(signal).await,
            // Frames of the agent; the real agent ignores them too.
            Frame::Stdout(_) | Frame::Stderr(_) | Frame::Credit(_) | Frame::Exit(_) => {}
        }
    }

    async fn raise(&self, signal: u8) {
        if signal > 0 && !HARMLESS.contains(&signal) {
            // The command may have ended.
            let _ = self.signals.send(signal).await;
        }
    }

    async fn input(&mut self, data: Vec<u8>) {
        let Some((terminal, _)) = &mut self.terminal else {
            return self.pass(data);
        };
        let (echo, keys) = terminal.input(&data);
        if !echo.is_empty() {
            let _ = self.echo.send(Frame::Stdout(echo)).await;
        }
        for key in keys {
            match key {
                Key::Line(line) => self.pass(line),
                Key::End => self.keys = None,
                Key::Interrupt => self.raise(INTERRUPT).await,
            }
        }
    }

    fn pass(&self, data: Vec<u8>) {
        if let Some(keys) = &self.keys {
            // The command may have ended.
            let _ = keys.send(data);
        }
    }
}
