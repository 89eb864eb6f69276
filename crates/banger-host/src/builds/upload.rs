//! Files of this host into a guest: the client of the agent's `PUT /archive`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use banger_agent_proto::archive::{CONTENT_TYPE, encode};
use banger_api::build::BuildCopy;
use banger_api::{ApiError, ErrorCode};
use banger_archive::pack::{self, Devices};
use banger_archive::place::{self, LastLink};
use banger_archive::{Cause, Failure};
use banger_engine::plan::VmPlan;
use bytes::Bytes;
use hyper::body::{Body, Frame};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::command::refused;
use super::lost;

/// Pieces of an archive on their way.
const QUEUE: usize = 4;

struct Pieces(mpsc::Receiver<io::Result<Bytes>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// Passes what is written on to the request; fails once the request has ended.
struct Sender(mpsc::Sender<io::Result<Bytes>>);

impl io::Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Ok(Bytes::copy_from_slice(bytes));
        self.0.blocking_send(piece).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn failed(failure: &Failure) -> ApiError {
    let code = match failure.cause {
        Cause::Missing => ErrorCode::NotFound,
        _ => ErrorCode::BadRequest,
    };
    ApiError::new(code, failure.chain())
}

/// Copies a file or folder; it belongs to root in the guest.
///
/// # Errors
/// A file that cannot be read; the agent's refusal; the connection's.
pub async fn send(agent: UnixStream, vm: &VmPlan, copy: &BuildCopy) -> Result<(), ApiError> {
    let path = copy.source.as_bytes().to_vec();
    let opened = place::source(None, &path, LastLink::Follow);
    let (file, source) = opened.map_err(|failure| failed(&failure))?;
    let name = place::name(&path).to_vec();
    let target = format!(
        "/archive?path={}&source={}&name={}",
        encode(copy.target.as_bytes()),
        source.as_str(),
        encode(&name)
    );
    let (to, from) = mpsc::channel(QUEUE);
    let packing = tokio::task::spawn_blocking(move || {
        let top = pack::Top { name: &name, path: &path };
        let packed = pack::pack(&file, top, Devices::LeaveOut, Sender(to.clone()));
        if packed.is_err() {
            // The agent must not take the archive for a complete one.
            let _ = to.blocking_send(Err(io::ErrorKind::InvalidData.into()));
        }
        packed
    });
    let answer = put(agent, vm, target, Pieces(from)).await;
    let packed = packing.await.map_err(|error| lost(vm, &error))?;
    match packed {
        // The request has ended: its error is the cause.
        Err(Failure { cause: Cause::Stream, .. }) => answer,
        Err(failure) => Err(failed(&failure)),
        Ok(_) => answer,
    }
}

async fn put(agent: UnixStream, vm: &VmPlan, target: String, body: Pieces) -> Result<(), ApiError> {
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .handshake(TokioIo::new(agent))
        .await
        .map_err(|error| lost(vm, &error))?;
    tokio::spawn(connection);
    let request = Request::put(target)
        .header("host", "agent")
        .header("content-type", CONTENT_TYPE)
        .body(body)
        .map_err(|error| lost(vm, &error))?;
    let answer = sender.send_request(request).await.map_err(|error| lost(vm, &error))?;
    match answer.status() {
        StatusCode::OK => Ok(()),
        _ => Err(refused(vm, answer).await),
    }
}
