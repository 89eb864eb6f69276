//! Git identity: each guest's global configuration of git gets `user.name` and `user.email` of the
//! host's at each start. A setting of the host, as proxies are.

use crate::capability::Capability;

/// Git identity.
pub const CAPABILITY: Capability =
    Capability { name: "git_identity", plan: None, change: None, live: None, steps: &[] };
