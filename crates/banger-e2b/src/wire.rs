//! Connect RPC as the SDKs speak it (connectrpc.com/docs/protocol): JSON messages, alone or in
//! envelopes of a stream.
//!
//! An envelope is a byte of flags, the length in four bytes (big-endian), and the message. The last
//! one of an answer has the flag [`END`] and contains the error, if there is one.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::failure::{Code, Failure};

/// Flag of a compressed message.
const COMPRESSED: u8 = 1;
/// Flag of the last envelope.
const END: u8 = 2;
/// Largest message, in bytes: input for a command, in base64.
pub const MAX_MESSAGE: usize = 8 * 1024 * 1024;
/// Bytes beyond a limit that are read before the refusal.
const MAX_DISCARDED: usize = 16 * 1024 * 1024;
/// Time limit for the body of a request that is read as a whole.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time limit of a client; a longer one counts as none.
const MAX_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Reads a body of at most `limit` bytes. The rest of one that is a little larger is discarded, so
/// that the client reads the answer.
///
/// # Errors
/// A larger one, one that does not arrive in time, a connection that ends.
pub async fn body(mut body: Body, limit: usize) -> Result<Bytes, Failure> {
    let most = limit + MAX_DISCARDED;
    let mut received = BytesMut::new();
    let mut total = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let reading = async {
        if total > most {
            return Ok(());
        }
        total = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return Err(Failure::invalid("the request ended early")) };
            let data = frame.into_data().unwrap_or_default();
            total += data.len();
            if total <= limit {
                received.extend_from_slice(&data);
            } else if total > most {
                break;
            }
        }
        Ok(())
    };
    match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Ok(read) => read?,
        Err(_) => {
            let text = "the request did not arrive in time";
            return Err(Failure::new(Code::DeadlineExceeded, text));
        }
    }
    if total > limit {
        let text = format!("the request has more than {limit} bytes");
        return Err(Failure::new(Code::TooLarge, text));
    }
    Ok(received.freeze())
}

/// The message of a unary RPC.
///
/// # Errors
/// Not JSON, or not this message.
pub async fn message<T: DeserializeOwned>(request: Request) -> Result<T, Failure> {
    check_type(request.headers(), "application/json")?;
    parse(&body(request.into_body(), MAX_MESSAGE).await?)
}

/// The only message of an RPC that answers with a stream.
///
/// # Errors
/// As [`message`]; a stream without a message.
pub async fn first<T: DeserializeOwned>(request: Request) -> Result<T, Failure> {
    let mut messages = Messages::new(request)?;
    let ended = || Failure::invalid("the stream has no message");
    match tokio::time::timeout(BODY_TIMEOUT, messages.next()).await {
        Ok(message) => parse(&message?.ok_or_else(ended)?),
        Err(_) => Err(Failure::new(Code::DeadlineExceeded, "the request did not arrive in time")),
    }
}

/// Parses a message.
///
/// # Errors
/// Not JSON, or not this message.
pub fn parse<T: DeserializeOwned>(message: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(message)
        .map_err(|error| Failure::invalid(format!("cannot parse the message: {error}")))
}

fn check_type(headers: &HeaderMap, wanted: &str) -> Result<(), Failure> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let given = given.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if given == wanted {
        return Ok(());
    }
    let given = banger_api::excerpt(given);
    let text = format!("this server speaks `{wanted}` here, not `{given}`");
    Err(Failure::new(Code::Unimplemented, text))
}

/// The messages of a request that is a stream.
pub struct Messages {
    body: Body,
    received: BytesMut,
}

impl Messages {
    /// Those of a request.
    ///
    /// # Errors
    /// Not JSON.
    pub fn new(request: Request) -> Result<Self, Failure> {
        check_type(request.headers(), "application/connect+json")?;
        Ok(Self { body: request.into_body(), received: BytesMut::new() })
    }

    /// The next message.
    ///
    /// # Errors
    /// A malformed, compressed or large one; a connection that ends.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some((flags, message)) = split(&mut self.received)? {
                if flags & END != 0 {
                    return Ok(None);
                }
                return Ok(Some(message));
            }
            match self.body.frame().await {
                None if self.received.is_empty() => return Ok(None),
                Some(Ok(frame)) => self.received.extend(frame.into_data().unwrap_or_default()),
                None | Some(Err(_)) => return Err(Failure::invalid("the stream ended early")),
            }
        }
    }
}

/// Takes one envelope, if it has arrived.
fn split(received: &mut BytesMut) -> Result<Option<(u8, Bytes)>, Failure> {
    let Some(head) = received.first_chunk::<5>() else { return Ok(None) };
    let [flags, length @ ..] = *head;
    let length = u32::from_be_bytes(length) as usize;
    if flags & COMPRESSED != 0 {
        let text = "this server takes no compressed messages";
        return Err(Failure::new(Code::Unimplemented, text));
    }
    if length > MAX_MESSAGE {
        let text = format!("a message has {length} bytes, more than {MAX_MESSAGE}");
        return Err(Failure::new(Code::ResourceExhausted, text));
    }
    if received.len() < 5 + length {
        return Ok(None);
    }
    received.advance(5);
    Ok(Some((flags, received.split_to(length).freeze())))
}

/// A message in an envelope.
fn envelope(flags: u8, message: &Value) -> Bytes {
    let text = message.to_string();
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let mut bytes = BytesMut::with_capacity(5 + text.len());
    bytes.extend_from_slice(&[flags]);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.freeze()
}

/// The answer of a unary RPC.
pub fn answer(message: &Value) -> Response {
    let mut response = Response::new(Body::from(message.to_string()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The answer of an RPC that streams, which has failed before its first message.
pub fn failed(failure: &Failure) -> Response {
    match failure.code {
        Code::Gone => failure.rest(),
        _ => stream_of(Body::from(end(Some(failure)))),
    }
}

/// The answer of an RPC to which a stream was sent.
pub fn only(message: &Value) -> Response {
    stream_of(Body::from([envelope(0, message), end(None)].concat()))
}

fn end(failure: Option<&Failure>) -> Bytes {
    match failure {
        Some(failure) => envelope(END, &json!({ "error": failure.value() })),
        None => envelope(END, &json!({})),
    }
}

fn stream_of(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/connect+json"));
    response
}

/// One item of an answer that streams.
#[derive(Debug, Clone)]
pub enum Item {
    /// A message.
    Message(Value),
    /// The end.
    End,
    /// The end with an error.
    Failed(Failure),
}

/// What the client wants of a stream.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// Time between messages that keep the connection alive.
    pub keepalive: Option<Duration>,
    /// When the stream ends with an error.
    pub deadline: Option<Instant>,
}

impl Pace {
    /// That of the headers of a request.
    ///
    /// # Errors
    /// A malformed time limit.
    pub fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        let keepalive = number(headers, "keepalive-ping-interval")?.map(Duration::from_secs);
        let limit = number(headers, "connect-timeout-ms")?.map(Duration::from_millis);
        let limit = limit.filter(|limit| *limit < MAX_TIMEOUT);
        Ok(Self {
            keepalive: keepalive
                .map(|interval| interval.clamp(Duration::from_secs(1), MAX_TIMEOUT)),
            deadline: limit.map(|limit| Instant::now() + limit),
        })
    }
}

fn number(headers: &HeaderMap, name: &str) -> Result<Option<u64>, Failure> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| Failure::invalid(format!("`{name}` is not a number")))
}

/// An answer that streams what arrives in a channel; `alive` is the message that is sent while
/// nothing arrives. When the client leaves, the channel is closed.
pub fn stream(first: Value, from: mpsc::Receiver<Item>, alive: Value, pace: Pace) -> Response {
    struct State {
        first: Option<Value>,
        from: Option<mpsc::Receiver<Item>>,
        alive: Value,
        pace: Pace,
    }
    let state = State { first: Some(first), from: Some(from), alive, pace };
    let envelopes = futures_util::stream::unfold(state, |mut state| async move {
        if let Some(first) = state.first.take() {
            return Some((Ok::<_, std::convert::Infallible>(envelope(0, &first)), state));
        }
        let from = state.from.as_mut()?;
        let next = tokio::select! {
            biased;
            item = from.recv() => item.unwrap_or(Item::End),
            () = until(state.pace.deadline) => {
                let text = "the time limit of the request is over";
                Item::Failed(Failure::new(Code::DeadlineExceeded, text))
            }
            () = after(state.pace.keepalive) => Item::Message(state.alive.clone()),
        };
        let bytes = match next {
            Item::Message(message) => return Some((Ok(envelope(0, &message)), state)),
            Item::End => end(None),
            Item::Failed(failure) => end(Some(&failure)),
        };
        state.from = None;
        Some((Ok(bytes), state))
    });
    stream_of(Body::from_stream(envelopes))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn after(interval: Option<Duration>) {
    match interval {
        Some(interval) => tokio::time::sleep(interval).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_are_split_wherever_they_are_cut() {
        let mut all = envelope(0, &json!({ "a": 1 })).to_vec();
        all.extend(envelope(END, &json!({})));
        for cut in 0..all.len() {
            let mut received = BytesMut::from(&all[..cut]);
            let mut found = Vec::new();
            for rest in [&[][..], &all[cut..]] {
                received.extend_from_slice(rest);
                while let Some((flags, message)) = split(&mut received).unwrap() {
                    found.push((flags, message));
                }
            }
            assert_eq!(found, [(0, "{\"a\":1}".into()), (END, "{}".into())], "{cut}");
            assert!(received.is_empty());
        }
    }

    #[test]
    fn large_and_compressed_messages_are_refused() {
        let refusal = |bytes: &[u8]| split(&mut BytesMut::from(bytes)).unwrap_err().code;
        assert_eq!(refusal(&[1, 0, 0, 0, 1]), Code::Unimplemented);
        assert_eq!(refusal(&[0, 255, 0, 0, 0]), Code::ResourceExhausted);
        assert!(split(&mut BytesMut::from(&[0, 0, 0, 0][..])).unwrap().is_none());
    }
}
