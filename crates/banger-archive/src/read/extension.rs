//! Records in front of an entry: long names of GNU tar, and pax records.

use tar::EntryType;

use crate::failure::Failure;

/// Largest extension record, in bytes: it is kept in memory.
pub(super) const MAX_EXTENSION: u64 = 64 * 1024;

/// What the records before an entry say about it.
#[derive(Default)]
pub(super) struct Extension {
    pub name: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mtime: Option<(i64, u32)>,
    /// Size of a sparse file, holes included.
    pub sparse_size: Option<u64>,
    size: Option<u64>,
    sparse_name: bool,
}

/// Whether an entry of this type describes the next one.
pub(super) fn is_extension(kind: EntryType) -> bool {
    kind.is_gnu_longname()
        || kind.is_gnu_longlink()
        || kind.is_pax_local_extensions()
        || kind.is_pax_global_extensions()
}

impl Extension {
    /// Bytes stored for the next entry, where a record says it.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Takes a record in.
    pub fn absorb(&mut self, kind: EntryType, bytes: &[u8]) -> Result<(), Failure> {
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        if kind.is_pax_local_extensions() {
            return self.absorb_pax(bytes);
        }
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let name = bytes.get(..end).unwrap_or_default().to_vec();
        let slot = if kind.is_gnu_longname() { &mut self.name } else { &mut self.link };
        *slot = Some(name);
        Ok(())
    }

    fn absorb_pax(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        let malformed = || Failure::archive("a pax record of the archive is malformed");
        while !bytes.is_empty() {
            let (key, value, rest) = split_record(bytes).ok_or_else(malformed)?;
            bytes = rest;
            let text = std::str::from_utf8(value).unwrap_or_default();
            let id = || text.parse().map(Some).map_err(|_| malformed());
            let size = || text.parse().map(Some).map_err(|_| malformed());
            match key {
                b"GNU.sparse.name" => {
                    (self.name, self.sparse_name) = (Some(value.to_vec()), true);
                }
                // Beside the name of a sparse file this one is made up.
                b"path" if !self.sparse_name => self.name = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"uid" => self.uid = id()?,
                b"gid" => self.gid = id()?,
                b"size" => self.size = size()?,
                b"GNU.sparse.realsize" => self.sparse_size = size()?,
                b"GNU.sparse.map" | b"GNU.sparse.numblocks" => {
                    let text = "the archive has sparse files in pax format 0, not 1.0";
                    return Err(Failure::archive(text));
                }
                b"mtime" => self.mtime = Some(mtime(text).ok_or_else(malformed)?),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Key and value of the first record `LENGTH KEY=VALUE\n`, and what follows it.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(bytes.get(..space)?).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((record.get(..equals)?, record.get(equals + 1..)?, bytes.get(length..)?))
}

/// Seconds and nanoseconds of a decimal number.
fn mtime(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let ns: u32 = digits.parse().ok()?;
    match (text.starts_with('-'), ns) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - ns)),
        _ => Some((seconds, ns)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_on_both_sides_of_1970() {
        for (text, expected) in [
            ("12", Some((12, 0))),
            ("12.5", Some((12, 500_000_000))),
            ("12.0000000019", Some((12, 1))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-0.5", Some((-1, 500_000_000))),
            ("", None),
            ("1.x", None),
            ("-9223372036854775808.5", None),
        ] {
            assert_eq!(mtime(text), expected, "{text}");
        }
    }

    #[test]
    fn values_may_contain_any_byte() {
        let mut extension = Extension::default();
        extension.absorb(EntryType::XHeader, b"15 path=a\nb=\xffc\n9 uid=7\n").unwrap_err();
        extension.absorb(EntryType::XHeader, b"15 path=a\nb=\xff\n8 uid=7\n").unwrap_err();
        extension.absorb(EntryType::XHeader, b"14 path=a\nb=\xff\n8 uid=7\n").unwrap();
        assert_eq!((extension.name.unwrap(), extension.uid), (b"a\nb=\xff".to_vec(), Some(7)));
    }
}
