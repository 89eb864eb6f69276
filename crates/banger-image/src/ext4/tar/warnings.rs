//! Deviations of an archive that do not prevent reading it.

use std::collections::BTreeMap;

/// A deviation that is handled as GNU tar does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Warning {
    /// A name with a leading slash, taken relative to the root of the image.
    AbsoluteName,
    /// An entry of an unknown type, read as a file.
    UnknownType,
    /// The end mark is missing.
    NoEndMark,
    /// Data after the end mark.
    TrailingData,
}

/// Warnings about an archive: the count of each, and the first name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Warnings(BTreeMap<Warning, (u64, String)>);

impl Warnings {
    /// Adds a warning about an entry.
    pub fn add(&mut self, warning: Warning, name: &[u8]) {
        let known = self.0.entry(warning).or_insert_with(|| (0, super::entry::printable(name)));
        known.0 += 1;
    }

    /// Whether this warning was added.
    pub fn has(&self, warning: Warning) -> bool {
        self.0.contains_key(&warning)
    }

    /// One line for each warning.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|(warning, (count, first))| {
            let names = match count {
                1 => format!("`{first}`"),
                2 => format!("`{first}` and 1 other"),
                count => format!("`{first}` and {} others", count - 1),
            };
            match warning {
                Warning::AbsoluteName => {
                    format!("removed the leading `/` from member names: {names}")
                }
                Warning::UnknownType => {
                    format!("read entries of an unknown type as files: {names}")
                }
                Warning::NoEndMark => "the archive has no end mark and may be truncated".into(),
                Warning::TrailingData => "ignored data after the end of the archive".into(),
            }
        })
    }
}
