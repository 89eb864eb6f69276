//! What a client sends, read within limits, refused with words that name what is wrong.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use banger_api::{ApiError, ErrorCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::{Api, Failure};

/// Largest body, in bytes.
pub const MAX_BODY: usize = 1024 * 1024;
/// Longest time a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

fn bad(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, text)
}

/// A JSON body.
pub struct Json<T>(pub T);

/// A JSON body, or none, which means all defaults.
pub struct JsonOrNothing<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _api: &Arc<Api>) -> Result<Self, Failure> {
        match read(request).await? {
            Some(value) => Ok(Self(value)),
            None => Err(bad("the request has no body; it needs one of JSON").into()),
        }
    }
}

impl<T: DeserializeOwned + Default> FromRequest<Arc<Api>> for JsonOrNothing<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _api: &Arc<Api>) -> Result<Self, Failure> {
        Ok(Self(read(request).await?.unwrap_or_default()))
    }
}

async fn read<T: DeserializeOwned>(request: Request) -> Result<Option<T>, ApiError> {
    let content_type = request.headers().get(CONTENT_TYPE).cloned();
    let bytes = collect(request.into_body()).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let kind = content_type.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let shown: String = kind.chars().take(80).flat_map(char::escape_debug).collect();
        let text = format!("the body is of the type `{shown}`; it must be `application/json`");
        return Err(bad(text));
    }
    if bytes.trim_ascii() == b"null" {
        return Ok(None);
    }
    parse(&bytes).map(Some)
}

async fn collect(body: Body) -> Result<axum::body::Bytes, ApiError> {
    let whole = Limited::new(body, MAX_BODY).collect();
    match tokio::time::timeout(BODY_TIMEOUT, whole).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(bad("the body is larger than 1 MiB"))
        }
        Ok(Err(error)) => Err(bad("the body is not whole").caused_by(&*error)),
        Err(_) => Err(bad(format!("the body did not come within {} s", BODY_TIMEOUT.as_secs()))),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // A list would be taken for the fields in order, and no field is mandatory in most bodies.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(bad("the body is not as it should be: it must be a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let problem: String =
            error.inner().to_string().chars().take(400).flat_map(char::escape_debug).collect();
        if path == "." {
            bad(format!("the body is not as it should be: {problem}"))
        } else {
            let path: String = path.chars().take(80).flat_map(char::escape_debug).collect();
            bad(format!("`{path}` is not as it should be: {problem}"))
        }
    })?;
    json.end().map_err(|error| bad(format!("the body is not as it should be: {error}")))?;
    Ok(value)
}

/// The parts of a route in braces.
pub struct PathParams<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Api>> for PathParams<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Failure> {
        match Path::<T>::from_request_parts(parts, api).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(rejection) => {
                Err(bad("the path is not as it should be").caused_by(&rejection).into())
            }
        }
    }
}

/// What follows the question mark.
pub struct QueryParams<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Api>> for QueryParams<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Failure> {
        match Query::<T>::from_request_parts(parts, api).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => {
                Err(bad("the query is not as it should be").caused_by(&rejection).into())
            }
        }
    }
}

/// An id in a path.
///
/// # Errors
/// It is not one.
pub fn id<T: std::str::FromStr<Err = banger_api::ids::BadId>>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error: banger_api::ids::BadId| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_comes_is_not_waited_for() {
        let pending = stream::pending::<Result<axum::body::Bytes, std::io::Error>>();
        let error = collect(Body::from_stream(pending)).await.unwrap_err();
        assert_eq!(error.message, "the body did not come within 30 s");
    }

    #[test]
    fn what_is_wrong_is_named() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Inner {
            #[serde(rename = "n")]
            _n: u8,
        }
        #[derive(Debug, serde::Deserialize)]
        struct Outer {
            #[serde(rename = "list")]
            _list: Vec<Inner>,
        }
        let problem = |text: &str| parse::<Outer>(text.as_bytes()).unwrap_err().message;
        assert!(problem(r#"{"list": [{"n": 1}, {"n": 256}]}"#).starts_with("`list[1].n` is not"));
        assert!(problem(r#"{"list": [{"m": 1}]}"#).contains("unknown field `m`"));
        assert!(problem(r#"{}"#).contains("missing field `list`"));
    }
}
