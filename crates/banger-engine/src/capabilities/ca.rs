//! Certificates: authorities that the host's configuration names, which each guest trusts. As with
//! proxies there is neither a step nor a change of the specification.

use crate::capability::Capability;

/// Certificates.
pub const CAPABILITY: Capability =
    Capability { name: "ca", plan: None, change: None, live: None, steps: &[] };
