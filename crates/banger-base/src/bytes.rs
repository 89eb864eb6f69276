//! Byte strings in JSON: arguments, environment and paths of Linux are bytes, not text. Every path
//! that another process opens is one, because a path made of `Path::display` may be another path.
//!
//! Text without control characters is a JSON string; everything else is `{"base64": "…"}`. A
//! byte string therefore takes at most twice its length on the wire.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Key of the object with bytes that are not plain text.
const KEY: &str = "base64";

/// A string of any bytes: an argument, a variable, a path.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteString(Vec<u8>);

impl ByteString {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as the operating system's string.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }

    /// The bytes as a path.
    pub fn as_path(&self) -> &Path {
        Path::new(self.as_os_str())
    }

    /// Text for a message: bytes that are not UTF-8 are replaced.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

/// For messages; bytes that are not UTF-8 are replaced.
impl fmt::Display for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_string_lossy())
    }
}

impl fmt::Debug for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_os_str(), f)
    }
}

impl From<&str> for ByteString {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for ByteString {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl From<OsString> for ByteString {
    fn from(text: OsString) -> Self {
        Self(text.into_vec())
    }
}

impl From<&Path> for ByteString {
    fn from(path: &Path) -> Self {
        path.as_os_str().to_owned().into()
    }
}

impl From<PathBuf> for ByteString {
    fn from(path: PathBuf) -> Self {
        path.into_os_string().into()
    }
}

impl AsRef<Path> for ByteString {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

impl AsRef<OsStr> for ByteString {
    fn as_ref(&self) -> &OsStr {
        self.as_os_str()
    }
}

impl From<Vec<u8>> for ByteString {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<ByteString> for Vec<u8> {
    fn from(string: ByteString) -> Self {
        string.0
    }
}

impl PartialEq<str> for ByteString {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for ByteString {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl Serialize for ByteString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            // JSON escapes a control character as six bytes.
            Ok(text) if !text.chars().any(|c| c.is_ascii_control() && c != '\n' && c != '\t') => {
                serializer.serialize_str(text)
            }
            _ => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(KEY, &BASE64.encode(&self.0))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for ByteString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ByteStringVisitor)
    }
}

struct ByteStringVisitor;

impl<'de> Visitor<'de> for ByteStringVisitor {
    type Value = ByteString;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a string or {{\"{KEY}\": \"…\"}}")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteString, E> {
        Ok(text.into())
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<ByteString, E> {
        Ok(text.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ByteString, A::Error> {
        let (key, encoded) =
            map.next_entry::<String, String>()?.ok_or_else(|| A::Error::missing_field(KEY))?;
        if key != KEY || map.next_key::<String>()?.is_some() {
            return Err(A::Error::custom(format!("only the key `{KEY}` is known here")));
        }
        BASE64.decode(&encoded).map(ByteString).map_err(|_| A::Error::custom("malformed base64"))
    }
}

/// The two forms, for the API's OpenAPI document.
#[cfg(feature = "openapi")]
mod schema {
    use utoipa::openapi::RefOr;
    use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};

    use super::{ByteString, KEY};

    impl utoipa::PartialSchema for ByteString {
        fn schema() -> RefOr<Schema> {
            let text = || ObjectBuilder::new().schema_type(Type::String);
            let bytes = ObjectBuilder::new()
                .schema_type(Type::Object)
                .property(KEY, text())
                .required(KEY)
                .description(Some("bytes that are not plain text"));
            let both = OneOfBuilder::new().item(text()).item(bytes);
            both.description(Some("text, or bytes in base64")).into()
        }
    }

    impl utoipa::ToSchema for ByteString {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_stays_text() {
        let json = serde_json::to_string(&ByteString::from("caf\u{e9} 'x'\n")).unwrap();
        assert_eq!(json, "\"caf\u{e9} 'x'\\n\"");
        assert_eq!(serde_json::from_str::<ByteString>("\"a\\u0001\"").unwrap(), "a\u{1}");
    }

    #[test]
    fn other_bytes_are_base64() {
        let json = serde_json::to_string(&ByteString::from(b"caf\xe9".to_vec())).unwrap();
        assert_eq!(json, "{\"base64\":\"Y2Fm6Q==\"}");
    }

    #[test]
    fn other_json_is_refused() {
        for json in ["1", "null", "{}", "{\"base64\":\"?\"}", "{\"hex\":\"00\"}", "[1]"] {
            assert!(serde_json::from_str::<ByteString>(json).is_err(), "{json}");
        }
        let two = "{\"base64\":\"\",\"base64\":\"\"}";
        assert!(serde_json::from_str::<ByteString>(two).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_take_at_most_twice_their_length(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let string = ByteString::from(bytes.clone());
            let json = serde_json::to_vec(&string).unwrap();
            prop_assert!(json.len() <= 2 * bytes.len() + 18, "{}", json.len());
            prop_assert_eq!(serde_json::from_slice::<ByteString>(&json).unwrap(), string);
        }
    }
}
