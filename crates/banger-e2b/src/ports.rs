//! Ports of a sandbox: requests for `PORT-SANDBOX.localhost:…` are passed to the port.
//!
//! `Sandbox.get_host(port)` is that name. A request needs the sandbox's traffic token in a header,
//! as E2B's sandboxes without public traffic do: other users and web pages reach the address, too.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Version, header};
use axum::response::Response;
use banger_client::Port;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::time::Duration;

use crate::failure::{Code, Failure};
use crate::guest;
use crate::server::Server;

/// Header with the token.
const TOKEN_HEADER: &str = "e2b-traffic-access-token";
/// How long a port that is closed is waited for.
const WAIT: Duration = Duration::from_secs(1);
/// Time limit for the head of an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// A port that the name of a request means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    port: u16,
    sandbox: String,
}

/// The port of `PORT-SANDBOX.localhost[:…]`.
pub fn named(headers: &HeaderMap) -> Option<Named> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let name = host.split(':').next()?.strip_suffix(".localhost")?;
    let (port, sandbox) = name.split_once('-')?;
    Some(Named { port: port.parse().ok()?, sandbox: sandbox.to_owned() })
}

/// Passes a request to the port and the answer back.
pub async fn answer(server: &Server, named: Named, request: Request) -> Response {
    pass(server, &named, request).await.unwrap_or_else(|failure| failure.rest())
}

async fn pass(server: &Server, named: &Named, mut request: Request) -> Result<Response, Failure> {
    let Named { port, sandbox } = named;
    let sandbox = server.sandboxes.get(sandbox).ok_or_else(|| Failure::gone(sandbox))?;
    if !sandbox.port_token.is_in(request.headers(), TOKEN_HEADER) {
        let text = format!(
            "ports need the header `{TOKEN_HEADER}` with `sandbox.traffic_access_token`; for a \
             browser, publish the port: `banger vm set {} --publish {port}:{port}`",
            sandbox.vm.name
        );
        return Err(Failure::new(Code::Unauthenticated, text));
    }
    let connected = server.client.connect_port(sandbox.id(), *port, WAIT).await;
    let stream = match connected.map_err(|error| guest::failure(&sandbox, error))? {
        Port::Open(stream) => stream.into_stream(),
        Port::Closed => {
            let text = format!("the port is not open: nothing listens on port {port}");
            return Err(Failure { code: Code::Gone, message: text });
        }
    };
    let lost = |error: &dyn std::error::Error| {
        Failure::new(Code::Unavailable, format!("port {port} of the sandbox: {error}"))
    };
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| lost(&error))?;
    tokio::spawn(connection.with_upgrades());
    request.headers_mut().remove(TOKEN_HEADER);
    *request.version_mut() = Version::HTTP_11;
    let upgrade =
        request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let sent = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
    let mut answer = sent
        .map_err(|_| Failure::new(Code::DeadlineExceeded, "the port does not answer in time"))?
        .map_err(|error| lost(&error))?;
    if let (Some(client), hyper::StatusCode::SWITCHING_PROTOCOLS) = (upgrade, answer.status()) {
        let guest = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            let (Ok(client), Ok(guest)) = tokio::join!(client, guest) else { return };
            let (mut client, mut guest) = (TokioIo::new(client), TokioIo::new(guest));
            // Either side may leave at any time.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut guest).await;
        });
    }
    Ok(answer.map(Body::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ports_are_read() {
        let named = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            named(&headers)
        };
        let expected = Named { port: 8000, sandbox: "k3v9".into() };
        assert_eq!(named("8000-k3v9.localhost:3000"), Some(expected));
        for other in ["127.0.0.1:3000", "localhost:3000", "70000-x.localhost", "8000-x.evil", ""] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
