//! Fields of a request on the command line: a JSON body, or a query.

use banger_api::{ApiError, routes};
use serde_json::{Map, Value};

use crate::errors::usage;

/// Maximum depth of a key.
const MAX_DEPTH: usize = 16;

/// A field.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its key, divided: `a[b][]` is `a`, `b` and an empty part.
    key: Vec<String>,
    value: Typed,
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Typed {
    /// As it is.
    Value(Value),
    /// The text of this file.
    File(String),
}

/// Parses `KEY=VALUE` with a value of text.
///
/// # Errors
/// What is wrong with it.
pub fn text(argument: &str) -> Result<Field, String> {
    let (key, value) = split(argument)?;
    Ok(Field { key, value: Typed::Value(Value::String(value.to_owned())) })
}

/// Parses `KEY=VALUE` with a value of its own type.
///
/// # Errors
/// What is wrong with it.
pub fn typed(argument: &str) -> Result<Field, String> {
    let (key, value) = split(argument)?;
    let value = match value.strip_prefix('@') {
        Some(file) => Typed::File(file.to_owned()),
        None => {
            let parsed = serde_json::from_str(value);
            Typed::Value(parsed.unwrap_or_else(|_| Value::String(value.to_owned())))
        }
    };
    Ok(Field { key, value })
}

fn split(argument: &str) -> Result<(Vec<String>, &str), String> {
    let (key, value) = argument.split_once('=').ok_or("write KEY=VALUE")?;
    let bad = || format!("`{key}` is not a key: write KEY, KEY[SUB] or KEY[]");
    let (first, mut rest) = match key.find('[') {
        Some(at) => key.split_at(at),
        None => (key, ""),
    };
    if first.is_empty() || first.contains(']') {
        return Err(bad());
    }
    let mut parts = vec![first.to_owned()];
    while !rest.is_empty() {
        let inner = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (part, after) = inner.ok_or_else(bad)?;
        if part.contains('[') || parts.len() == MAX_DEPTH {
            return Err(bad());
        }
        parts.push(part.to_owned());
        rest = after;
    }
    Ok((parts, value))
}

impl Field {
    fn value(self) -> Result<(Vec<String>, Value), ApiError> {
        let value = match self.value {
            Typed::Value(value) => value,
            Typed::File(path) => {
                let read = std::fs::read_to_string(&path);
                Value::String(read.map_err(|error| {
                    usage(format!("`{path}` cannot be read as text")).caused_by(&error)
                })?)
            }
        };
        Ok((self.key, value))
    }

    fn name(&self) -> String {
        let mut parts = self.key.iter();
        let first = parts.next().cloned().unwrap_or_default();
        first + &parts.map(|part| format!("[{part}]")).collect::<String>()
    }
}

/// The fields as an object.
///
/// # Errors
/// A file that cannot be read, or a key of a value that has no keys.
pub fn object(fields: Vec<Field>) -> Result<Value, ApiError> {
    let mut object = Value::Object(Map::new());
    for field in fields {
        let name = field.name();
        let (key, value) = field.value()?;
        let place = key.iter().try_fold(&mut object, |place, part| child(place, part));
        match place {
            Some(place) if place.is_null() => *place = value,
            _ => return Err(usage(format!("the field `{name}` contradicts an earlier one"))),
        }
    }
    Ok(object)
}

/// The value below a part of a key: a new element of a list for an empty part.
fn child<'a>(place: &'a mut Value, part: &str) -> Option<&'a mut Value> {
    if place.is_null() {
        *place = if part.is_empty() { Value::Array(vec![]) } else { Value::Object(Map::new()) };
    }
    match place {
        Value::Array(list) if part.is_empty() => {
            list.push(Value::Null);
            list.last_mut()
        }
        Value::Object(object) if !part.is_empty() => {
            Some(object.entry(part.to_owned()).or_insert(Value::Null))
        }
        _ => None,
    }
}

/// A path with the fields in its query.
///
/// # Errors
/// A file that cannot be read, or a value that is not text, a number or a boolean.
pub fn with_query(mut path: String, fields: &[Field]) -> Result<String, ApiError> {
    for field in fields {
        let name = field.name();
        let (_, value) = field.clone().value()?;
        let value = match value {
            Value::String(text) => text,
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                let text = format!("the field `{name}` of a query must be text or a number");
                return Err(usage(text));
            }
        };
        path.push(if path.contains('?') { '&' } else { '?' });
        path += &format!("{}={}", routes::encode(&name), routes::encode(&value));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn body(arguments: &[(&str, bool)]) -> Result<Value, ApiError> {
        let parse = |(argument, is_typed): &(&str, bool)| match is_typed {
            true => typed(argument).unwrap(),
            false => text(argument).unwrap(),
        };
        object(arguments.iter().map(parse).collect())
    }

    #[test]
    fn fields_are_an_object() {
        let made = body(&[
            ("name=web", false),
            ("vcpus=2", true),
            ("zip=2", false),
            ("nat=false", true),
            ("kernel=image", true),
            ("labels[team]=shop=1", false),
            ("publish[]={\"host_port\": 80}", true),
            ("publish[]={\"host_port\": 81}", true),
        ]);
        let expected = json!({
            "name": "web", "vcpus": 2, "zip": "2", "nat": false, "kernel": "image",
            "labels": { "team": "shop=1" }, "publish": [{ "host_port": 80 }, { "host_port": 81 }],
        });
        assert_eq!(made.unwrap(), expected);
        assert_eq!(body(&[]).unwrap(), json!({}));
        for contradiction in [["a=1", "a=2"], ["a=1", "a[b]=2"], ["a[]=1", "a[b]=2"]] {
            let both = contradiction.map(|argument| (argument, true));
            let error = body(&both).unwrap_err();
            assert!(error.message.contains("contradicts"), "{error}");
        }
    }

    #[test]
    fn keys_are_checked() {
        for bad in ["a", "=1", "[a]=1", "a[=1", "a]=1", "a[b]c=1", "a[b[c]]=1"] {
            assert!(text(bad).is_err(), "{bad}");
        }
        let deep = format!("a{}=1", "[b]".repeat(MAX_DEPTH));
        assert!(text(&deep).is_err());
    }

    #[test]
    fn fields_of_a_query_are_encoded() {
        let fields = [text("filter=label=a b").unwrap(), typed("limit=3").unwrap()];
        let path = with_query("/v1/vms".into(), &fields).unwrap();
        assert_eq!(path, "/v1/vms?filter=label%3Da%20b&limit=3");
        assert!(with_query("/x".into(), &[typed("a=null").unwrap()]).is_err());
    }
}
