//! Errors as problem details (RFC 9457): the standard's members beside those of [`ApiError`].

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use banger_api::{ApiError, ErrorCode};
use serde::Serialize;
use serde_json::json;
use utoipa::openapi::path::{HttpMethod, Operation, PathItem};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, ToSchema};

/// Media type of an error (RFC 9457, section 6.1).
const MEDIA_TYPE: &str = "application/problem+json";

/// An error as the body of an answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// URI of the kind of error: `urn:banger:error:` and `code`.
    #[serde(rename = "type")]
    kind: String,
    /// Kind of the error, for people.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// The same as `message`.
    detail: String,
    #[serde(flatten)]
    error: ApiError,
}

impl Problem {
    fn new(status: StatusCode, error: ApiError) -> Self {
        Self {
            kind: format!("urn:banger:error:{}", word(error.code)),
            title: title(error.code),
            status: status.as_u16(),
            detail: error.message.clone(),
            error,
        }
    }
}

/// The code as in JSON.
fn word(code: ErrorCode) -> String {
    json!(code).as_str().unwrap_or_default().to_owned()
}

fn title(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::BadRequest => "Invalid request",
        ErrorCode::NotFound => "Not found",
        ErrorCode::Ambiguous => "Ambiguous reference",
        ErrorCode::NameTaken => "Name in use",
        ErrorCode::WrongState => "Not possible in the present state",
        ErrorCode::InUse => "In use",
        ErrorCode::Busy => "Another operation is in progress",
        ErrorCode::HostNotReady => "The host lacks something",
        ErrorCode::OtherBuild => "Another build of banger",
        ErrorCode::NoSpace => "Disk full",
        ErrorCode::ReadOnly => "Cannot write",
        ErrorCode::Corrupt => "Damaged file",
        ErrorCode::GuestFailed => "The guest failed",
        ErrorCode::VmmDied => "The VMM ended",
        ErrorCode::Timeout => "Time limit exceeded",
        ErrorCode::Cancelled => "Cancelled",
        ErrorCode::Interrupted => "Interrupted",
        ErrorCode::DaemonUnavailable => "Daemon unavailable",
        ErrorCode::Internal => "Internal error",
    }
}

/// An answer with an error.
pub fn answer(status: StatusCode, error: ApiError) -> Response {
    let mut answer = (status, axum::Json(Problem::new(status, error))).into_response();
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    answer
}

/// Describes the errors of each route in the OpenAPI document.
pub struct Problems;

impl Modify for Problems {
    fn modify(&self, document: &mut OpenApi) {
        for (path, item) in &mut document.paths.paths {
            for (method, operation) in operations(item) {
                for (status, codes) in statuses(path, &method, operation) {
                    let response = response(status, codes);
                    let status = status.map_or("default".to_owned(), |status| status.to_string());
                    operation.responses.responses.insert(status, RefOr::T(response));
                }
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
    let all = [
        (HttpMethod::Get, &mut item.get),
        (HttpMethod::Put, &mut item.put),
        (HttpMethod::Post, &mut item.post),
        (HttpMethod::Delete, &mut item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// The statuses of errors that a route can answer with, and their codes.
fn statuses(
    path: &str,
    method: &HttpMethod,
    operation: &Operation,
) -> Vec<(Option<u16>, &'static [ErrorCode])> {
    use ErrorCode as E;
    let changes = !matches!(method, HttpMethod::Get);
    let has_input = operation.request_body.is_some() || operation.parameters.is_some();
    let mut statuses: Vec<(Option<u16>, &[ErrorCode])> = Vec::new();
    if has_input {
        statuses.push((Some(400), &[E::BadRequest]));
    }
    if path.contains('{') {
        statuses.push((Some(404), &[E::NotFound]));
    }
    if changes || path.contains('{') {
        statuses.push((Some(409), &[E::Ambiguous, E::NameTaken, E::WrongState, E::InUse, E::Busy]));
    }
    statuses.push((
        Some(503),
        &[E::DaemonUnavailable, E::HostNotReady, E::OtherBuild, E::NoSpace, E::ReadOnly],
    ));
    statuses.push((
        None,
        &[E::Internal, E::Corrupt, E::GuestFailed, E::VmmDied, E::Timeout, E::Interrupted],
    ));
    statuses
}

fn response(status: Option<u16>, codes: &[ErrorCode]) -> utoipa::openapi::Response {
    let words: Vec<String> = codes.iter().map(|code| format!("`{}`", word(*code))).collect();
    let description = match status {
        Some(421) | None => format!(
            "another error: {} (500), `timeout` (504), or `daemon_unavailable` (421) for a request \
             that expects another build",
            words
                .iter()
                .filter(|word| *word != "`timeout`")
                .cloned()
                .collect::<Vec<_>>()
                .join(", ")
        ),
        Some(_) => words.join(", "),
    };
    let code = codes.first().copied().unwrap_or(ErrorCode::Internal);
    let schema = Ref::from_schema_name("Problem");
    let mut content = Content::new(Some(RefOr::Ref(schema)));
    content.example = Some(example(code));
    ResponseBuilder::new().description(description).content(MEDIA_TYPE, content).build()
}

/// An error as a daemon sends it.
fn example(code: ErrorCode) -> serde_json::Value {
    let message = match code {
        ErrorCode::BadRequest => "`vcpus` is 0: it must be 1 to 64",
        ErrorCode::NotFound => "there is no VM `web`",
        ErrorCode::Ambiguous => "`k3` matches more than one VM",
        ErrorCode::DaemonUnavailable => "the daemon is shutting down",
        _ => "the daemon failed during this request",
    };
    let status = StatusCode::from_u16(code.http_status()).unwrap_or_default();
    json!(Problem::new(status, ApiError::new(code, message)))
}
