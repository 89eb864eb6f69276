//! Upgraded HTTP connections (RFC 9110 section 7.8).

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, UPGRADE};
use axum::response::{IntoResponse, Response};
use banger_api::{ApiError, ErrorCode};
use hyper::upgrade::OnUpgrade;

/// The connection of a request that asks for `protocol`; `what` begins the error message.
///
/// # Errors
/// `BadRequest` if the request does not ask for the protocol.
pub fn requested(request: &mut Request, protocol: &str, what: &str) -> Result<OnUpgrade, ApiError> {
    let is_upgrade = request.headers().get(UPGRADE).is_some_and(|value| value == protocol);
    let client = request.extensions_mut().remove::<OnUpgrade>().filter(|_| is_upgrade);
    client.ok_or_else(|| {
        let text = format!("{what} needs the headers `Connection: upgrade`, `Upgrade: {protocol}`");
        ApiError::new(ErrorCode::BadRequest, text)
    })
}

/// The answer that switches the connection to `protocol`.
pub fn accepted(protocol: &'static str) -> Response {
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, protocol)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}
