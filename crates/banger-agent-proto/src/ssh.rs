//! `POST /connect` and `GET /sshd`: TCP ports of the guest, and its ssh server.
//!
//! - `POST /connect?port=N&wait_ms=M` needs `Upgrade: banger-tcp/1`. The agent connects to TCP port
//!   `N` of the guest itself, retrying for at most `M` ms while the guest boots. The answer is
//!   `101`, after which the connection carries the bytes of that TCP connection. There is no
//!   half-close: when one side ends, the agent closes both. `409` means that nothing listens.
//! - `GET /sshd` answers with [`SshServer`].

use serde::{Deserialize, Serialize};

/// Value of the `Upgrade` header.
pub const UPGRADE: &str = "banger-tcp/1";

/// Status of an answer to `POST /connect` if nothing listens on the port.
pub const NOT_LISTENING: u16 = 409;

/// Maximum number of host keys in [`SshServer`].
pub const MAX_HOST_KEYS: usize = 16;

/// Maximum length of a host key in bytes; an RSA key of 16384 bits has about 2800.
pub const MAX_HOST_KEY: usize = 8 * 1024;

/// The ssh server of the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshServer {
    /// Whether the guest has the program of an ssh server.
    pub installed: bool,
    /// Public host keys, each `TYPE BASE64` as in sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".
    pub host_keys: Vec<String>,
}

/// Reads a public key in the format of sshd(8): `TYPE BASE64`, followed by an optional comment,
/// which is dropped. `None` if the text is not such a key, has several lines, or is too long.
pub fn public_key(text: &str) -> Option<String> {
    let text = text.trim();
    let mut fields = text.split(' ');
    let (kind, data) = (fields.next()?, fields.next()?);
    let is_kind = |byte: u8| byte.is_ascii_alphanumeric() || b"-@.".contains(&byte);
    let is_data = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    // `@` first would be a marker such as `@cert-authority`.
    let valid = kind.bytes().next()?.is_ascii_alphanumeric()
        && kind.bytes().all(is_kind)
        && data.len() >= 16
        && data.bytes().all(is_data)
        && !text.contains(['\n', '\r']);
    let key = format!("{kind} {data}");
    (valid && key.len() <= MAX_HOST_KEY).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_plain_key_is_accepted() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0=";
        for text in [key.to_owned(), format!("{key}\n"), format!("{key} root@web of mine\r\n")] {
            assert_eq!(public_key(&text).as_deref(), Some(key), "{text}");
        }
        let sk = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t";
        assert_eq!(public_key(sk).as_deref(), Some(sk));
        for text in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 short",
            "@cert-authority AAAAC3NzaC1lZDI1NTE5AAAAIJ0=",
            "web,* AAAAC3NzaC1lZDI1NTE5AAAAIJ0=",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5\n* ssh-rsa AAAAC3NzaC1lZDI1NTE5",
            "ssh-ed25519\tAAAAC3NzaC1lZDI1NTE5AAAAIJ0=",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA\u{e9}",
        ] {
            assert_eq!(public_key(text), None, "{text:?}");
        }
        assert_eq!(public_key(&format!("ssh-rsa {}", "A".repeat(MAX_HOST_KEY))), None);
    }
}
