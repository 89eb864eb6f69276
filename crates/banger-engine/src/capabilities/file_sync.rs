//! Files of the host's user in guests: `[[file_sync]]` and the login of opencode, at each start.
//! Settings of the host, as proxies are.

use crate::capability::Capability;

/// Files of the host.
pub const CAPABILITY: Capability =
    Capability { name: "file_sync", plan: None, change: None, live: None, steps: &[] };
