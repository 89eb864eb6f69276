//! `GET /archive` and `PUT /archive`: files of the guest as tar streams (docs/cp.md).
//!
//! Paths are any bytes, percent-encoded; one that is not absolute begins in the user's home folder,
//! as does `~/`. `user=U` is a user of the guest, as for [`crate::exec`], by default the superuser:
//! files are read and written with the permissions of that user.
//!
//! - `GET /archive?path=P` packs a file or folder. `link=follow` packs the target of a symlink at
//!   the end of the path, and `name=N` is the name of the top entry, by default the last part of
//!   the path, or `.` if that is `.` or `..`. The header [`SOURCE_HEADER`] of the answer has the
//!   kind of the source. The answer is complete only with its last chunk; the trailer
//!   [`ERROR_TRAILER`] then has the reason why the archive is not, and [`LEFT_OUT_TRAILER`] the
//!   number of sockets and devices that are not in it.
//! - `PUT /archive?path=P&source=file|folder|contents&name=N` unpacks the body; `source` is the
//!   kind of what is packed, and `name` the name that a file or folder gets in a folder that
//!   exists. With `owners=keep` files get the owners and set-id bits of the archive, else they
//!   belong to the user. The answer is [`Unpacked`].
//!
//! Errors: [`NO_PATH`] for a path that does not exist, 403 for a lack of permission, 409 for a file
//! in the way, 507 for a full disk. An agent from before these routes answers 404.

use serde::{Deserialize, Serialize};

/// Status of an answer if the guest does not have the path.
pub const NO_PATH: u16 = 410;

/// Header of an answer to `GET /archive`: `file`, `folder` or `contents`.
pub const SOURCE_HEADER: &str = "banger-source";

/// Trailer: why the archive is not complete, percent-encoded.
pub const ERROR_TRAILER: &str = "banger-error";

/// Trailer: the number of sockets and devices that were left out.
pub const LEFT_OUT_TRAILER: &str = "banger-left-out";

/// Maximum length of the message in [`ERROR_TRAILER`], in bytes before it is encoded.
pub const MAX_TRAILER: usize = 1024;

/// Content type of an archive.
pub const CONTENT_TYPE: &str = "application/x-tar";

/// Answer to `PUT /archive`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpacked {
    /// Number of entries.
    pub entries: u64,
    /// Bytes of content, without holes.
    pub bytes: u64,
    /// Number of devices that were left out.
    #[serde(default)]
    pub left_out: u64,
}

/// Percent-encodes bytes for a query or a header.
pub fn encode(bytes: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(byte) {
            encoded.push(char::from(*byte));
        } else {
            for digit in [byte >> 4, byte & 15] {
                encoded.extend(char::from_digit(digit.into(), 16).map(|c| c.to_ascii_uppercase()));
            }
            let at = encoded.len().saturating_sub(2);
            encoded.insert(at, '%');
        }
    }
    encoded
}

/// Replaces `%41` and its like; a percent sign that begins no escape stays.
pub fn decode(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some((first, after)) = rest.split_first() {
        match (first, after) {
            (b'%', [high, low, after @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                decoded.push(hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0));
                rest = after;
            }
            _ => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive_a_query() {
        let all: Vec<u8> = (0..=255).collect();
        let text = encode(&all);
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && !b"&=?# ".contains(&byte)));
        assert_eq!(decode(&text), all);
        assert_eq!(encode(b"/a b\xff"), "/a%20b%FF");
        assert_eq!(decode("100%"), b"100%");
        assert_eq!(decode("%zz%4"), b"%zz%4");
    }
}
