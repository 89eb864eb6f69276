//! Files of a guest over the API, for clients that cannot receive a descriptor: relays archives
//! between the client and the agent without a look at them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HOST, TE, TRAILER};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use banger_agent_proto::MAX_HTTP_HEAD;
use banger_agent_proto::archive::{
    CONTENT_TYPE as ARCHIVE, ERROR_TRAILER, LEFT_OUT_TRAILER, SOURCE_HEADER, Unpacked,
};
use banger_api::{ApiError, ErrorCode, routes};
use futures_util::{StreamExt as _, stream};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::body::PathParams;
use super::document::{self, Binary};
use super::exec::{document, refusal};
use super::{Answer, Shared};
use crate::session;

/// Time limit for the head of an archive.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the rest of a refused archive is read.
const LINGER: Duration = Duration::from_secs(20);

/// Pack a file or folder of a guest as a tar archive.
///
/// The archive is complete only with the last chunk and without the trailer `banger-error`, which
/// has the reason otherwise (send `TE: trailers`); without trailers the body breaks off.
#[utoipa::path(get, path = routes::VM_ARCHIVE, tag = "vms", operation_id = "vm_archive",
    params(
        ("vm" = String, Path, description = "name, id or unique prefix of an id"),
        ("path" = String, Query, description = "any bytes, percent-encoded; not absolute: in the \
            user's home folder"),
        ("name" = Option<String>, Query, description = "name of the top entry"),
        ("link" = Option<String>, Query, description = "`follow`: the target of a symlink"),
        ("user" = Option<String>, Query, description = "user of the guest [default: root]")
    ),
    responses(
        (status = 200, description = "a tar archive; the header `banger-source` is `file`, \
            `folder` or `contents`", body = Binary, content_type = "application/x-tar"),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn download(
    State(api): Shared,
    PathParams(vm): PathParams<String>,
    request: Request,
) -> Answer<Response> {
    let takes_trailers = request
        .headers()
        .get(TE)
        .is_some_and(|te| te.to_str().is_ok_and(|te| te.to_ascii_lowercase().contains("trailers")));
    let (agent, _) = session::connect(&api.engine, &vm, None).await?;
    let answer = tokio::time::timeout(START_TIMEOUT, relay(agent.into(), request)).await;
    let answer = answer.map_err(|_| {
        let seconds = START_TIMEOUT.as_secs();
        ApiError::new(ErrorCode::Timeout, format!("the agent did not answer within {seconds} s"))
    })??;
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    if let Some(source) = answer.headers().get(SOURCE_HEADER) {
        headers.insert(SOURCE_HEADER, source.clone());
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(ARCHIVE));
    let trailers = format!("{ERROR_TRAILER}, {LEFT_OUT_TRAILER}");
    if let Ok(trailers) = HeaderValue::from_str(&trailers) {
        headers.insert(TRAILER, trailers);
    }
    *response.body_mut() = Body::new(Relayed { body: answer.into_body(), takes_trailers });
    Ok(response)
}

/// Unpack a tar archive in a guest.
///
/// Nothing in the archive leaves the target. What was unpacked before an error stays; every file
/// appears complete or not at all.
#[utoipa::path(put, path = routes::VM_ARCHIVE, tag = "vms", operation_id = "vm_unarchive",
    params(
        ("vm" = String, Path, description = "name, id or unique prefix of an id"),
        ("path" = String, Query, description = "any bytes, percent-encoded; not absolute: in the \
            user's home folder"),
        ("source" = String, Query, description = "`file`, `folder` (one top entry) or `contents`"),
        ("name" = Option<String>, Query, description = "name of a file or folder in a folder that \
            exists"),
        ("owners" = Option<String>, Query, description = "`keep`: those of the archive; else the \
            user's"),
        ("user" = Option<String>, Query, description = "user of the guest [default: root]")
    ),
    request_body(content = Binary, content_type = "application/x-tar"),
    responses(
        (status = 200, description = "what was unpacked", body = document::Unpacked),
        (status = "default", description = "the error", body = ApiError)
    ))]
pub async fn upload(
    State(api): Shared,
    PathParams(vm): PathParams<String>,
    request: Request,
) -> Answer<axum::Json<Unpacked>> {
    let (agent, _) = session::connect(&api.engine, &vm, None).await?;
    let answer = relay(agent.into(), request).await?;
    Ok(axum::Json(document(answer).await?))
}

/// The body of an archive. Breaks off at the end of an incomplete archive if the client takes no
/// trailers, and would find the body complete.
struct Relayed {
    body: Incoming,
    takes_trailers: bool,
}

impl hyper::body::Body for Relayed {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let is_whole = |frame: &Frame<Bytes>| {
            frame.trailers_ref().is_none_or(|trailers| !trailers.contains_key(ERROR_TRAILER))
        };
        Poll::Ready(frame.map(|frame| match frame {
            Ok(frame) if self.takes_trailers || is_whole(&frame) => Ok(frame),
            Ok(_) => Err("the archive is not complete".into()),
            Err(error) => Err(error.into()),
        }))
    }
}

/// The body. If the agent refuses it early, the rest is read for a while: a client that still sends
/// may not read the answer on a closed connection.
fn to_its_end(body: Body) -> Body {
    let (to, from) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            if to.send(piece).await.is_err() {
                let rest = async { while let Some(Ok(_)) = pieces.next().await {} };
                let _ = tokio::time::timeout(LINGER, rest).await;
                break;
            }
        }
    });
    let pieces =
        stream::unfold(from, |mut from| async { from.recv().await.map(|piece| (piece, from)) });
    Body::from_stream(pieces)
}

/// Sends the request to the agent, with its query and body as they are.
async fn relay(
    agent: std::os::unix::net::UnixStream,
    request: Request,
) -> Result<hyper::Response<Incoming>, ApiError> {
    let failed = |error: &dyn std::error::Error| {
        ApiError::new(ErrorCode::GuestFailed, "the connection to the agent ended").caused_by(error)
    };
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    if query.len() > MAX_HTTP_HEAD - 1024 {
        return Err(ApiError::new(ErrorCode::BadRequest, "the query is too long"));
    }
    // The agent has no HEAD: the answer to a GET has the same head, and its body is dropped.
    let (method, body) = match parts.method {
        Method::PUT => (Method::PUT, to_its_end(body)),
        _ => (Method::GET, Body::empty()),
    };
    agent.set_nonblocking(true).map_err(|error| failed(&error))?;
    let agent = UnixStream::from_std(agent).map_err(|error| failed(&error))?;
    let (mut sender, connection) = http1::Builder::new()
        .handshake(TokioIo::new(agent))
        .await
        .map_err(|error| failed(&error))?;
    // Errors of the connection also fail the request.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(format!("/archive?{query}"))
        .header(HOST, HeaderValue::from_static("guest"))
        .header(CONTENT_TYPE, ARCHIVE)
        .header(TE, "trailers")
        .body(body)
        .map_err(|error| failed(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| {
        // The body comes from the client.
        if error.is_user() {
            ApiError::new(ErrorCode::BadRequest, "the archive is incomplete").caused_by(&error)
        } else {
            failed(&error)
        }
    })?;
    match answer.status() {
        StatusCode::OK => Ok(answer),
        _ => Err(refusal(answer).await),
    }
}
