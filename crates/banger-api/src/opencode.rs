//! opencode in a VM: a server on a fixed port of the guest, with a password for each VM.

use core::fmt;

use serde::{Deserialize, Serialize};

/// TCP port of the guest.
pub const PORT: u16 = 4096;

/// User name for the server's HTTP basic authentication: the default of opencode.
pub const USER: &str = "opencode";

/// Variables from which opencode reads the password, as a server and as a client. The second is
/// that of version 2, which reads the first one only without it: both are always set, so that one
/// from elsewhere does not count.
pub const PASSWORD_VARIABLES: [&str; 2] = ["OPENCODE_SERVER_PASSWORD", "OPENCODE_PASSWORD"];

/// Secrets of a VM, kept outside its configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VmSecrets {
    /// Access to its opencode server; absent if the image has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opencode: Option<OpencodeAccess>,
}

/// Access to the opencode server of a VM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OpencodeAccess {
    /// TCP port of the guest.
    pub port: u16,
    /// User name for HTTP basic authentication.
    pub username: String,
    /// Its password.
    pub password: String,
}

/// Without the password, which must not reach a log.
impl fmt::Debug for OpencodeAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { port, username, password: _ } = self;
        f.debug_struct("OpencodeAccess").field("port", port).field("username", username).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debug_text_has_no_password() {
        let access =
            OpencodeAccess { port: PORT, username: USER.into(), password: "s3cret".into() };
        let text = format!("{:?}", VmSecrets { opencode: Some(access) });
        assert!(text.contains("4096") && !text.contains("s3cret"), "{text}");
    }
}
