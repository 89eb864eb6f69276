//! Sends a request to the daemon, and repeats it after a start of the daemon if that is safe.

use banger_api::trace::TRACEPARENT;
use banger_api::{ApiError, ErrorCode, Hint, routes};
use hyper::Response;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::daemon;
use crate::http::{self, Call, CallError, Connection};

/// Whether a request that the daemon may have received can be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idempotency {
    /// A second request has no further effect.
    Idempotent,
    /// A second request would repeat the effect.
    NotIdempotent,
}

impl Client {
    /// Sends a request and reads the answer.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        call: Call,
        idempotency: Idempotency,
    ) -> Result<T, ApiError> {
        http::decode(self.answer(call, idempotency).await?).await
    }

    /// Sends a request. If no daemon answers, or one of another build, starts or replaces the
    /// daemon and sends the request once more.
    pub(crate) async fn answer(
        &self,
        call: Call,
        idempotency: Idempotency,
    ) -> Result<Response<Incoming>, ApiError> {
        let first = self.expecting_our_build(call.clone());
        match self.once(first).await {
            Ok(answer) if answer.status().as_u16() == routes::BUILD_MISMATCH => {}
            Ok(answer) => {
                self.build_is_checked();
                return Ok(answer);
            }
            Err(CallError::NotSent(_)) => {}
            Err(CallError::NoAnswer(_)) if idempotency == Idempotency::Idempotent => {}
            Err(CallError::NoAnswer(error)) => {
                let text = "the connection to the daemon ended before its answer";
                return Err(ApiError::new(ErrorCode::Interrupted, text)
                    .caused_by(&error)
                    .with_hint(Hint::CheckEffect));
            }
            Err(error @ CallError::TimedOut) => return Err(self.unreachable(&error)),
        }
        self.ensure_daemon().await?;
        self.build_is_checked();
        self.once(call).await.map_err(|error| self.unreachable(&error))
    }

    /// Sends a request to the running daemon, without starting one.
    pub(crate) async fn once(&self, call: Call) -> Result<Response<Incoming>, CallError> {
        let stream = self.transport().connect().await.map_err(CallError::NotSent)?;
        let call = match self.traceparent() {
            Some(trace) => call.with_header(TRACEPARENT, trace),
            None => call,
        };
        Connection::open(stream, daemon::MAX_HEAD).await?.send(call).await
    }
}
