//! The trace of a command: from its environment, or a new one.

use banger_api::trace::{TRACEPARENT, TraceParent};

use crate::client::Client;

impl Client {
    /// The same client, whose requests belong to this trace.
    #[must_use]
    pub fn in_trace(mut self, trace: Option<TraceParent>) -> Self {
        self.trace = trace;
        self
    }

    /// The same client, whose requests belong to a new trace.
    #[must_use]
    pub fn in_new_trace(&self) -> Self {
        self.clone().in_trace(new_trace())
    }

    /// The trace of this client's requests as the value of the header.
    pub(crate) fn traceparent(&self) -> Option<String> {
        self.trace.as_ref().map(ToString::to_string)
    }
}

/// The trace that a program continues: of the variable `TRACEPARENT` if that has one, as tools that
/// run commands set it, or else a new one. None without random numbers.
pub fn inherited_trace() -> Option<TraceParent> {
    let given = std::env::var(TRACEPARENT.to_ascii_uppercase()).ok();
    given.and_then(|text| text.parse().ok()).or_else(new_trace)
}

fn new_trace() -> Option<TraceParent> {
    let mut entropy = [0; 24];
    getrandom::fill(&mut entropy).ok()?;
    TraceParent::from_entropy(entropy)
}
