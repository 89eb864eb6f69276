//! TCP ports of a simulated guest: port 22 sends a banner as an ssh server does, and then echoes;
//! port 4096 answers one request as opencode does. Nothing else listens.

use banger_agent_proto::forward;
use banger_agent_proto::ssh::{NOT_LISTENING, SshServer, UPGRADE};
use banger_api::opencode;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, UPGRADE as UPGRADE_HEADER};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Answer, exec, refused};

/// Maximum length of the head of a request in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// User and password of the simulated opencode, as HTTP basic authentication has them.
const CREDENTIALS: &str = "b3BlbmNvZGU6c2ltdWxhdGVkLXBhc3N3b3Jk";

/// First line that the server sends (RFC 4253, section 4.2).
const BANNER: &[u8] = b"SSH-2.0-simulated\r\n";

/// The ssh server, with a key that no private key belongs to.
pub fn server() -> SshServer {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHNpbXVsYXRlZHNpbXVsYXRlZHNpbXVsYXRlZHNp";
    SshServer { installed: true, host_keys: vec![key.into()] }
}

/// Upgrades the connection to the bytes of the port.
pub fn start(sessions: &exec::Sessions, mut request: Request<Incoming>) -> Answer {
    let query = request.uri().query().unwrap_or_default();
    let listens = |port: u16| query.split('&').any(|given| given == format!("port={port}"));
    let opencode = listens(opencode::PORT);
    if !opencode && !listens(22) {
        let status = StatusCode::from_u16(NOT_LISTENING).unwrap_or(StatusCode::BAD_GATEWAY);
        return refused(status, "nothing listens on this port".into());
    }
    let upgrade = hyper::upgrade::on(&mut request);
    sessions.begin(async move {
        match upgrade.await {
            Ok(stream) if opencode => serve_opencode(TokioIo::new(stream)).await,
            Ok(stream) => {
                let (mut from, mut to) = tokio::io::split(TokioIo::new(stream));
                // An error means that the client has disconnected.
                if to.write_all(BANNER).await.is_ok() {
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                }
            }
            Err(error) => tracing::debug!(error = %error, "a port was not connected"),
        }
    });
    switching(UPGRADE)
}

/// The answer before another protocol.
fn switching(protocol: &'static str) -> Answer {
    let mut response = Response::new(Full::default().boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, hyper::header::HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE_HEADER, hyper::header::HeaderValue::from_static(protocol));
    response
}

/// Path of the socket that a simulated guest forwards.
const SOCKET: &str = "/run/banger-forward/1-1/agent.sock";

/// A socket of the guest, to which one program connects at once.
pub fn forward(sessions: &exec::Sessions, mut request: Request<Incoming>) -> Answer {
    let upgrade = hyper::upgrade::on(&mut request);
    sessions.begin(async move {
        let Ok(stream) = upgrade.await else { return };
        let mut stream = TokioIo::new(stream);
        let told = format!("{SOCKET}\n1\n");
        if stream.write_all(told.as_bytes()).await.is_ok() {
            // Until the client ends.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    });
    switching(forward::UPGRADE)
}

/// That program: it sends what it receives back in capital letters, after a first line.
pub fn take(sessions: &exec::Sessions, mut request: Request<Incoming>) -> Answer {
    if request.uri().query() != Some("number=1") {
        return refused(StatusCode::NOT_FOUND, "there is no such connection".into());
    }
    let upgrade = hyper::upgrade::on(&mut request);
    sessions.begin(async move {
        let Ok(stream) = upgrade.await else { return };
        let mut stream = TokioIo::new(stream);
        let mut piece = [0; 64];
        let mut sent = stream.write_all(b"hello\n").await;
        while sent.is_ok() {
            let Ok(length @ 1..) = stream.read(&mut piece).await else { return };
            let bytes = piece.get(..length).unwrap_or_default().to_ascii_uppercase();
            sent = stream.write_all(&bytes).await;
        }
    });
    switching(forward::UPGRADE)
}

/// Answers one request: 401 without the password of simulated VMs.
async fn serve_opencode(mut stream: TokioIo<hyper::upgrade::Upgraded>) {
    let (mut head, mut piece) = (Vec::new(), [0; 1024]);
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
        match stream.read(&mut piece).await {
            // The client has disconnected.
            Ok(0) | Err(_) => return,
            Ok(count) => head.extend_from_slice(piece.get(..count).unwrap_or_default()),
        }
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let status = match head.contains(&format!("authorization: basic {CREDENTIALS}").to_lowercase())
    {
        true => "200 OK",
        false => "401 Unauthorized",
    };
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    // An error means that the client has disconnected.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}
