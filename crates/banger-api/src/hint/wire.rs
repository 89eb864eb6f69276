//! Hints on the wire: a list of objects, each with its words beside its fields.

use banger_base::hint::{from_wire, to_wire};
use serde::{Deserialize, Deserializer, Serializer};

use super::Hint;

/// A hint as [`write`] writes it, for the OpenAPI document.
#[derive(Debug, utoipa::ToSchema)]
pub struct WordedHint {
    /// The hint.
    #[serde(flatten)]
    pub hint: Hint,
    /// The hint in the words of the command line, for clients that do not know its kind.
    pub text: Option<String>,
}

/// Reads hints. One of an unknown kind is read as its words, and left out if it has none; the
/// text of an older program is kept.
///
/// # Errors
/// Neither a list nor a text.
pub fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Hint>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Text(String),
        List(Vec<serde_json::Value>),
        None(()),
    }
    Ok(match Stored::deserialize(from)? {
        Stored::Text(text) => vec![Hint::text(text)],
        Stored::List(list) => list.iter().filter_map(|hint| from_wire(hint, Hint::text)).collect(),
        Stored::None(()) => Vec::new(),
    })
}

/// Hints as one JSON list, as in a field of the daemon's log; [`read`] reads it.
pub fn to_json(hints: &[Hint]) -> String {
    write(hints, serde_json::value::Serializer).unwrap_or_default().to_string()
}

/// Writes hints with their words.
///
/// # Errors
/// Those of the serializer.
pub fn write<S: Serializer>(hints: &[Hint], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(hints.iter().map(|hint| to_wire(hint, hint.words())))
}
