//! Live folders of a simulated guest: the server of a real one, for a folder of its files.

use std::os::unix::net::UnixStream as StdStream;

use banger_agent_proto::archive::NO_PATH;
use banger_archive::beneath::{Links, Owner};
use banger_sync_side::{Rules, Side, UPGRADE};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, UPGRADE as UPGRADE_HEADER};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::archive::{Files, Query};
use super::{Answer, exec, refused};

/// `POST /sync`.
pub fn start(files: &Files, sessions: &exec::Sessions, mut request: Request<Incoming>) -> Answer {
    let side = match open(files, &request) {
        Ok(side) => side,
        Err(problem) => {
            let status = StatusCode::from_u16(NO_PATH).unwrap_or(StatusCode::GONE);
            return refused(status, problem);
        }
    };
    let upgrade = hyper::upgrade::on(&mut request);
    sessions.begin(async move {
        let Ok(upgraded) = upgrade.await else { return };
        if let Err(error) = serve(TokioIo::new(upgraded), side).await {
            tracing::debug!(error = %error, "a live folder of a simulated guest ended");
        }
    });
    let switching = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE_HEADER, UPGRADE)
        .body(Full::default().boxed());
    switching.unwrap_or_else(|error| refused(StatusCode::BAD_REQUEST, error.to_string()))
}

fn open(files: &Files, request: &Request<Incoming>) -> Result<Side, String> {
    let query = Query::of(request);
    let root = files.open().map_err(|failure| failure.chain())?;
    let path = query.path().map_err(|failure| failure.chain())?;
    let folder = match query.get("make") {
        Some(_) => root.make_folders(&path, Owner::ROOT, 0o755),
        None => root.folder(&path, Links::Inside),
    };
    let side = folder.and_then(|folder| Side::new(folder, Rules::default()));
    side.map_err(|error| format!("cannot open the folder: {error}"))
}

/// The server blocks a thread of its own, which ends with the connection.
async fn serve(
    mut client: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    side: Side,
) -> std::io::Result<()> {
    let (ours, theirs) = StdStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut ours = UnixStream::from_std(ours)?;
    std::thread::spawn(move || banger_sync_side::serve(theirs, &[], side));
    tokio::io::copy_bidirectional(&mut client, &mut ours).await.map(drop)
}
