//! Commands in a guest that run to their end: the client of the agent's `POST /exec`.

use banger_agent_proto::exec::{ExecRequest, ExitStatus, UPGRADE};
use banger_agent_proto::frame::{Decoder, Frame, MAX_PAYLOAD, STDIN_WINDOW};
use banger_agent_proto::http::ErrorBody;
use banger_agent_proto::{MAX_HTTP_HEAD, MAX_JSON_BODY};
use banger_api::{ApiError, ErrorCode};
use banger_engine::drivers::{GuestCommand, GuestExit, GuestOutput};
use banger_engine::plan::VmPlan;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::lost;
use crate::guest::clean;

/// A started command.
pub struct Session {
    stream: TokioIo<Upgraded>,
    decoder: Decoder,
}

impl Session {
    /// Starts a command.
    ///
    /// # Errors
    /// The connection's; the agent's refusal.
    pub async fn start(
        agent: UnixStream,
        vm: &VmPlan,
        command: &GuestCommand,
    ) -> Result<Self, ApiError> {
        let body = ExecRequest {
            argv: command.argv.iter().map(|arg| arg.as_str().into()).collect(),
            stdin: true,
            ..ExecRequest::default()
        };
        let body = serde_json::to_vec(&body).map_err(|error| lost(vm, &error))?;
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(MAX_HTTP_HEAD)
            .handshake(TokioIo::new(agent))
            .await
            .map_err(|error| lost(vm, &error))?;
        // Its errors also fail the request.
        tokio::spawn(connection.with_upgrades());
        let request = Request::post("/exec")
            .header("host", "agent")
            .header("connection", "upgrade")
            .header("upgrade", UPGRADE)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| lost(vm, &error))?;
        let answer = sender.send_request(request).await.map_err(|error| lost(vm, &error))?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refused(vm, answer).await);
        }
        let stream = hyper::upgrade::on(answer).await.map_err(|error| lost(vm, &error))?;
        Ok(Self { stream: TokioIo::new(stream), decoder: Decoder::default() })
    }

    /// Sends the input and passes the output on until the command ends.
    ///
    /// # Errors
    /// The connection ends before the command; malformed frames.
    pub async fn finish(
        &mut self,
        vm: &VmPlan,
        stdin: &[u8],
        output: GuestOutput<'_>,
    ) -> Result<GuestExit, ApiError> {
        let mut input = stdin;
        let mut ended = false;
        let mut credit = STDIN_WINDOW;
        let mut piece = vec![0; MAX_PAYLOAD];
        loop {
            while let Some(frame) = self.decoder.next_frame().map_err(|error| lost(vm, &error))? {
                match frame {
                    Frame::Stdout(data) | Frame::Stderr(data) => output(&data),
                    Frame::Credit(more) => credit = credit.saturating_add(more),
                    Frame::Exit(status) => return Ok(exit_of(status)),
                    // The agent sends no others.
                    Frame::Stdin(_) | Frame::StdinEnd | Frame::Resize(_) | Frame::Signal(_) => {}
                }
            }
            while credit > 0 && !input.is_empty() {
                let room = usize::try_from(credit).unwrap_or(usize::MAX);
                let count = input.len().min(room).min(MAX_PAYLOAD);
                let (now, later) = input.split_at(count);
                self.send(vm, &Frame::Stdin(now.to_vec())).await?;
                credit = credit.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
                input = later;
            }
            if input.is_empty() && !ended {
                self.send(vm, &Frame::StdinEnd).await?;
                ended = true;
            }
            match self.stream.read(&mut piece).await.map_err(|error| lost(vm, &error))? {
                0 => {
                    let end = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                    return Err(lost(vm, &end));
                }
                count => self.decoder.push(piece.get(..count).unwrap_or_default()),
            }
        }
    }

    async fn send(&mut self, vm: &VmPlan, frame: &Frame) -> Result<(), ApiError> {
        let sent = self.stream.write_all(&frame.to_bytes()).await;
        sent.map_err(|error| lost(vm, &error))?;
        self.stream.flush().await.map_err(|error| lost(vm, &error))
    }
}

fn exit_of(status: ExitStatus) -> GuestExit {
    let code = status.shell_code();
    let message = match status {
        ExitStatus::NotStarted { message, .. } => Some(clean(&message)),
        ExitStatus::Exited { .. } | ExitStatus::Signaled { .. } => None,
    };
    GuestExit { code, message }
}

/// The agent's refusal as an error.
pub(super) async fn refused(
    vm: &VmPlan,
    answer: hyper::Response<hyper::body::Incoming>,
) -> ApiError {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_JSON_BODY).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let message = serde_json::from_slice::<ErrorBody>(&body)
        .map_or_else(|_| format!("the agent answered {status}"), |body| clean(&body.error));
    let code =
        if status.is_client_error() { ErrorCode::BadRequest } else { ErrorCode::GuestFailed };
    ApiError::new(code, format!("in `{}`: {message}", vm.name))
}
