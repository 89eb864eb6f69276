//! `/files` of a sandbox: content that is downloaded with `cat` and uploaded with `dd`, piece by
//! piece.

use std::io::{self, Write as _};

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest as _, Multipart, Query, Request};
use axum::http::{HeaderValue, Method, header};
use axum::response::Response;
use banger_client::{Control, Exec, ExecInput, ExecOutput, Output};
use bytes::Bytes;
use flate2::write::GzDecoder;
use futures_util::{Stream, StreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use banger_client::Client;

use crate::failure::{Code, Failure};
use crate::filesystem::{Guest, shown};
use crate::guest;
use crate::process::SIGKILL;
use crate::sandboxes::Sandbox;
use crate::wire;

/// Largest upload, in bytes; of a compressed one, what it contains too.
pub const MAX_UPLOAD: u64 = 4 * 1024 * 1024 * 1024;
/// Bytes of input sent at once.
const PIECE: usize = 64 * 1024;
/// Bytes that are decompressed at once: they may become a thousand times as many.
const COMPRESSED_PIECE: usize = 4 * 1024;

/// The parameters of a request.
#[derive(Deserialize)]
struct Parameters {
    path: Option<String>,
    username: Option<String>,
    signature: Option<String>,
}

/// Answers a request.
pub async fn answer(client: &Client, sandbox: &Arc<Sandbox>, request: Request) -> Response {
    let parameters = match Query::<Parameters>::try_from_uri(request.uri()) {
        Ok(Query(parameters)) => parameters,
        Err(_) => return Failure::invalid("the parameters of the request are malformed").rest(),
    };
    let user = parameters.username.as_deref().filter(|user| !user.is_empty());
    let guest = Guest { client, sandbox, user };
    if parameters.signature.is_some() {
        let text = "this server has no signed URLs: use `files.read` and `files.write`";
        return Failure::new(Code::Unimplemented, text).rest();
    }
    let answered = match *request.method() {
        Method::GET => download(&guest, parameters.path.as_deref().unwrap_or_default()).await,
        Method::POST => upload(&guest, parameters.path.as_deref(), request).await,
        _ => Err(Failure::new(Code::Unimplemented, "`/files` takes GET and POST")),
    };
    answered.unwrap_or_else(|failure| failure.rest())
}

async fn download(guest: &Guest<'_>, path: &str) -> Result<Response, Failure> {
    let path = guest.absolute(path).await?;
    if guest.stat_target(&path).await?.is_folder() {
        return Err(Failure::invalid(format!("`{}` is a directory", shown(&path))));
    }
    let exec = start(guest, &["cat", &path], false).await?;
    let mut output = Download { output: exec.output, errors: String::new() };
    // Before the head of the answer, so that a file that may not be read is an error.
    let first = output.next().await?;
    let rest = futures_util::stream::unfold(Some((first, output)), |state| async {
        let (piece, mut output) = state?;
        match piece {
            None => None,
            Some(data) => match output.next().await {
                Ok(next) => Some((Ok(data), Some((next, output)))),
                Err(failure) => Some((Err(guest::broken(&failure)), None)),
            },
        }
    });
    let mut response = Response::new(Body::from_stream(rest));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// The content of a file on its way to the client.
struct Download {
    output: ExecOutput,
    errors: String,
}

impl Download {
    /// The next piece; `None` at the end of the whole file.
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            match self.output.next().await? {
                Output::Stdout(data) => return Ok(Some(data.into())),
                Output::Stderr(data) => guest::keep(&mut self.errors, &data),
                Output::Exit(status) if status.shell_code() == 0 => return Ok(None),
                Output::Exit(_) => return Err(guest::refusal(&self.errors)),
            }
        }
    }
}

async fn start(guest: &Guest<'_>, words: &[&str], stdin: bool) -> Result<Exec, Failure> {
    let session = guest::session(guest.client, guest.sandbox).await?;
    let request = banger_client::ExecRequest { stdin, ..guest::program(words, guest.user) };
    let started = Exec::start(session, &request).await;
    started.map_err(|error| guest::failure(guest.sandbox, error))
}

async fn upload(
    guest: &Guest<'_>,
    path: Option<&str>,
    request: Request,
) -> Result<Response, Failure> {
    if request.body().size_hint().lower() > MAX_UPLOAD {
        return Err(too_large());
    }
    let headers = request.headers();
    if headers.keys().any(|name| name.as_str().starts_with("x-metadata-")) {
        let text = "this server keeps no metadata of files";
        return Err(Failure::new(Code::Unimplemented, text));
    }
    let is = |name, wanted: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).is_some_and(|value| {
            value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted)
        })
    };
    let mut decoder = is(header::CONTENT_ENCODING, "gzip").then(|| GzDecoder::new(Vec::new()));
    let mut written = Vec::new();
    if is(header::CONTENT_TYPE, "application/octet-stream") {
        let path = path.ok_or_else(|| Failure::invalid("`path` is missing"))?;
        let pieces = request.into_body().into_data_stream().map(|piece| piece.map_err(cut));
        written.push(write(guest, path, pieces, decoder.as_mut()).await?);
        return Ok(wire::answer(&Value::Array(written)));
    }
    let malformed = |error: &dyn std::fmt::Display| Failure::invalid(format!("the form: {error}"));
    let mut form =
        Multipart::from_request(request, &()).await.map_err(|error| malformed(&error))?;
    while let Some(field) = form.next_field().await.map_err(|error| malformed(&error))? {
        let name = field.file_name().map(|name| name.replace("%22", "\""));
        let path = path.map(str::to_owned).or(name);
        let path = path.ok_or_else(|| Failure::invalid("a part of the form names no file"))?;
        let pieces = field.map(|piece| piece.map_err(cut));
        written.push(write(guest, &path, pieces, decoder.as_mut()).await?);
    }
    Ok(wire::answer(&Value::Array(written)))
}

fn cut(error: impl std::fmt::Display) -> Failure {
    Failure::invalid(format!("the upload ended early: {error}"))
}

fn too_large() -> Failure {
    Failure::new(Code::TooLarge, format!("a file has more than {MAX_UPLOAD} bytes"))
}

/// Writes a file; what is there is replaced. A file that arrives only in part stays incomplete.
async fn write(
    guest: &Guest<'_>,
    path: &str,
    pieces: impl Stream<Item = Result<Bytes, Failure>>,
    decoder: Option<&mut GzDecoder<Vec<u8>>>,
) -> Result<Value, Failure> {
    let path = guest.absolute(path).await?;
    guest.make_parent(&path).await?;
    let to = format!("of={path}");
    let Exec { input, control, mut output } = start(guest, &["dd", &to, "bs=64k"], true).await?;
    let sending = send(input, pieces, decoder, control);
    let ending = async {
        let mut errors = String::new();
        loop {
            match output.next().await? {
                Output::Stdout(_) => {}
                Output::Stderr(data) => guest::keep(&mut errors, &data),
                Output::Exit(status) if status.shell_code() == 0 => return Ok(()),
                Output::Exit(_) => return Err(guest::refusal(&errors)),
            }
        }
    };
    let (sent, ended) = tokio::join!(sending, ending);
    // If the client has failed, the program was killed because of that.
    sent?;
    ended?;
    Ok(json!({ "name": guest::split(&path).1, "type": "file", "path": path }))
}

/// Sends content; ends the program without the end of its input if there is no whole content.
async fn send(
    input: Option<ExecInput>,
    pieces: impl Stream<Item = Result<Bytes, Failure>>,
    mut decoder: Option<&mut GzDecoder<Vec<u8>>>,
    control: Control,
) -> Result<(), Failure> {
    let Some(input) = input else { return Ok(()) };
    let mut pieces = std::pin::pin!(pieces);
    let mut total = 0;
    let sent = async {
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            let most = if decoder.is_some() { COMPRESSED_PIECE } else { PIECE };
            for start in (0..piece.len()).step_by(most) {
                let part = piece.slice(start..piece.len().min(start + most));
                let mut part = match decoder.as_mut() {
                    Some(decoder) => inflate(decoder, &part).map_err(cut)?,
                    None => part,
                };
                total += part.len() as u64;
                if total > MAX_UPLOAD {
                    return Err(too_large());
                }
                while !part.is_empty() {
                    // A program that takes no more input reports why.
                    if !input.send(part.split_to(part.len().min(PIECE))).await {
                        return Ok(());
                    }
                }
            }
        }
        let rest = decoder.map(finish).transpose().map_err(cut)?;
        if let Some(rest) = rest {
            input.send(rest).await;
        }
        Ok(())
    };
    let sent = sent.await;
    if sent.is_err() {
        control.signal(SIGKILL);
    }
    sent
}

fn inflate(decoder: &mut GzDecoder<Vec<u8>>, piece: &[u8]) -> io::Result<Bytes> {
    decoder.write_all(piece)?;
    Ok(std::mem::take(decoder.get_mut()).into())
}

fn finish(decoder: &mut GzDecoder<Vec<u8>>) -> io::Result<Bytes> {
    decoder.try_finish()?;
    Ok(std::mem::take(decoder.get_mut()).into())
}
