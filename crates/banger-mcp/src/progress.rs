//! Progress notifications of one call, if its client asks for them.

use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::{Peer, RoleServer};

/// Sends the progress of a call.
pub struct Progress {
    to: Option<(Peer<RoleServer>, ProgressToken)>,
    value: f64,
}

impl Progress {
    /// To this client, with the token of its request; nowhere without one.
    pub fn new(peer: Peer<RoleServer>, token: Option<ProgressToken>) -> Self {
        Self { to: token.map(|token| (peer, token)), value: 0.0 }
    }

    /// Whether the client gets messages.
    pub fn is_wanted(&self) -> bool {
        self.to.is_some()
    }

    /// Sends a message; `by` is what was done since the last one, which is counted from zero. A
    /// client that reads slowly holds up the caller.
    pub async fn tell(&mut self, by: u32, message: String) {
        self.value += f64::from(by);
        let Some((peer, token)) = &self.to else { return };
        let parameters = ProgressNotificationParam::new(token.clone(), self.value);
        // A client that is gone ends the session elsewhere.
        let _ = peer.notify_progress(parameters.with_message(message)).await;
    }
}
