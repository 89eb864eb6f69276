//! Creates with a client's own key: a repeated request gets the answer to the first one.
//!
//! The answer is kept in the commit that records the operation, so that no daemon knows one without
//! the other. It is repeated whatever became of the operation.

use banger_api::idempotency::{IdempotencyKey, KEPT_MS};
use banger_api::operation::Accepted;
use banger_api::vm::CreateVm;
use banger_api::{ApiError, ErrorCode, Hint};

use crate::engine::Engine;

/// The key of a request.
#[derive(Debug, Clone)]
pub struct KeyedRequest {
    /// The key.
    pub key: IdempotencyKey,
    /// Digest of the request; differs for a request with other values.
    pub digest: String,
}

/// Whether an answer was given before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// This request has been carried out.
    Now,
    /// An earlier request with this key was.
    Before,
}

impl Engine {
    /// Accepts a create unless a request with this key was accepted within the last day; its answer
    /// is returned then.
    ///
    /// # Errors
    /// [`ErrorCode::InUse`] if the key belongs to a request with other values, and those of
    /// [`Engine::create`].
    pub async fn create_once(
        &self,
        request: CreateVm,
        keyed: KeyedRequest,
    ) -> Result<(Accepted, Given), ApiError> {
        // The second of two simultaneous requests waits for the answer to the first.
        let _alone = self.keyed.lock().await;
        let kept = self.shared.store.kept_answer(&keyed.key).await?;
        let oldest = self.shared.drivers.host.now_unix_ms().saturating_sub(KEPT_MS);
        match kept.filter(|kept| kept.at_unix_ms >= oldest) {
            Some(kept) if kept.request == keyed.digest => Ok((kept.answer, Given::Before)),
            Some(kept) => {
                let text = format!(
                    "the idempotency key `{}` belongs to a request with other values",
                    kept.key
                );
                let hint = "send each request with a key of its own";
                Err(ApiError::new(ErrorCode::InUse, text).with_hint(Hint::text(hint)))
            }
            None => Ok((self.create_for(request, None, Some(keyed)).await?, Given::Now)),
        }
    }
}
