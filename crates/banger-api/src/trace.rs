//! Trace context: one id from the command that a user gives to everything that follows from it
//! (W3C Trace Context, section 3.2 "Traceparent Header").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The header, and in capitals the environment variable from which a command continues a trace.
pub const TRACEPARENT: &str = "traceparent";

/// Id of a trace: 32 lower-case hexadecimal digits, not all of them zero.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^[0-9a-f]{32}$")]
pub struct TraceId(String);

impl TraceId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<TraceId> for String {
    fn from(id: TraceId) -> Self {
        id.0
    }
}

impl TryFrom<String> for TraceId {
    type Error = BadTrace;

    fn try_from(text: String) -> Result<Self, BadTrace> {
        match is_id(&text, 32) {
            true => Ok(Self(text)),
            false => Err(BadTrace),
        }
    }
}

/// Not a trace context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a trace context of the form `00-TRACE_ID-PARENT_ID-FLAGS` in hexadecimal digits")]
pub struct BadTrace;

/// A place in a trace: the value of the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: TraceId,
    /// The span that asks: 16 hexadecimal digits.
    pub span: String,
    /// Whether it is recorded by whoever asks.
    pub sampled: bool,
}

impl TraceParent {
    /// A new trace from random bytes, of which none of the two parts may be all zeros.
    pub fn from_entropy(bytes: [u8; 24]) -> Option<Self> {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let (trace, span) = hex.split_at(32);
        let trace = TraceId::try_from(trace.to_owned()).ok()?;
        is_id(span, 16).then(|| Self { trace, span: span.to_owned(), sampled: true })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

impl FromStr for TraceParent {
    type Err = BadTrace;

    /// A value of a later version may have more fields, which are ignored.
    fn from_str(text: &str) -> Result<Self, BadTrace> {
        let mut fields = text.splitn(5, '-');
        let mut field = |length| {
            let field = fields.next().filter(|field| is_hex(field, length));
            field.ok_or(BadTrace)
        };
        let (version, trace, span, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        let has_more = fields.next().is_some();
        if version == "ff" || (version == "00" && has_more) || !is_id(span, 16) {
            return Err(BadTrace);
        }
        let flags = u8::from_str_radix(flags, 16).map_err(|_| BadTrace)?;
        let trace = TraceId::try_from(trace.to_owned())?;
        Ok(Self { trace, span: span.to_owned(), sampled: flags & 1 == 1 })
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == length && text.bytes().all(digit)
}

fn is_id(text: &str, length: usize) -> bool {
    is_hex(text, length) && text.bytes().any(|byte| byte != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the specification, section 3.2.
    #[test]
    fn headers_are_read_and_written() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent: TraceParent = text.parse().unwrap();
        assert_eq!(parent.trace.as_str(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((parent.span.as_str(), parent.sampled), ("00f067aa0ba902b7", true));
        assert_eq!(parent.to_string(), text);
        let later = format!("cc{}-more", &text[2..]);
        assert_eq!(later.parse::<TraceParent>().unwrap(), parent);
        for bad in [
            String::new(),
            "00".into(),
            text.to_uppercase(),
            format!("{text}-more"),
            format!("ff{}", &text[2..]),
            text.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            text.replace("00f067aa0ba902b7", &"0".repeat(16)),
            text[..text.len() - 1].into(),
        ] {
            assert_eq!(bad.parse::<TraceParent>(), Err(BadTrace), "{bad}");
        }
    }

    #[test]
    fn a_new_trace_is_one_that_is_read() {
        let new = TraceParent::from_entropy(std::array::from_fn(|at| at as u8)).unwrap();
        assert_eq!(new.to_string().parse(), Ok(new));
        assert_eq!(TraceParent::from_entropy([0; 24]), None);
    }
}
