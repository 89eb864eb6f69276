//! Just enough HTTP/1.1 for one trusted-enough client: heads and bodies with limits, keep-alive,
//! sized and chunked bodies both ways.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use banger_agent_proto::archive::decode;
use banger_agent_proto::http::ErrorBody;
use banger_agent_proto::{MAX_HTTP_HEAD, MAX_JSON_BODY};
use serde::Serialize;
use serde::de::DeserializeOwned;

mod body;
mod chunks;

pub use body::Body;
pub use chunks::Chunks;

/// Most headers in a request.
const MAX_HEADERS: usize = 64;

/// How long the rest of a refused body is read.
const LINGER: Duration = Duration::from_secs(20);

/// A request that is answered with an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// HTTP status, 400 and above.
    pub status: u16,
    /// What is wrong, naming the thing.
    pub message: String,
}

impl Refusal {
    /// A refusal with this status.
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// 400: the request itself is wrong.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }
}

/// How the body of a request is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// This many bytes.
    Sized(u64),
    /// Chunks.
    Chunked,
}

/// The head of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, …
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// After the `?`, still encoded.
    pub query: String,
    /// What follows the head.
    pub body: BodyKind,
    /// Value of `Upgrade`.
    pub upgrade: Option<String>,
    /// The client wants the connection closed after the answer.
    pub close: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

impl Request {
    /// The decoded value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<Vec<u8>> {
        self.query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then(|| decode(value))
        })
    }
}

/// Reads a head from the start of `bytes`; `None` when more is needed, else also its length.
fn parse_head(bytes: &[u8]) -> Result<Option<(Request, usize)>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HTTP_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) => {
            return Err(Refusal::new(431, format!("the head is over {MAX_HTTP_HEAD} bytes")));
        }
        Err(error) => return Err(Refusal::bad(format!("malformed request: {error}"))),
    };
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        body: BodyKind::Sized(0),
        upgrade: None,
        close: parsed.version == Some(0),
        expects_continue: false,
    };
    let mut delimiters = 0;
    for header in parsed.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
        delimiters += apply_header(&mut request, header.name, value)?;
    }
    // Two delimiters, even equal ones, are how requests are smuggled.
    if delimiters > 1 {
        return Err(Refusal::bad("the body has more than one length"));
    }
    Ok(Some((request, length)))
}

/// Returns how many delimiters of the body the header is.
fn apply_header(request: &mut Request, name: &str, value: &str) -> Result<u32, Refusal> {
    match name.to_ascii_lowercase().as_str() {
        "content-length" => {
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let length = value.parse().ok().filter(|_| digits);
            let length = length.ok_or_else(|| Refusal::bad("malformed content-length"))?;
            request.body = BodyKind::Sized(length);
            return Ok(1);
        }
        "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => {
            request.body = BodyKind::Chunked;
            return Ok(1);
        }
        "transfer-encoding" => {
            return Err(Refusal::new(501, format!("unknown transfer encoding `{value}`")));
        }
        "connection" => {
            let mut options = value.split(',').map(str::trim);
            request.close |= options.any(|option| option.eq_ignore_ascii_case("close"));
        }
        "upgrade" => request.upgrade = Some(value.to_owned()),
        "expect" => request.expects_continue = value.eq_ignore_ascii_case("100-continue"),
        _ => {}
    }
    Ok(0)
}

/// A connection and what has been read from it but not used.
pub struct Connection<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: Read + Write> Connection<S> {
    /// Begins on a fresh stream.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// The stream.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream and the bytes that came after the last request.
    pub fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.buffer)
    }

    /// Reads the next head; `None` at the end of the stream.
    ///
    /// # Errors
    /// The stream's; the inner result is a request to refuse.
    pub fn next_request(&mut self) -> io::Result<Option<Result<Request, Refusal>>> {
        loop {
            match parse_head(&self.buffer) {
                Ok(None) => {}
                Ok(Some((request, length))) => {
                    self.buffer.drain(..length);
                    return Ok(Some(Ok(request)));
                }
                Err(refusal) => return Ok(Some(Err(refusal))),
            }
            if self.fill(MAX_HTTP_HEAD - self.buffer.len().min(MAX_HTTP_HEAD - 1))? == 0 {
                return Ok(None);
            }
        }
    }

    fn fill(&mut self, at_most: usize) -> io::Result<usize> {
        let mut piece = [0; 4096];
        let piece = piece.get_mut(..at_most.min(4096)).unwrap_or_default();
        let length = self.stream.read(piece)?;
        self.buffer.extend_from_slice(piece.get(..length).unwrap_or_default());
        Ok(length)
    }

    /// The body of `request`, to be read to its end before the next request.
    ///
    /// # Errors
    /// The stream's, when the client has to be told to go on.
    pub fn body(&mut self, request: &Request) -> io::Result<Body<'_, S>> {
        if request.expects_continue {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        Ok(Body::new(self, request.body))
    }

    /// Reads a JSON body.
    ///
    /// # Errors
    /// The stream's; the inner result is a body to refuse.
    pub fn json<T: DeserializeOwned>(
        &mut self,
        request: &Request,
    ) -> io::Result<Result<T, Refusal>> {
        self.json_within(request, MAX_JSON_BODY)
    }

    /// Reads a JSON body of at most `max` bytes.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn json_within<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        max: usize,
    ) -> io::Result<Result<T, Refusal>> {
        let mut bytes = Vec::new();
        let read = self.body(request)?.take(max as u64 + 1).read_to_end(&mut bytes);
        if let Err(error) = read {
            return match error.kind() {
                io::ErrorKind::InvalidData => Ok(Err(Refusal::bad(error.to_string()))),
                _ => Err(error),
            };
        }
        if bytes.len() > max {
            return Ok(Err(Refusal::new(413, format!("the body is over {max} bytes"))));
        }
        Ok(serde_json::from_slice(&bytes)
            .map_err(|error| Refusal::bad(format!("cannot understand the body: {error}"))))
    }

    /// Answers with JSON.
    ///
    /// # Errors
    /// The stream's.
    pub fn answer(&mut self, status: u16, body: &impl Serialize) -> io::Result<()> {
        let body = serde_json::to_vec(body)?;
        let mut message = head(status);
        message.push_str("Content-Type: application/json\r\n");
        message.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let mut message = message.into_bytes();
        message.extend(body);
        self.stream.write_all(&message)
    }

    /// Answers without a body.
    ///
    /// # Errors
    /// The stream's.
    pub fn answer_empty(&mut self, status: u16) -> io::Result<()> {
        let length = if status == 204 { "" } else { "Content-Length: 0\r\n" };
        self.stream.write_all(format!("{}{length}\r\n", head(status)).as_bytes())
    }

    /// Answers with an error and says that the connection ends.
    ///
    /// # Errors
    /// The stream's.
    pub fn refuse(&mut self, refusal: &Refusal) -> io::Result<()> {
        let body = serde_json::to_vec(&ErrorBody { error: refusal.message.clone() })?;
        let mut message = head(refusal.status);
        message.push_str("Connection: close\r\nContent-Type: application/json\r\n");
        message.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let mut message = message.into_bytes();
        message.extend(body);
        self.stream.write_all(&message)
    }

    /// Switches to another protocol; the caller then takes the stream.
    ///
    /// # Errors
    /// The stream's.
    pub fn switch(&mut self, protocol: &str) -> io::Result<()> {
        let head = head(101);
        let message = format!("{head}Connection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n");
        self.stream.write_all(message.as_bytes())
    }

    /// Begins an answer whose body comes in chunks.
    ///
    /// # Errors
    /// The stream's.
    pub fn start_chunks(&mut self, content_type: &str) -> io::Result<Chunks<'_, S>> {
        self.start_chunks_with(content_type, &[])
    }

    /// The same with further headers.
    ///
    /// # Errors
    /// The stream's.
    pub fn start_chunks_with(
        &mut self,
        content_type: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<Chunks<'_, S>> {
        let mut message = head(200);
        for (name, value) in headers.iter().chain(&[("Content-Type", content_type)]) {
            message.push_str(&format!("{name}: {value}\r\n"));
        }
        message.push_str("Transfer-Encoding: chunked\r\n\r\n");
        self.stream.write_all(message.as_bytes())?;
        Ok(Chunks::new(&mut self.stream))
    }

    /// Refuses a request in the middle of its body. Reads the rest of the body for a while, since a
    /// client that still sends may not read the answer of a closed connection.
    ///
    /// # Errors
    /// The stream's.
    pub fn refuse_early(&mut self, refusal: &Refusal) -> io::Result<()> {
        self.refuse(refusal)?;
        let begin = Instant::now();
        let mut piece = vec![0; 64 * 1024];
        while begin.elapsed() < LINGER && self.stream.read(&mut piece)? > 0 {}
        Ok(())
    }
}

fn head(status: u16) -> String {
    let reason = match status {
        101 => "Switching Protocols",
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        507 => "Insufficient Storage",
        _ => "Internal Server Error",
    };
    format!("HTTP/1.1 {status} {reason}\r\n")
}

#[cfg(test)]
mod tests;
