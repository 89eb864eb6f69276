//! Where the values of a JSON document are in its text, so that some can be replaced and all other
//! bytes stay.

use std::ops::Range;

/// A step from the document to one of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Member of an object.
    Key(String),
    /// Element of an array.
    Element,
}

impl Step {
    /// Whether it is the member of this name.
    pub fn is(&self, name: &str) -> bool {
        matches!(self, Self::Key(key) if key == name)
    }
}

/// Why a text is not scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It is not JSON.
    NotJson,
    /// The name of a member is not Unicode.
    Name,
}

/// Calls `visit` for each value of a document, after the values in it, with its place and its
/// range of bytes.
///
/// # Errors
/// The text is not one JSON document (RFC 8259) of at most 128 levels.
pub fn scan(text: &[u8], mut visit: impl FnMut(&[Step], Range<usize>)) -> Result<(), Unreadable> {
    // Afterwards the structure of the text is known to be sound.
    serde_json::from_slice::<serde::de::IgnoredAny>(text).map_err(|_| Unreadable::NotJson)?;
    let mut open: Vec<Open> = Vec::new();
    let mut path: Vec<Step> = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'{' | b'[' => {
                let is_object = *byte == b'{';
                open.push(Open { start, is_object, expects_name: is_object });
                path.push(if is_object { Step::Key(String::new()) } else { Step::Element });
            }
            b'}' | b']' => {
                path.pop();
                if let Some(closed) = open.pop() {
                    visit(&path, closed.start..at);
                }
            }
            b',' => {
                if let Some(object) = open.last_mut() {
                    object.expects_name = object.is_object;
                }
            }
            b'"' => {
                at = end_of_string(text, at);
                match (open.last_mut(), path.last_mut()) {
                    (Some(object), Some(step)) if object.expects_name => {
                        object.expects_name = false;
                        let name = text.get(start..at).unwrap_or_default();
                        *step = Step::Key(string(name).ok_or(Unreadable::Name)?);
                    }
                    _ => visit(&path, start..at),
                }
            }
            b':' | b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => {
                let rest = text.get(at..).unwrap_or_default();
                let ends =
                    |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n');
                at += rest.iter().position(ends).unwrap_or(rest.len());
                visit(&path, start..at);
            }
        }
    }
    Ok(())
}

struct Open {
    start: usize,
    is_object: bool,
    expects_name: bool,
}

/// The place after the quote that ends a string whose text begins at `at`.
fn end_of_string(text: &[u8], mut at: usize) -> usize {
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// The string of a JSON text; none for any other value, and for one that is not Unicode.
pub fn string(text: &[u8]) -> Option<String> {
    serde_json::from_slice(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<(String, String)> {
        let mut found = Vec::new();
        scan(text.as_bytes(), |path, range| {
            let step = |step: &Step| match step {
                Step::Key(key) => key.clone(),
                Step::Element => "[]".to_owned(),
            };
            let path: Vec<String> = path.iter().map(step).collect();
            found.push((path.join("."), text[range].to_owned()));
        })
        .unwrap();
        found
    }

    #[test]
    fn each_value_has_its_place_and_its_bytes() {
        let text = r#" {"a" : {"b\u0063":[1 , "x\"]\\", {}]},"d":null , "e":-1e5}"#;
        let expected = [
            ("a.bc.[]", "1"),
            ("a.bc.[]", r#""x\"]\\""#),
            ("a.bc.[]", "{}"),
            ("a.bc", r#"[1 , "x\"]\\", {}]"#),
            ("a", r#"{"b\u0063":[1 , "x\"]\\", {}]}"#),
            ("d", "null"),
            ("e", "-1e5"),
            ("", &text[1..]),
        ];
        let expected = expected.map(|(path, value)| (path.to_owned(), value.to_owned()));
        assert_eq!(places(text), expected);
        assert_eq!(places("[[]]").len(), 2);
        assert_eq!(places("7"), [(String::new(), "7".to_owned())]);
    }

    #[test]
    fn what_is_not_json_is_not_scanned() {
        let deep = "[".repeat(10_000);
        for text in ["", "{", "{}{}", "{'a':1}", "NaN", "{\"a\":1,}", "log: {}", deep.as_str()] {
            assert_eq!(scan(text.as_bytes(), |_, _| {}), Err(Unreadable::NotJson), "{text:.20}");
        }
        let lone = br#"{"\ud800":1}"#;
        assert_eq!(scan(lone, |_, _| {}), Err(Unreadable::Name));
        // In a value it is carried.
        assert_eq!(scan(br#"{"text":"\ud800"}"#, |_, _| {}), Ok(()));
    }
}
