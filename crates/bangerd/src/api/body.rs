//! Extractors with limits for bodies, paths and queries; their errors name the invalid field.

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

/// Maximum size of a body in bytes.
pub const MAX_BODY: usize = 1024 * 1024;
/// Time limit for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

fn bad(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, text)
}

/// A JSON body.
pub struct Json<T>(pub T);

/// A JSON body; no body means all defaults.
pub struct JsonOrNothing<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _api: &Arc<Api>) -> Result<Self, Failure> {
        match read(request).await? {
            Some(value) => Ok(Self(value)),
            None => Err(bad("the request has no body: it needs a JSON object").into()),
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
        let shown = banger_api::excerpt(kind);
        let text = format!("the body has the type `{shown}`: it must be `application/json`");
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
        Ok(Err(error)) => Err(bad("the body is incomplete").caused_by(&*error)),
        Err(_) => Err(bad(format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs()))),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // serde would take an array for the fields in order, and most bodies have no mandatory field.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(bad("the body is invalid: it must be a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let problem: String =
            error.inner().to_string().chars().take(400).flat_map(char::escape_debug).collect();
        if path == "." {
            bad(format!("the body is invalid: {problem}"))
        } else {
            let path = banger_api::excerpt(&path);
            bad(format!("`{path}` is invalid: {problem}"))
        }
    })?;
    json.end().map_err(|error| bad(format!("the body is invalid: {error}")))?;
    Ok(value)
}

/// The parameters of the path.
pub struct PathParams<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Api>> for PathParams<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Failure> {
        match Path::<T>::from_request_parts(parts, api).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(bad("the path is invalid").caused_by(&rejection).into()),
        }
    }
}

/// The parameters of the query.
pub struct QueryParams<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Api>> for QueryParams<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Failure> {
        match Query::<T>::from_request_parts(parts, api).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(bad("the query is invalid").caused_by(&rejection).into()),
        }
    }
}

/// Parses an id of a path.
///
/// # Errors
/// `BadRequest` if it is not an id.
pub fn id<T: std::str::FromStr<Err = banger_api::ids::BadId>>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error: banger_api::ids::BadId| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_times_out() {
        let pending = stream::pending::<Result<axum::body::Bytes, std::io::Error>>();
        let error = collect(Body::from_stream(pending)).await.unwrap_err();
        assert_eq!(error.message, "the body did not arrive within 30 s");
    }

    #[test]
    fn errors_name_the_field() {
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
        assert!(
            problem(r#"{"list": [{"n": 1}, {"n": 256}]}"#).starts_with("`list[1].n` is invalid")
        );
        assert!(problem(r#"{"list": [{"m": 1}]}"#).contains("unknown field `m`"));
        assert!(problem(r#"{}"#).contains("missing field `list`"));
    }
}
