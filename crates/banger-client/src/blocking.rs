//! A command in a guest for code that blocks: its streams pass through bounded channels.

use std::ffi::OsString;
use std::io::{self, Write};
use std::time::Duration;

use banger_agent_proto::exec::ExecRequest;
use banger_api::operation::VmTag;
use banger_api::{ApiError, ErrorCode};
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::client::Client;
use crate::copy_pieces::{Counter, PIECES};
use crate::exec::{Exec, ExecOutput, Output};
use crate::messages::keep_first;
use crate::pieces::PieceReader;

/// Bytes sent at once.
const PIECE: usize = 64 * 1024;
/// Most bytes of standard error that are kept.
const MAX_MESSAGE: usize = 4096;
/// Longest time without a byte in either direction. git is silent while it reads all files of a
/// work tree.
const SILENCE: Duration = Duration::from_secs(15 * 60);

/// Runs commands in the guest of one machine, for code that blocks.
pub struct BlockingGuest {
    client: Client,
    vm: String,
    runtime: Handle,
    /// Bytes of all streams, in both directions.
    counter: Counter,
}

/// A running command.
pub struct BlockingExec {
    /// Its standard output.
    pub output: PieceReader,
    /// Its standard input, which ends when this is dropped.
    pub input: BlockingInput,
    /// Its end.
    pub end: BlockingEnd,
}

/// The end of a command.
pub struct BlockingEnd(oneshot::Receiver<Result<(u8, Vec<u8>), ApiError>>);

impl BlockingEnd {
    /// Waits for it: the exit code, and the first messages of standard error.
    ///
    /// # Errors
    /// The connection ended, or the output was not read to its end.
    pub fn wait(self) -> Result<(u8, Vec<u8>), ApiError> {
        self.0.blocking_recv().unwrap_or_else(|_| {
            Err(ApiError::new(ErrorCode::Internal, "a task of this program has failed"))
        })
    }
}

impl BlockingGuest {
    /// The guest of this machine; within the runtime that will carry its streams.
    pub fn new(client: &Client, vm: &VmTag) -> Self {
        let vm = vm.id.as_str().to_owned();
        Self { client: client.clone(), vm, runtime: Handle::current(), counter: Counter::default() }
    }

    /// Counts the bytes of all its commands, in both directions.
    pub fn counted(self, counter: &Counter) -> Self {
        Self { counter: counter.clone(), ..self }
    }

    /// Starts a command, on a thread that may block.
    ///
    /// # Errors
    /// As [`Client::agent_session`] and [`Exec::start`].
    pub fn start(&self, command: &[OsString]) -> Result<BlockingExec, ApiError> {
        let request = ExecRequest {
            argv: command.iter().cloned().map(Into::into).collect(),
            stdin: true,
            ..ExecRequest::default()
        };
        let Exec { input, output, .. } = self.runtime.block_on(async {
            Exec::start(self.client.agent_session(&self.vm).await?, &request).await
        })?;
        let (to_guest, mut pieces) = mpsc::channel::<Bytes>(PIECES);
        let counter = self.counter.clone();
        self.runtime.spawn(async move {
            while let (Some(piece), Some(input)) = (pieces.recv().await, &input) {
                let length = piece.len();
                if !input.send(piece).await {
                    break;
                }
                counter.add(length);
            }
        });
        let (to_host, from) = mpsc::channel(PIECES);
        let (report, ended) = oneshot::channel();
        let counter = self.counter.clone();
        self.runtime.spawn(async move {
            drop(report.send(receive(output, to_host, &counter).await));
        });
        Ok(BlockingExec {
            output: PieceReader::new(from),
            input: BlockingInput(to_guest),
            end: BlockingEnd(ended),
        })
    }
}

/// What comes next; none if for this long neither it nor any other byte came or went.
async fn unless_silent<T>(
    next: impl Future<Output = T>,
    counter: &Counter,
    limit: Duration,
) -> Option<T> {
    tokio::pin!(next);
    loop {
        let before = counter.bytes();
        match tokio::time::timeout(limit, &mut next).await {
            Ok(came) => return Some(came),
            Err(_) if counter.bytes() == before => return None,
            Err(_) => {}
        }
    }
}

/// Passes output on until the end, which a command of a hostile guest may never reach: without a
/// reader this ends, too.
async fn receive(
    mut output: ExecOutput,
    to: mpsc::Sender<Bytes>,
    counter: &Counter,
) -> Result<(u8, Vec<u8>), ApiError> {
    let mut messages = Vec::new();
    loop {
        let Some(next) = unless_silent(output.next(), counter, SILENCE).await else {
            let minutes = SILENCE.as_secs() / 60;
            let text = format!("a command in the machine has said nothing for {minutes} minutes");
            return Err(ApiError::new(ErrorCode::Timeout, text));
        };
        match next? {
            Output::Stdout(piece) => {
                counter.add(piece.len());
                if to.send(piece.into()).await.is_err() {
                    let text = "the answer of the machine was not read to its end";
                    return Err(ApiError::new(ErrorCode::GuestFailed, text));
                }
            }
            Output::Stderr(piece) => {
                keep_first(&mut messages, piece, MAX_MESSAGE);
            }
            Output::Exit(status) => return Ok((status.shell_code(), messages)),
        }
    }
}

/// Input of a command.
pub struct BlockingInput(mpsc::Sender<Bytes>);

impl Write for BlockingInput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.get(..bytes.len().min(PIECE)).unwrap_or(bytes);
        let sent = self.0.blocking_send(Bytes::copy_from_slice(piece));
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_is_given_up_only_if_no_byte_moves() {
        let limit = Duration::from_millis(20);
        let counter = Counter::default();
        assert_eq!(unless_silent(std::future::pending::<()>(), &counter, limit).await, None);
        let sending = async {
            for _ in 0..10 {
                tokio::time::sleep(limit / 2).await;
                counter.add(1);
            }
            "sent"
        };
        assert_eq!(unless_silent(sending, &counter, limit * 3).await, Some("sent"));
        assert_eq!(unless_silent(async { 1 }, &counter, limit).await, Some(1));
    }
}
