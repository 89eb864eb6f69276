//! What is odd about an archive that is read all the same.

use std::collections::BTreeMap;

/// Something that was understood as GNU tar does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remark {
    /// Names that begin with a slash, taken relative to the root of the image.
    Absolute,
    /// Entries of a type nobody knows, taken as files.
    UnknownType,
    /// The archive ends without its end mark.
    NoEndMark,
    /// Something follows the end mark.
    Trailing,
}

/// Remarks of an archive: how often each was made, and for which name first.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Remarks(BTreeMap<Remark, (u64, String)>);

impl Remarks {
    /// Adds one about an entry.
    pub fn add(&mut self, remark: Remark, name: &[u8]) {
        let known = self.0.entry(remark).or_insert_with(|| (0, super::entry::shown(name)));
        known.0 += 1;
    }

    /// Whether there is one of this kind.
    pub fn has(&self, remark: Remark) -> bool {
        self.0.contains_key(&remark)
    }

    /// Each kind as a line to show.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|(remark, (count, first))| {
            let names = match count {
                1 => format!("`{first}`"),
                2 => format!("`{first}` and 1 other"),
                count => format!("`{first}` and {} others", count - 1),
            };
            match remark {
                Remark::Absolute => {
                    format!("removed the leading `/` from member names: {names}")
                }
                Remark::UnknownType => {
                    format!("entries of an unknown type were taken as files: {names}")
                }
                Remark::NoEndMark => {
                    "the archive has no end mark: it may have lost entries at its end".into()
                }
                Remark::Trailing => "what follows the end of the archive was ignored".into(),
            }
        })
    }
}
