//! Proxy: the host's proxies, which each guest gets at boot. It is a setting of the host, not of a
//! VM, so there is neither a step nor a change of the specification.

use crate::capability::Capability;

/// Proxy.
pub const CAPABILITY: Capability =
    Capability { name: "proxy", plan: None, change: None, live: None, steps: &[] };
