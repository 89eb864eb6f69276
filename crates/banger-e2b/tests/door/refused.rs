//! Requests that are refused.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::Served;

const AGENT: &str = "User-Agent: e2b-python-sdk/2.63.0\r\n";

impl Served {
    /// Sends a request and reads the answer to the end of the connection: status and body.
    fn send(&self, request: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // A server that refuses a body does not read it.
        let _ = stream.write_all(request);
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_default(), body.to_owned())
    }

    fn request(&self, line: &str, headers: &str, body: &[u8]) -> (u16, String) {
        let (address, length) = (&self.address, body.len());
        let head = format!(
            "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\
             Content-Length: {length}\r\n\r\n"
        );
        self.send(&[head.as_bytes(), body].concat())
    }

    fn key(&self) -> String {
        format!("X-API-Key: {}\r\n{AGENT}", self.key)
    }

    fn create(&self) -> Value {
        let body = json!({ "templateID": "base", "timeout": 600 }).to_string();
        let (status, body) = self.request("POST /v2/sandboxes", &self.key(), body.as_bytes());
        assert_eq!(status, 201, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

#[test]
fn keys_and_versions_are_checked_first() {
    let served = Served::start();
    let list = "GET /v2/sandboxes";
    let (status, body) = served.request(list, AGENT, b"");
    assert_eq!(status, 401);
    assert!(body.contains("E2B_API_KEY"), "{body}");
    for wrong in ["", "e2b_0", &served.key[..40], &format!("{}0", served.key)] {
        let headers = format!("X-API-Key: {wrong}\r\n{AGENT}");
        assert_eq!(served.request(list, &headers, b"").0, 401, "{wrong}");
    }
    for agent in ["", "User-Agent: curl/8\r\n", "User-Agent: e2b-python-sdk/2.64.0\r\n"] {
        let headers = format!("X-API-Key: {}\r\n{agent}", served.key);
        let (status, body) = served.request(list, &headers, b"");
        assert_eq!(status, 400, "{agent}");
        assert!(body.contains("2.63.0"), "{body}");
    }
    assert_eq!(served.request(list, &served.key(), b""), (200, "[]".into()));
    served.finish();
}

#[test]
fn a_sandbox_has_a_token_of_its_own() {
    let served = Served::start();
    let (one, other) = (served.create(), served.create());
    let id = one["sandboxID"].as_str().unwrap();
    let list = |id: &str, token: &str| {
        let headers = format!(
            "E2b-Sandbox-Id: {id}\r\nX-Access-Token: {token}\r\n\
             Content-Type: application/json\r\n"
        );
        served.request("POST /process.Process/List", &headers, b"{}")
    };
    let token = one["envdAccessToken"].as_str().unwrap();
    assert_eq!(list(id, token), (200, "{\"processes\":[]}".into()));
    for wrong in ["", other["envdAccessToken"].as_str().unwrap(), &served.key] {
        assert_eq!(list(id, wrong).0, 401, "{wrong}");
    }
    let (status, body) = list("nosuch", token);
    assert_eq!(status, 502);
    assert!(body.contains("was not found"), "{body}");
    // The key is not for machines that the server did not make.
    served.home.ok(&["vm", "create", "--name", "own", "--no-start"]);
    for line in ["GET /sandboxes/own", "DELETE /sandboxes/own", "GET /sandboxes/nosuch"] {
        let (status, body) = served.request(line, &served.key(), b"");
        assert_eq!(status, 404, "{line}");
        assert!(body.contains("has not made it"), "{body}");
    }
    served.home.ok(&["vm", "delete", "own"]);
    served.finish();
}

#[test]
fn what_is_too_large_malformed_or_missing_is_refused() {
    let served = Served::start();
    let key = served.key();
    let long = vec![b' '; 1024 * 1024 + 1];
    let (status, body) = served.request("POST /v2/sandboxes", &key, &long);
    assert!(status == 413 && body.contains("more than 1048576 bytes"), "{status} {body}");
    // Without a length.
    let mut chunked = format!(
        "POST /v2/sandboxes HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{key}\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n",
        long.len()
    )
    .into_bytes();
    chunked.extend(&long);
    chunked.extend(b"\r\n0\r\n\r\n");
    assert_eq!(served.send(&chunked).0, 413);
    for (body, status, text) in [
        (json!({}), 400, "templateID"),
        (json!({ "templateID": "base", "shape": 1 }), 400, "unknown field"),
        (json!({ "templateID": "base", "timeout": 90_000 }), 400, "at most 86400 s"),
        (json!({ "templateID": "base", "autoPause": true }), 501, "pausing"),
        (json!({ "templateID": "-x" }), 400, "-x"),
    ] {
        let answer = served.request("POST /v2/sandboxes", &key, body.to_string().as_bytes());
        assert!(answer.0 == status && answer.1.contains(text), "{body}: {answer:?}");
    }
    for (line, text) in [
        ("POST /sandboxes/x/pause", "timeout"),
        ("GET /templates", "banger image build"),
        ("GET /nothing", "docs/e2b.md"),
    ] {
        let (status, body) = served.request(line, &key, b"");
        assert!(status == 501 && body.contains(text), "{line}: {status} {body}");
    }
    let sandbox = served.create();
    let headers = |kind: &str| {
        format!(
            "E2b-Sandbox-Id: {}\r\nX-Access-Token: {}\r\n{AGENT}Content-Type: {kind}\r\n",
            sandbox["sandboxID"].as_str().unwrap(),
            sandbox["envdAccessToken"].as_str().unwrap()
        )
    };
    let (status, body) =
        served.request("POST /process.Process/List", &headers("application/proto"), b"");
    assert!(status == 501 && body.contains("application/json"), "{status} {body}");
    let start = "POST /process.Process/Start";
    let (status, body) = served.request(start, &headers("application/connect+proto"), b"");
    assert!(status == 200 && body.contains("unimplemented"), "{status} {body}");
    let long = [&[0, 255, 255, 255, 255][..], b"{}"].concat();
    let (_, body) = served.request(start, &headers("application/connect+json"), &long);
    assert!(body.contains("resource_exhausted"), "{body}");
    let upload = "POST /files?path=/srv/x";
    let declared = format!(
        "{upload} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}Content-Length: \
        5000000000\r\n\r\n",
        headers("application/octet-stream")
    );
    assert_eq!(served.send(declared.as_bytes()).0, 413);
    let signed = served.request("GET /files?path=/x&signature=v1_x", &headers("x/y"), b"");
    assert!(signed.0 == 501 && signed.1.contains("signed URLs"), "{signed:?}");
    served.finish();
}

#[test]
fn only_loopback_addresses_are_served() {
    let served = Served::start();
    for address in ["0.0.0.0:0", "192.0.2.1:0", "[::]:0"] {
        let refused = served.home.run(&["serve", "--e2b", address]);
        assert_ne!(refused.code, 0);
        assert!(refused.err.contains("this computer only"), "{}", refused.err);
    }
    let refused = served.home.run(&["serve", "--e2b", &served.address]);
    assert!(refused.err.contains("is in use"), "{}", refused.err);
    let usage = served.home.run(&["serve", "--e2b", "3000"]);
    assert!(usage.code == 2 && usage.err.contains("127.0.0.1:3000"), "{}", usage.err);
    drop(served);
}
