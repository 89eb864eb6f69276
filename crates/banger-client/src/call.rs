//! One request to the daemon: sent again where that is safe, after the daemon was brought back.

use banger_api::{ApiError, ErrorCode, routes};
use hyper::Response;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::daemon;
use crate::http::{self, Call, Connection, Lost};

/// Whether a request that may have been heard can be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Asking twice is as good as asking once.
    Safe,
    /// It would be done twice.
    Unsafe,
}

impl Client {
    /// Sends a request and reads the answer.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        call: Call,
        repeat: Repeat,
    ) -> Result<T, ApiError> {
        http::decode(self.answer(call, repeat).await?).await
    }

    /// Sends a request. Where no daemon answers, or one of another build, it is started or replaced
    /// first, once.
    pub(crate) async fn answer(
        &self,
        call: Call,
        repeat: Repeat,
    ) -> Result<Response<Incoming>, ApiError> {
        let first = self.expecting_our_build(call.clone());
        match self.once(first).await {
            Ok(answer) if answer.status().as_u16() == routes::BUILD_MISMATCH => {}
            Ok(answer) => {
                self.build_is_checked();
                return Ok(answer);
            }
            Err(Lost::Unsent(_)) => {}
            Err(Lost::Unanswered(_)) if repeat == Repeat::Safe => {}
            Err(Lost::Unanswered(error)) => {
                let text = "the daemon went away while it was asked";
                return Err(ApiError::new(ErrorCode::Interrupted, text)
                    .caused_by(&error)
                    .with_hint("`banger vm list` shows whether it was done"));
            }
            Err(lost @ Lost::Silent) => return Err(self.unreachable(&lost)),
        }
        self.ensure_daemon().await?;
        self.build_is_checked();
        self.once(call).await.map_err(|lost| self.unreachable(&lost))
    }

    /// Sends a request to the daemon that is there.
    pub(crate) async fn once(&self, call: Call) -> Result<Response<Incoming>, Lost> {
        let stream = self.transport().connect().await.map_err(Lost::Unsent)?;
        Connection::open(stream, daemon::MAX_HEAD).await?.send(call).await
    }
}
