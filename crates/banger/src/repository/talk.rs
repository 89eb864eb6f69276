//! Commands of a workspace in a guest, for code that blocks: their streams pass through bounded
//! channels.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use banger_api::operation::VmTag;
use banger_api::{ApiError, ErrorCode};
use banger_client::{Client, Exec, ExecRequest, Output, PieceReader};
use banger_workspace::guest::{Guest, Talk};
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::send::MAX_MESSAGE;
use crate::commands::cp::pieces::QUEUE;
use crate::context::Context;

/// Bytes sent at once.
const PIECE: usize = 64 * 1024;

/// The folder on this host that has the record of a machine's workspace. The daemon removes it with
/// the machine.
///
/// # Errors
/// The folders of the installation are not known.
pub fn store_folder(context: &Context, vm: &VmTag) -> Result<PathBuf, ApiError> {
    Ok(context.paths()?.state.join("vms").join(vm.id.as_str()).join("workspace"))
}

/// The guest of a machine.
pub struct Machine {
    client: Client,
    vm: String,
    runtime: Handle,
}

impl Machine {
    /// The guest of this machine; within the runtime that will carry its streams.
    pub fn new(client: &Client, vm: &VmTag) -> Self {
        let vm = vm.id.as_str().to_owned();
        Self { client: client.clone(), vm, runtime: Handle::current() }
    }
}

impl Guest for Machine {
    fn start(&self, command: &[OsString]) -> Result<Talk, ApiError> {
        let request = ExecRequest {
            argv: command.iter().cloned().map(Into::into).collect(),
            stdin: true,
            ..ExecRequest::default()
        };
        let Exec { input, output, .. } = self.runtime.block_on(async {
            Exec::start(self.client.agent_session(&self.vm).await?, &request).await
        })?;
        let (to_guest, mut pieces) = mpsc::channel::<Bytes>(QUEUE);
        self.runtime.spawn(async move {
            while let (Some(piece), Some(input)) = (pieces.recv().await, &input) {
                if !input.send(piece).await {
                    break;
                }
            }
        });
        let (to_host, from) = mpsc::channel(QUEUE);
        let (report, ended) = oneshot::channel();
        self.runtime.spawn(async move { drop(report.send(receive(output, to_host).await)) });
        let end = move || {
            ended.blocking_recv().unwrap_or_else(|_| {
                Err(ApiError::new(ErrorCode::Internal, "a task of this program has failed"))
            })
        };
        Ok(Talk {
            output: Box::new(PieceReader::new(from)),
            input: Box::new(Sender(to_guest)),
            end: Box::new(end),
        })
    }
}

/// Passes output on until the end, which a command of a hostile guest may never reach: without a
/// reader this ends, too.
async fn receive(
    mut output: banger_client::ExecOutput,
    to: mpsc::Sender<Bytes>,
) -> Result<(u8, Vec<u8>), ApiError> {
    let mut messages = Vec::new();
    loop {
        match output.next().await? {
            Output::Stdout(piece) => {
                if to.send(piece.into()).await.is_err() {
                    let text = "the answer of the machine was not read to its end";
                    return Err(ApiError::new(ErrorCode::GuestFailed, text));
                }
            }
            Output::Stderr(piece) => {
                let room = MAX_MESSAGE.saturating_sub(messages.len());
                messages.extend(piece.into_iter().take(room));
            }
            Output::Exit(status) => return Ok((status.shell_code(), messages)),
        }
    }
}

/// Input of the command, which ends when this is dropped.
struct Sender(mpsc::Sender<Bytes>);

impl Write for Sender {
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
