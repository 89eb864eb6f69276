//! Conditions for the list of VMs, such as `state=running`: the parameter `filter` of
//! [`crate::routes::VMS`], which may be repeated.

use core::fmt;
use std::borrow::Cow;
use std::str::FromStr;

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::labels::{self, BadLabel, LabelKey};
use crate::vm::{VmState, VmSummary};

/// Maximum number of conditions of one request.
pub const MAX_FILTERS: usize = 64;
/// Keys of conditions.
pub const KEYS: [&str; 4] = ["label", "name", "image", "state"];

/// Maximum length of a pattern in bytes; names of VMs are not longer.
const MAX_PATTERN: usize = 128;
/// The same for names of images, which may be references to a registry.
const MAX_IMAGE_PATTERN: usize = 255;

/// A name in which each `*` stands for any characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else { return rest.is_empty() };
        // The earliest match of each part leaves the most for those after it.
        for part in parts {
            let Some((_, after)) = rest.split_once(part) else { return false };
            rest = after;
        }
        rest.ends_with(last)
    }
}

/// A condition for VMs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmFilter {
    /// A label with this key and, if given, this value.
    Label(LabelKey, Option<String>),
    /// The name.
    Name(Pattern),
    /// The name of the image.
    Image(Pattern),
    /// The state.
    State(VmState),
}

/// Reason why a text is not a condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFilter {
    /// Not `KEY=VALUE`.
    #[error("`{0}` is not a filter: write KEY=VALUE with the key {keys}", keys = known(&KEYS))]
    Form(String),
    /// Unknown key.
    #[error("`{0}` is not a filter: the keys are {keys}", keys = known(&KEYS))]
    Key(String),
    /// Unknown state.
    #[error("`{0}` is not a state: the states are {states}",
        states = known(&VmState::ALL.map(VmState::as_str)))]
    State(String),
    /// Invalid name.
    #[error("`{0}` is not a name: it has a-z, 0-9, dots, underscores, hyphens, and * for any text")]
    Name(String),
    /// Invalid label.
    #[error(transparent)]
    Label(#[from] BadLabel),
    /// Too many conditions.
    #[error("{0} filters: a request has at most {MAX_FILTERS}")]
    TooMany(usize),
}

/// `a, b or c`
fn known(words: &[&str]) -> String {
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

fn pattern(text: &str) -> Result<Pattern, BadFilter> {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-*".contains(&byte);
    checked(text, MAX_PATTERN, allowed)
}

/// Parses a pattern for names of images.
///
/// # Errors
/// [`BadFilter::Name`].
pub fn image_pattern(text: &str) -> Result<Pattern, BadFilter> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*:/@[]".contains(&byte);
    checked(text, MAX_IMAGE_PATTERN, allowed)
}

fn checked(text: &str, most: usize, allowed: fn(u8) -> bool) -> Result<Pattern, BadFilter> {
    if text.is_empty() || text.len() > most || !text.bytes().all(allowed) {
        return Err(BadFilter::Name(labels::excerpt(text)));
    }
    Ok(Pattern(text.to_owned()))
}

/// `label=KEY[=VALUE]`, `name=PATTERN`, `image=PATTERN`, `state=STATE`.
impl FromStr for VmFilter {
    type Err = BadFilter;

    fn from_str(text: &str) -> Result<Self, BadFilter> {
        let (key, value) = match text.split_once('=') {
            Some(pair) => pair,
            None if KEYS.contains(&text) => return Err(BadFilter::Form(labels::excerpt(text))),
            None => return Err(BadFilter::Key(labels::excerpt(text))),
        };
        match key {
            "label" if value.contains('=') => {
                labels::parse(value).map(|(key, value)| Self::Label(key, Some(value)))
            }
            "label" => value.parse().map(|key| Self::Label(key, None)),
            "name" => return pattern(value).map(Self::Name),
            "image" => return image_pattern(value).map(Self::Image),
            "state" => {
                let state = VmState::ALL.into_iter().find(|state| state.as_str() == value);
                return state
                    .map(Self::State)
                    .ok_or_else(|| BadFilter::State(labels::excerpt(value)));
            }
            _ => return Err(BadFilter::Key(labels::excerpt(key))),
        }
        .map_err(BadFilter::from)
    }
}

/// Pattern of a condition (ECMA-262 regular expression), for the API's description.
fn expression() -> String {
    let key = labels::KEY_PATTERN.trim_matches(['^', '$']);
    let character = labels::VALUE_PATTERN.trim_matches(['^', '*', '$']);
    let label = format!("label={key}(={character}{{0,{}}})?", labels::MAX_VALUE);
    let name = format!("name=[a-z0-9._*-]{{1,{MAX_PATTERN}}}");
    let image = format!(r"image=[A-Za-z0-9._*:/@\[\]-]{{1,{MAX_IMAGE_PATTERN}}}");
    let states = VmState::ALL.map(VmState::as_str).join("|");
    format!("^({label}|{name}|{image}|state=({states}))$")
}

impl PartialSchema for VmFilter {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).pattern(Some(expression())).into()
    }
}

impl ToSchema for VmFilter {
    fn name() -> Cow<'static, str> {
        "VmFilter".into()
    }
}

/// As it is parsed.
impl fmt::Display for VmFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(key, None) => write!(f, "label={key}"),
            Self::Label(key, Some(value)) => write!(f, "label={key}={value}"),
            Self::Name(name) => write!(f, "name={}", name.0),
            Self::Image(image) => write!(f, "image={}", image.0),
            Self::State(state) => write!(f, "state={}", state.as_str()),
        }
    }
}

/// Whether a VM matches: each label, and one condition of each other key that is given.
pub fn matches(filters: &[VmFilter], vm: &VmSummary) -> bool {
    let labels = filters.iter().all(|filter| match filter {
        VmFilter::Label(key, None) => vm.labels.contains_key(key.as_str()),
        VmFilter::Label(key, Some(value)) => vm.labels.get(key.as_str()) == Some(value),
        VmFilter::Name(_) | VmFilter::Image(_) | VmFilter::State(_) => true,
    });
    // `None` for a condition of another key.
    let any = |test: &dyn Fn(&VmFilter) -> Option<bool>| {
        let mut tested = filters.iter().filter_map(test).peekable();
        tested.peek().is_none() || tested.any(|matched| matched)
    };
    labels
        && any(&|filter| match filter {
            VmFilter::Name(name) => Some(name.matches(vm.name.as_str())),
            _ => None,
        })
        && any(&|filter| match filter {
            VmFilter::Image(image) => Some(image.matches(&vm.image)),
            _ => None,
        })
        && any(&|filter| match filter {
            VmFilter::State(state) => Some(*state == vm.state),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> VmFilter {
        text.parse().unwrap()
    }

    #[test]
    fn filters_are_parsed_as_they_are_shown() {
        for text in [
            "label=team",
            "label=team=",
            "label=team=web=1",
            "name=web-*",
            "image=debian",
            "state=running",
            "state=deleting",
        ] {
            assert_eq!(filter(text).to_string(), text);
        }
    }

    #[test]
    fn bad_filters_name_the_problem() {
        let refused = |text: &str| text.parse::<VmFilter>().unwrap_err().to_string();
        let keys = "the keys are label, name, image or state";
        for text in ["", "foo", "foo=x", "=x", "Label=x", "label!=x", "status=running"] {
            assert!(refused(text).ends_with(keys), "{text}");
        }
        assert!(refused("label").contains("write KEY=VALUE with the key label, name"));
        assert_eq!(
            refused("state=up"),
            "`up` is not a state: the states are stopped, starting, running, paused, stopping, \
             broken or deleting"
        );
        for text in ["name=", "name=A", "image=a b", "name=a/b", &format!("name={:0200}", 0)] {
            assert!(refused(text).contains("is not a name"), "{text}");
        }
        assert!(refused("label=").contains("is not a label key: it is empty"));
        assert!(refused("label=a=\n").contains("has control characters"));
        assert!(refused(&"x".repeat(100_000)).len() < 300);
    }

    #[test]
    fn a_star_stands_for_any_text() {
        let matches = |pattern: &str, name: &str| match filter(&format!("name={pattern}")) {
            VmFilter::Name(pattern) => pattern.matches(name),
            other => panic!("{other:?}"),
        };
        for (pattern, name) in [
            ("web", "web"),
            ("*", "web"),
            ("w*", "web"),
            ("*b", "web"),
            ("w*b", "web"),
            ("web*", "web"),
            ("**", "a"),
            ("a*b*c", "aXbXbXc"),
            ("*-1", "web-1-1"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("web", "web-1"),
            ("we", "web"),
            ("eb", "web"),
            ("aa*aa", "aaa"),
            ("a*b*c", "acb"),
            ("*x", "web"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        // No backtracking.
        assert!(!matches(&"*a".repeat(60), &"a".repeat(50)));
    }

    #[test]
    fn every_label_and_one_of_each_other_key_must_match() {
        let vm: VmSummary = serde_json::from_value(serde_json::json!({
            "id": "0123456789ab", "name": "web", "state": "running", "image": "debian",
            "vcpus": 1, "memory_mib": 512, "ip": null, "created_at": "", "disk": null,
            "labels": {"team": "a", "urgent": ""},
        }))
        .unwrap();
        let shown = |texts: &[&str]| {
            let filters: Vec<VmFilter> = texts.iter().map(|text| filter(text)).collect();
            matches(&filters, &vm)
        };
        for texts in [
            &[][..],
            &["label=team"],
            &["label=team=a", "label=urgent"],
            &["label=urgent="],
            &["state=stopped", "state=running"],
            &["name=db", "name=w*", "image=debian", "state=running", "label=team=a"],
        ] {
            assert!(shown(texts), "{texts:?}");
        }
        for texts in [
            &["label=tea"][..],
            &["label=team=b"],
            &["label=team="],
            &["label=team=a", "label=missing"],
            &["state=stopped", "state=paused"],
            &["name=web", "image=alpine"],
        ] {
            assert!(!shown(texts), "{texts:?}");
        }
    }
}
