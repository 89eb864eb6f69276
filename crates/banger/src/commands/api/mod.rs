//! `banger api`: any request to the daemon, for scripts.

mod fields;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use banger_api::{ApiError, ErrorCode, Hint, exit, routes};
use banger_client::{RawAnswer, RawRequest};

use self::fields::Field;
use crate::context::Context;
use crate::errors::{self, Failure, usage};
use crate::render::console::ConsoleFilter;
use crate::render::plain;

/// Largest error document that is read for its message, in bytes.
const MAX_PROBLEM: usize = 1024 * 1024;

/// Send a request to the daemon's HTTP API and print the answer.
///
///   banger api GET /v1/vms
///   banger api POST /v1/vms -f name=web -F vcpus=2 -F labels[team]=shop
///   banger api GET /v1/events                 events as they happen
///
/// Fields are a JSON body, or the query of a GET and DELETE. `/v1/` before the path
/// may be omitted. `banger api GET openapi.json` describes all routes. The exit code
/// is 0 for an answer 2xx, otherwise that of its error.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// GET, POST, PUT or DELETE
    #[arg(value_name = "METHOD", value_parser = method)]
    pub method: String,
    /// Path of the route, with a query if there is one
    #[arg(value_name = "PATH")]
    pub path: String,
    /// A field of text: KEY=VALUE; KEY[SUB]=VALUE and KEY[]=VALUE are nested
    #[arg(short = 'f', long = "raw-field", value_name = "KEY=VALUE", value_parser = fields::text)]
    pub raw_field: Vec<Field>,
    /// A field of true, false, null, a number, JSON, text, or @FILE for a file's text
    #[arg(short = 'F', long = "field", value_name = "KEY=VALUE", value_parser = fields::typed)]
    pub field: Vec<Field>,
    /// Send this file as the body; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["raw_field", "field"])]
    pub input: Option<PathBuf>,
    /// Add a header
    #[arg(short = 'H', long, value_name = "NAME: VALUE", value_parser = header)]
    pub header: Vec<(String, String)>,
    /// Print the status and the headers of the answer before it
    #[arg(short = 'i', long)]
    pub include: bool,
}

fn method(text: &str) -> Result<String, String> {
    let upper = text.to_ascii_uppercase();
    match upper.as_str() {
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" => Ok(upper),
        _ => Err("write GET, POST, PUT or DELETE".into()),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, _)) if name.trim().eq_ignore_ascii_case("upgrade") => {
            Err("upgraded connections have commands of their own, such as `banger exec`".into())
        }
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("write NAME: VALUE".into()),
    }
}

/// Runs the command.
pub async fn run(context: &Context, mut args: Args) -> Result<u8, Failure> {
    let mut all = std::mem::take(&mut args.raw_field);
    all.append(&mut args.field);
    let mut path = path_of(&args.path)?;
    let mut request = RawRequest { method: args.method, path: String::new(), headers: args.header };
    let client = context.client().await?;
    let answer = if let Some(file) = &args.input {
        request.path = path;
        let typed = |(name, _): &(String, String)| name.eq_ignore_ascii_case("content-type");
        if !request.headers.iter().any(typed) {
            request.headers.push(("content-type".into(), "application/json".into()));
        }
        if file.as_os_str() == "-" {
            client.raw_upload(request, tokio::io::stdin()).await?
        } else {
            let opened = tokio::fs::File::open(file).await.map_err(|error| {
                let text = format!("`{}` cannot be read", file.display());
                ApiError::new(ErrorCode::BadRequest, text).caused_by(&error)
            })?;
            client.raw_upload(request, opened).await?
        }
    } else {
        let has_body = matches!(request.method.as_str(), "POST" | "PUT");
        let body = if has_body {
            let object = fields::object(all)?;
            serde_json::to_vec(&object).map_err(std::io::Error::from)?
        } else {
            path = fields::with_query(path, &all)?;
            Vec::new()
        };
        request.path = path;
        client.raw(request, body.into()).await?
    };
    show(context, answer, args.include).await
}

/// The path of a route: `vms` and `v1/vms` are `/v1/vms`.
fn path_of(text: &str) -> Result<String, ApiError> {
    let path = text.trim_start_matches('/');
    let first = path.split(['/', '?']).next().unwrap_or_default();
    let is_version = first
        .strip_prefix('v')
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
    if path.is_empty() {
        let error = usage("the path is empty");
        return Err(error.with_hint(Hint::ReadApi { route: routes::OPENAPI.into() }));
    }
    let is_root = is_version || format!("/{first}") == routes::METRICS;
    Ok(if is_root { format!("/{path}") } else { format!("/v1/{path}") })
}

/// Prints an answer as it arrives; the exit code is that of its status.
async fn show(context: &Context, mut answer: RawAnswer, include: bool) -> Result<u8, Failure> {
    if include {
        let mut head = format!("HTTP/1.1 {}\n", answer.status);
        for (name, value) in &answer.headers {
            head += &format!("{}: {}\n", plain::line(name), plain::line(value));
        }
        context.print(&(head + "\n"))?;
    }
    let succeeded = (200..300).contains(&answer.status);
    // Text of a guest must not control the terminal; a file gets the bytes as they are.
    let mut terminal = std::io::stdout().is_terminal().then(ConsoleFilter::default);
    let (mut problem, mut last) = (Vec::new(), None);
    while let Some(piece) = answer.next().await? {
        let shown = match &mut terminal {
            Some(filter) => filter.pass(&piece),
            None => piece.to_vec(),
        };
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&shown)?;
        stdout.flush()?;
        last = piece.last().copied().or(last);
        if !succeeded && problem.len() + piece.len() <= MAX_PROBLEM {
            problem.extend_from_slice(&piece);
        }
    }
    if terminal.is_some() && last.is_some_and(|byte| byte != b'\n') {
        context.print("\n")?;
    }
    if succeeded {
        return Ok(exit::OK);
    }
    let error = serde_json::from_slice::<ApiError>(&problem).unwrap_or_else(|_| {
        let text = format!("the daemon answered with the status {}", answer.status);
        ApiError::new(code_of(answer.status), text)
    });
    errors::show(context, &error);
    Ok(error.code.exit_code())
}

/// The kind of error of a status without an error document.
fn code_of(status: u16) -> ErrorCode {
    match status {
        404 => ErrorCode::NotFound,
        409 => ErrorCode::WrongState,
        400..500 => ErrorCode::BadRequest,
        _ => ErrorCode::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_path_may_be_omitted() {
        for (typed, path) in [
            ("vms", "/v1/vms"),
            ("/vms/web?x=1", "/v1/vms/web?x=1"),
            ("v1/vms", "/v1/vms"),
            ("/v1/vms", "/v1/vms"),
            ("/v2/vms", "/v2/vms"),
            ("/metrics", "/metrics"),
            ("volumes", "/v1/volumes"),
            ("openapi.json", "/v1/openapi.json"),
        ] {
            assert_eq!(path_of(typed).unwrap(), path);
        }
        assert!(path_of("/").is_err());
    }

    #[test]
    fn headers_have_a_name_and_a_value() {
        assert_eq!(header("A-b: c: d"), Ok(("A-b".into(), "c: d".into())));
        assert!(header("x").is_err() && header(": x").is_err() && header("Upgrade: x").is_err());
    }
}
