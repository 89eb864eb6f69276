//! Files of the host's user in guests at each start: `[[file_sync]]` and the login of opencode,
//! which are settings of the host, as proxies are, and the login of the agent that a VM was made
//! for.

use crate::capability::Capability;

/// Files of the host.
pub const CAPABILITY: Capability =
    Capability { name: "file_sync", plan: None, change: None, live: None, steps: &[] };
