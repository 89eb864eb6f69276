//! Labels: keys with values that users attach to VMs, to select them in lists.

use core::fmt;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{AdditionalProperties, Object, ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Maximum number of labels of a VM.
pub const MAX_LABELS: usize = 64;
/// Maximum length of a key in bytes.
pub const MAX_KEY: usize = 128;
/// Maximum length of a value in characters.
pub const MAX_VALUE: usize = 256;

/// Pattern of a key (ECMA-262 regular expression), for the API's description.
pub const KEY_PATTERN: &str = "^[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?$";
/// Pattern of a value.
pub const VALUE_PATTERN: &str = r"^[^\u0000-\u001F\u007F-\u009F]*$";

/// Maximum length of a quoted text in characters.
const SHOWN: usize = 80;

/// The beginning of a text for a message, in ASCII.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().take(SHOWN).flat_map(char::escape_default).collect()
}

/// Reason why a label is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLabel {
    /// The key.
    #[error("`{key}` is not a label key: {problem}")]
    Key {
        /// The key, shortened and escaped.
        key: String,
        /// The error.
        problem: &'static str,
    },
    /// The value.
    #[error("the value of label `{key}` {problem}")]
    Value {
        /// The key.
        key: LabelKey,
        /// The error.
        problem: &'static str,
    },
    /// Too many labels.
    #[error("{0} labels: a VM has at most {MAX_LABELS}")]
    TooMany(usize),
}

/// Key of a label: 1–128 of a–z, A–Z, 0–9, dots, underscores, slashes and hyphens; the first and
/// the last one are a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabelKey(String);

impl LabelKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LabelKey {
    type Err = BadLabel;

    fn from_str(text: &str) -> Result<Self, BadLabel> {
        let bytes = text.as_bytes();
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._/-".contains(byte);
        let problem = if text.is_empty() {
            "it is empty"
        } else if text.len() > MAX_KEY {
            "it is longer than 128 characters"
        } else if !bytes.iter().all(allowed) {
            "only letters, digits, dots, underscores, slashes and hyphens are allowed"
        } else if !edge(bytes.first()) || !edge(bytes.last()) {
            "it must begin and end with a letter or digit"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(BadLabel::Key { key: excerpt(text), problem })
    }
}

impl TryFrom<String> for LabelKey {
    type Error = BadLabel;
    fn try_from(text: String) -> Result<Self, BadLabel> {
        text.parse()
    }
}

impl From<LabelKey> for String {
    fn from(key: LabelKey) -> String {
        key.0
    }
}

impl fmt::Display for LabelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn key_schema() -> Object {
    let key = ObjectBuilder::new().schema_type(Type::String).pattern(Some(KEY_PATTERN));
    key.max_length(Some(MAX_KEY)).build()
}

impl PartialSchema for LabelKey {
    fn schema() -> RefOr<Schema> {
        key_schema().into()
    }
}

impl ToSchema for LabelKey {
    fn name() -> Cow<'static, str> {
        "LabelKey".into()
    }
}

/// Checks a value.
///
/// # Errors
/// It is too long, or has control characters.
pub fn check_value(key: &LabelKey, value: &str) -> Result<(), BadLabel> {
    let bad = |problem| Err(BadLabel::Value { key: key.clone(), problem });
    if value.chars().count() > MAX_VALUE {
        return bad("is longer than 256 characters");
    }
    if value.chars().any(char::is_control) {
        return bad("has control characters");
    }
    Ok(())
}

/// Parses `KEY=VALUE`, or `KEY` for an empty value.
///
/// # Errors
/// The key or the value is refused.
pub fn parse(text: &str) -> Result<(LabelKey, String), BadLabel> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let key: LabelKey = key.parse()?;
    check_value(&key, value)?;
    Ok((key, value.to_owned()))
}

/// The labels of a VM, in the order of their keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Labels(BTreeMap<LabelKey, String>);

impl Labels {
    /// No labels.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Labels of a command line; the last value of a key counts.
    ///
    /// # Errors
    /// A value is refused, or there are too many.
    pub fn of(labels: impl IntoIterator<Item = (LabelKey, String)>) -> Result<Self, BadLabel> {
        let all: BTreeMap<LabelKey, String> = labels.into_iter().collect();
        all.iter().try_for_each(|(key, value)| check_value(key, value))?;
        match all.len() {
            ..=MAX_LABELS => Ok(Self(all)),
            many => Err(BadLabel::TooMany(many)),
        }
    }

    /// Without the keys of `removed`, then with those of `added`.
    ///
    /// # Errors
    /// Too many labels.
    pub fn changed(&self, removed: &[LabelKey], added: &Self) -> Result<Self, BadLabel> {
        let stay = self.0.iter().filter(|(key, _)| !removed.contains(key));
        let pairs = stay.chain(&added.0).map(|(key, value)| (key.clone(), value.clone()));
        Self::of(pairs)
    }

    /// Whether there is a label with this key.
    pub fn contains(&self, key: &LabelKey) -> bool {
        self.0.contains_key(key)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keys and values as text, for views.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.clone().into()
    }
}

/// `team=web, urgent`; a label without a value is its key.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = |(key, value): (&LabelKey, &String)| shown(key.as_str(), value);
        f.write_str(&self.0.iter().map(label).collect::<Vec<_>>().join(", "))
    }
}

/// `team=web`, or `urgent` without a value.
pub fn shown(key: &str, value: &str) -> String {
    if value.is_empty() { key.to_owned() } else { format!("{key}={value}") }
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = BadLabel;
    fn try_from(map: BTreeMap<String, String>) -> Result<Self, BadLabel> {
        let pairs = map.into_iter().map(|(key, value)| Ok((key.parse()?, value)));
        Self::of(pairs.collect::<Result<Vec<_>, BadLabel>>()?)
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0.into_iter().map(|(key, value)| (key.0, value)).collect()
    }
}

impl PartialSchema for Labels {
    fn schema() -> RefOr<Schema> {
        let value = ObjectBuilder::new().schema_type(Type::String);
        let value = value.pattern(Some(VALUE_PATTERN)).max_length(Some(MAX_VALUE));
        ObjectBuilder::new()
            .description(Some("labels by key; at most 64"))
            .property_names(Some(key_schema()))
            .additional_properties(Some(AdditionalProperties::RefOr(value.into())))
            .max_properties(Some(MAX_LABELS))
            .into()
    }
}

impl ToSchema for Labels {
    fn name() -> Cow<'static, str> {
        "Labels".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_parsed() {
        for (text, key, value) in [
            ("team=web", "team", "web"),
            ("urgent", "urgent", ""),
            ("urgent=", "urgent", ""),
            ("com.example/a_b-c=x=y z ü", "com.example/a_b-c", "x=y z ü"),
            ("7=7", "7", "7"),
            (&"k".repeat(MAX_KEY), &"k".repeat(MAX_KEY), ""),
        ] {
            let (parsed, found) = parse(text).unwrap();
            assert_eq!((parsed.as_str(), found.as_str()), (key, value), "{text}");
        }
    }

    #[test]
    fn bad_labels_name_the_problem() {
        let refused = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(refused(""), "`` is not a label key: it is empty");
        assert_eq!(refused("=x"), "`` is not a label key: it is empty");
        for text in ["-a", "a-", ".a", "a/", "_"] {
            assert!(refused(text).ends_with("it must begin and end with a letter or digit"));
        }
        for text in ["a b", "ü", "a:b", "a\n=x", "a,b"] {
            assert!(refused(text).contains("only letters, digits"), "{text:?}");
        }
        assert!(refused(&"k".repeat(MAX_KEY + 1)).ends_with("longer than 128 characters"));
        let long = format!("a={}", "ü".repeat(MAX_VALUE + 1));
        assert_eq!(refused(&long), "the value of label `a` is longer than 256 characters");
        assert!(parse(&format!("a={}", "ü".repeat(MAX_VALUE))).is_ok());
        for text in ["a=\n", "a=\u{1b}[2J", "a=\u{9b}", "a=\0"] {
            assert_eq!(refused(text), "the value of label `a` has control characters");
        }
        assert!(refused(&"\u{1b}".repeat(9000)).len() < 1000);
    }

    #[test]
    fn the_number_of_labels_is_limited() {
        let numbered =
            |count: usize| (0..count).map(|n| (format!("k{n}").parse().unwrap(), String::new()));
        let full = Labels::of(numbered(MAX_LABELS)).unwrap();
        assert_eq!(Labels::of(numbered(MAX_LABELS + 1)), Err(BadLabel::TooMany(65)));
        let more = Labels::of([parse("more=1").unwrap()]).unwrap();
        assert_eq!(full.changed(&[], &more), Err(BadLabel::TooMany(65)));
        let replaced = full.changed(&["k0".parse().unwrap()], &more).unwrap();
        assert!(replaced.contains(&"more".parse().unwrap()));
        assert!(!replaced.contains(&"k0".parse().unwrap()));
        let again = replaced.changed(&[], &Labels::of([parse("more=2").unwrap()]).unwrap());
        assert_eq!(again.unwrap().to_map()["more"], "2");
    }

    #[test]
    fn invalid_documents_are_refused() {
        let read = |text: &str| serde_json::from_str::<Labels>(text).map_err(|e| e.to_string());
        assert_eq!(read(r#"{"b": "1", "a": ""}"#).unwrap().to_string(), "a, b=1");
        assert!(read(r#"{"A b": "1"}"#).unwrap_err().contains("`A b` is not a label key"));
        assert!(read(r#"{"a": "\u0007"}"#).unwrap_err().contains("has control characters"));
        assert!(read(r#"{"a": 1}"#).is_err());
        let labels = read(r#"{"a": "x"}"#).unwrap();
        assert_eq!(serde_json::to_string(&labels).unwrap(), r#"{"a":"x"}"#);
    }
}
