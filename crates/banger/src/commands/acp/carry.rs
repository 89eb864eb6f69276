//! Carries lines between the editor, on the streams of this process, and the agent in a guest.

use std::io;
use std::sync::Arc;

use banger_agents::acp::{MAX_MESSAGE, Passed, Relay};
use banger_api::{ApiError, ErrorCode};
use banger_client::{Exec, ExecInput, ExecOutput, ExitStatus, Output};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc::{self, Receiver, Sender, WeakSender};
use tokio::task::JoinSet;

use super::checkout::Checkout;
use crate::render::{plain, to_stderr};

/// Lines that wait for a slow reader, in each direction.
const QUEUE: usize = 4;
/// Bytes of one read.
const MAX_READ: usize = 64 * 1024;

/// How a conversation ended.
pub enum Ended {
    /// The agent ended.
    Agent(ExitStatus),
    /// The editor reads no more.
    Editor,
}

/// Carries messages until the agent ends or the editor is gone.
///
/// # Errors
/// The connection to the guest ends before the agent; a message that is too long.
pub async fn carry(exec: Exec, relay: Relay<Checkout>) -> Result<Ended, ApiError> {
    let Exec { input, control: _control, output } = exec;
    let (to_editor, for_editor) = mpsc::channel(QUEUE);
    let (to_agent, for_agent) = mpsc::channel(QUEUE);
    let relay = Arc::new(relay);
    // They end with this function.
    let mut tasks = JoinSet::new();
    tasks.spawn(feed(input, for_agent));
    let (weak, back) = (to_agent.downgrade(), to_editor.downgrade());
    let (failed, mut failures) = mpsc::channel(1);
    let editors = relay.clone();
    tasks.spawn(async move {
        let stdin = tokio::io::stdin();
        if let Err(error) = from_editor(stdin, &editors, to_agent, &back).await {
            // The agent may have ended meanwhile.
            let _ = failed.send(error).await;
        }
    });
    let writing = write(tokio::io::stdout(), for_editor);
    let reading = from_agent(output, &relay, to_editor, &weak);
    tokio::pin!(writing, reading);
    tokio::select! {
        ended = &mut reading => {
            let status = ended?;
            // What it said last.
            match writing.await {
                Ok(()) => Ok(Ended::Agent(status)),
                Err(_) => Ok(Ended::Editor),
            }
        }
        written = &mut writing => match written {
            // Only the agent's end closes the queue.
            Ok(()) => reading.await.map(Ended::Agent),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Ended::Editor),
            Err(error) => Err(crate::errors::output_failed(&error)),
        },
        Some(error) = failures.recv() => Err(error),
    }
}

/// Sends lines to the agent; at their end its input ends.
async fn feed(input: Option<ExecInput>, mut lines: Receiver<Bytes>) {
    let Some(input) = input else { return };
    while let Some(line) = lines.recv().await {
        if !input.send(line).await {
            return;
        }
    }
}

/// Writes lines to the editor.
async fn write(mut stdout: tokio::io::Stdout, mut lines: Receiver<Bytes>) -> io::Result<()> {
    while let Some(line) = lines.recv().await {
        stdout.write_all(&line).await?;
        stdout.flush().await?;
    }
    Ok(())
}

async fn from_editor(
    mut stdin: impl AsyncRead + Unpin,
    relay: &Relay<Checkout>,
    to_agent: Sender<Bytes>,
    back: &WeakSender<Bytes>,
) -> Result<(), ApiError> {
    let mut lines = Lines::default();
    loop {
        let mut piece = BytesMut::with_capacity(MAX_READ);
        let is_over = match stdin.read_buf(&mut piece).await {
            Ok(length) => length == 0,
            Err(error) => {
                let text = "standard input cannot be read";
                return Err(ApiError::new(ErrorCode::Internal, text).caused_by(&error));
            }
        };
        if is_over {
            let Some(rest) = lines.rest() else { return Ok(()) };
            pass(relay.from_editor(&rest), b"", &to_agent, back).await;
            return Ok(());
        }
        lines.push(&piece);
        while let Some(line) = lines.next("the editor")? {
            pass(relay.from_editor(&line), b"\n", &to_agent, back).await;
        }
    }
}

async fn from_agent(
    mut output: ExecOutput,
    relay: &Relay<Checkout>,
    to_editor: Sender<Bytes>,
    back: &WeakSender<Bytes>,
) -> Result<ExitStatus, ApiError> {
    let mut lines = Lines::default();
    let mut stderr = tokio::io::stderr();
    loop {
        match output.next().await? {
            Output::Stdout(piece) => {
                lines.push(&piece);
                while let Some(line) = lines.next("the agent")? {
                    pass(relay.from_agent(&line), b"\n", &to_editor, back).await;
                }
            }
            Output::Stderr(piece) => {
                // A closed standard error does not end the conversation.
                let _ = stderr.write_all(&piece).await;
                let _ = stderr.flush().await;
            }
            Output::Exit(status) => {
                if let Some(rest) = lines.rest() {
                    pass(relay.from_agent(&rest), b"", &to_editor, back).await;
                }
                return Ok(status);
            }
        }
    }
}

/// Sends a message where it goes.
async fn pass(passed: Passed<'_>, end: &[u8], on: &Sender<Bytes>, back: &WeakSender<Bytes>) {
    // A receiver that is gone ends the conversation elsewhere.
    match passed {
        Passed::On(line) => drop(on.send([line.as_ref(), end].concat().into()).await),
        Passed::Back(mut line) => {
            line.push(b'\n');
            if let Some(back) = back.upgrade() {
                drop(back.send(line.into()).await);
            }
        }
        Passed::Nowhere(text) => {
            to_stderr(&format!("banger: {}", plain::line(&text)));
        }
    }
}

/// Bytes that arrive in pieces, as lines.
#[derive(Default)]
struct Lines {
    bytes: BytesMut,
    /// How many of them have no end of line.
    searched: usize,
}

impl Lines {
    fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// The next line, without its end.
    ///
    /// # Errors
    /// It is longer than [`MAX_MESSAGE`].
    fn next(&mut self, sender: &str) -> Result<Option<BytesMut>, ApiError> {
        let fresh = self.bytes.get(self.searched..).unwrap_or_default();
        let found = fresh.iter().position(|byte| *byte == b'\n').map(|at| self.searched + at);
        let length = found.unwrap_or(self.bytes.len());
        if length > MAX_MESSAGE {
            let text = format!("a message of {sender} has more than {} MiB", MAX_MESSAGE >> 20);
            return Err(ApiError::new(ErrorCode::BadRequest, text));
        }
        let Some(at) = found else {
            self.searched = length;
            return Ok(None);
        };
        self.searched = 0;
        let mut line = self.bytes.split_to(at + 1);
        line.truncate(at);
        Ok(Some(line))
    }

    /// What follows the last end of line.
    fn rest(&mut self) -> Option<BytesMut> {
        let rest = std::mem::take(&mut self.bytes);
        (!rest.is_empty()).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_arrive_in_any_pieces_and_have_a_limit() {
        for size in 1..9 {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for piece in b"one\n\ntwo\r\nrest".chunks(size) {
                lines.push(piece);
                while let Some(line) = lines.next("x").unwrap() {
                    found.push(line.to_vec());
                }
            }
            assert_eq!(found, [&b"one"[..], b"", b"two\r"], "{size}");
            assert_eq!(lines.rest().as_deref(), Some(&b"rest"[..]));
            assert_eq!(lines.rest(), None);
        }
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; MAX_MESSAGE]);
        assert_eq!(lines.next("x").unwrap(), None);
        lines.push(b"x");
        assert!(lines.next("the agent").unwrap_err().message.contains("the agent has more than"));
    }
}
