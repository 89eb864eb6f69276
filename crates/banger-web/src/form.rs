//! Fields of a submitted form, and their values as the API's types.

use std::convert::Infallible;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use banger_api::publish::PortForward;
use banger_api::size::{MIB, parse_size};
use banger_api::{ApiError, ErrorCode};

/// Maximum number of fields.
const MAX_FIELDS: usize = 4096;

/// The fields of a form, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// Parses `application/x-www-form-urlencoded`; bytes that are not UTF-8 are replaced.
    pub fn parse(bytes: &[u8]) -> Self {
        let pairs = bytes.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
        let pair = |pair: &[u8]| {
            let equals = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let (key, value) = pair.split_at(equals);
            (decode(key), decode(value.get(1..).unwrap_or_default()))
        };
        Self(pairs.take(MAX_FIELDS).map(pair).collect())
    }

    /// The first value of a field, without white space around it; none if it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.iter().find(|(key, _)| key == name)?.1.trim();
        (!value.is_empty()).then_some(value)
    }

    /// The value as it was typed, empty if there is none.
    pub fn raw(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// All values of a field.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a box is ticked.
    pub fn ticked(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The value of a field that must not be empty.
    ///
    /// # Errors
    /// It is empty.
    pub fn required(&self, name: &str, label: &str) -> Result<String, ApiError> {
        self.get(name).map(str::to_owned).ok_or_else(|| bad(format!("{label} is missing")))
    }

    /// A whole number.
    ///
    /// # Errors
    /// Another text.
    pub fn number(&self, name: &str, label: &str) -> Result<Option<u32>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.parse();
        number.map(Some).map_err(|_| bad(format!("{label}: `{}` is not a number", excerpt(text))))
    }

    /// A size in bytes: `512M`, `2G`.
    ///
    /// # Errors
    /// Another text.
    pub fn size(&self, name: &str, label: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        parse_size(text).map(Some).map_err(|error| bad(format!("{label}: {error}")))
    }

    /// A size in MiB.
    ///
    /// # Errors
    /// Another text, or a size with a fraction of a MiB.
    pub fn size_mib(&self, name: &str, label: &str) -> Result<Option<u64>, ApiError> {
        match self.size(name, label)? {
            Some(bytes) if bytes % MIB != 0 => {
                Err(bad(format!("{label}: `{}` is not a whole number of MiB", self.raw(name))))
            }
            bytes => Ok(bytes.map(|bytes| bytes / MIB)),
        }
    }

    /// Ports to publish, separated by white space or commas.
    ///
    /// # Errors
    /// One of them is not a port to publish.
    pub fn ports(&self, name: &str) -> Result<Vec<PortForward>, ApiError> {
        let words = self.words(name).map(|word| word.parse::<PortForward>());
        words.map(|port| port.map_err(|error| bad(error.to_string()))).collect()
    }

    /// Words, separated by white space or commas.
    pub fn words(&self, name: &str) -> impl Iterator<Item = &str> {
        let split = |c: char| c.is_whitespace() || c == ',';
        self.raw(name).split(split).filter(|word| !word.is_empty())
    }

    /// The value of a `yes`/`no` choice; none if neither is chosen.
    pub fn choice(&self, name: &str) -> Option<bool> {
        match self.get(name) {
            Some("yes") => Some(true),
            Some("no") => Some(false),
            _ => None,
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Infallible;

    async fn from_request(request: Request, state: &S) -> Result<Self, Infallible> {
        // The layer that checked the token has read the body within its limit.
        let bytes = Bytes::from_request(request, state).await.unwrap_or_default();
        Ok(Self::parse(&bytes))
    }
}

/// An error about a value of a form.
pub fn bad(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, text)
}

fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}

fn decode(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        match (byte, digit(ahead.next()), digit(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = ahead;
            }
            (b'+', ..) => bytes.push(b' '),
            _ => bytes.push(*byte),
        }
    }
    // Forms end lines with CR LF.
    String::from_utf8_lossy(&bytes).replace("\r\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded() {
        let fields = Fields::parse(b"a=1+2&b=%C3%A4%0D%0Ax&a=3&c&=d&e=%zz%4&f=%ff");
        assert_eq!(fields.get("a"), Some("1 2"));
        assert_eq!(fields.raw("b"), "ä\nx");
        assert_eq!(fields.all("a").collect::<Vec<_>>(), ["1 2", "3"]);
        assert_eq!((fields.get("c"), fields.raw("c")), (None, ""));
        assert_eq!(fields.raw("e"), "%zz%4");
        assert_eq!(fields.raw("f"), "\u{fffd}");
        assert_eq!(Fields::parse(b""), Fields::default());
        assert_eq!(Fields::parse(&b"a&".repeat(100_000)).0.len(), MAX_FIELDS);
    }

    #[test]
    fn values_are_checked() {
        let fields = Fields::parse(b"n=x&s=1.5G&m=1K&p=8080:80,x&none=&ok=2G");
        let message = |error: ApiError| error.message;
        assert_eq!(message(fields.number("n", "vCPUs").unwrap_err()), "vCPUs: `x` is not a number");
        assert!(message(fields.size("s", "Memory").unwrap_err()).starts_with("Memory: `1.5G`"));
        assert!(message(fields.size_mib("m", "Memory").unwrap_err()).contains("whole number"));
        assert!(message(fields.ports("p").unwrap_err()).contains("`x` is not a port"));
        assert_eq!(message(fields.required("none", "Name").unwrap_err()), "Name is missing");
        assert_eq!(fields.size_mib("ok", "Memory").unwrap(), Some(2048));
        assert_eq!(fields.number("none", "vCPUs").unwrap(), None);
    }
}
