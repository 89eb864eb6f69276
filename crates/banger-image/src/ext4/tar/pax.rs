//! Extended headers, for the next entry or for all: POSIX.1-2001 (pax) records with the keywords of
//! GNU tar, star (`SCHILY.`) and libarchive.

use base64::Engine;

use super::sparse::EXTENTS_MAX;
use crate::ext4::Extent;

/// Attributes from extended headers, which override those of the header.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Extension {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(String, Vec<u8>)>,
    pub sparse: Sparse,
    /// Whether the entry continues a file from another volume.
    pub continued: bool,
}

/// Keywords `GNU.sparse.*`: formats 0.0, 0.1 and 1.0.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Sparse {
    pub major: Option<u64>,
    pub minor: Option<u64>,
    pub name: Option<Vec<u8>>,
    pub bytes: Option<u64>,
    pub map: Vec<Extent>,
    offset: Option<u64>,
}

impl Extension {
    /// Reads the records of a header: `<length> <key>=<value>\n`. `None` if they are invalid.
    pub fn read(&mut self, mut text: &[u8]) -> Option<()> {
        loop {
            text = text.trim_ascii_start();
            // Some writers pad with zeros.
            if matches!(text.first(), None | Some(0)) {
                return Some(());
            }
            let space = text.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&text[..space]).ok()?.parse().ok()?;
            let record = text.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            self.record(&record[..equals], &record[equals + 1..])?;
            text = &text[length..];
        }
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        // An empty value removes that of a global header.
        let bytes = (!value.is_empty()).then(|| super::header::until_zero(value).to_vec());
        match key {
            b"path" => self.path = bytes,
            b"linkpath" => self.link = bytes,
            b"size" => self.size = optional(value, decimal)?,
            b"uid" => self.uid = optional(value, signed)?,
            b"gid" => self.gid = optional(value, signed)?,
            b"mtime" => self.mtime = optional(value, time)?,
            b"GNU.volume.offset" => self.continued = decimal(value)? > 0,
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    return self.sparse.record(key, value);
                }
                self.xattr(key, value);
            }
        }
        Some(())
    }

    fn xattr(&mut self, key: &[u8], value: &[u8]) {
        let star = key.strip_prefix(b"SCHILY.xattr.");
        let star = star.map(|name| (percent_decoded(name, b"=%"), value.to_vec()));
        let libarchive = || {
            let all: Vec<u8> = (0..=255).collect();
            let name = percent_decoded(key.strip_prefix(b"LIBARCHIVE.xattr.")?, &all);
            let base64 = base64::engine::general_purpose::GeneralPurpose::new(
                &base64::alphabet::STANDARD,
                base64::engine::general_purpose::NO_PAD
                    .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
            );
            Some((name, base64.decode(value).ok()?))
        };
        let Some((name, value)) = star.or_else(libarchive) else { return };
        let Ok(name) = String::from_utf8(name) else { return };
        if is_kept(&name) {
            // bsdtar writes both forms; the same name counts once.
            self.xattrs.retain(|(known, _)| *known != name);
            self.xattrs.push((name, value));
        }
    }
}

impl Sparse {
    /// Whether the entry is a sparse file.
    pub fn is_some(&self) -> bool {
        self.major.is_some() || self.bytes.is_some() || !self.map.is_empty()
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"major" => self.major = Some(decimal(value)?),
            b"minor" => self.minor = Some(decimal(value)?),
            b"name" => self.name = Some(super::header::until_zero(value).to_vec()),
            b"size" | b"realsize" => self.bytes = Some(decimal(value)?),
            b"offset" => self.offset = Some(decimal(value)?),
            b"numbytes" => {
                let extent = Extent { offset: self.offset.take()?, bytes: decimal(value)? };
                self.map.push(extent);
            }
            b"map" => {
                let numbers = value.split(|byte| *byte == b',').map(decimal);
                let numbers: Vec<u64> = numbers.collect::<Option<_>>()?;
                if !numbers.len().is_multiple_of(2) {
                    return None;
                }
                let pairs = numbers.chunks_exact(2);
                self.map = pairs.map(|p| Extent { offset: p[0], bytes: p[1] }).collect();
            }
            _ => {}
        }
        (self.map.len() <= EXTENTS_MAX).then_some(())
    }
}

/// Whether an attribute is stored in an image. `system.` attributes are ACLs in another encoding
/// than ext4's, and `security.selinux` belongs to the host that created the archive.
fn is_kept(name: &str) -> bool {
    let kept = ["user.", "trusted.", "security."].iter().any(|space| name.starts_with(space));
    kept && name != "security.selinux" && name.len() <= 255
}

/// `Some(None)` for an empty value, otherwise the parsed value; `None` if it is invalid.
fn optional<T>(value: &[u8], parse: fn(&[u8]) -> Option<T>) -> Option<Option<T>> {
    if value.is_empty() { Some(None) } else { parse(value).map(Some) }
}

fn decimal(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

fn signed(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Seconds with a fraction, possibly negative: whole seconds rounded down, and nanoseconds.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let (negative, digits) = match seconds.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, seconds),
    };
    let seconds = i64::try_from(decimal(digits.as_bytes())?).ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = nanos.parse().ok()?;
    Some(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

/// RFC 3986, section 2.1, for these bytes only; a `%` without two hexadecimal digits stays.
fn percent_decoded(text: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let hex = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' && bytes.contains(&byte) => {
                decoded.push(byte);
                rest = &tail[2..];
            }
            _ => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(records: &[(&str, &str)]) -> Option<Extension> {
        let mut text = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..).find(|n| n.to_string().len() + rest == *n).unwrap();
            text.extend(format!("{length} {key}={value}\n").bytes());
        }
        let mut extension = Extension::default();
        extension.read(&text).map(|()| extension)
    }

    #[test]
    fn invalid_records_are_refused() {
        for text in ["5", "x y=z\n", "3 x=", "99 path=x\n", "0 =\n", "9 uid=abc\n", "7 path\n"] {
            assert_eq!(Extension::default().read(text.as_bytes()), None, "{text}");
        }
        for (key, value) in [
            ("size", "-1"),
            ("mtime", "x"),
            ("GNU.sparse.map", "1,2,3"),
            ("GNU.sparse.numbytes", "1"),
            ("GNU.sparse.size", ""),
        ] {
            assert_eq!(read(&[(key, value)]), None, "{key}={value}");
        }
    }

    #[test]
    fn times_are_rounded_down() {
        for (text, wanted) in [
            ("1.25", (1, 250_000_000)),
            ("-1.5", (-2, 500_000_000)),
            ("-0.5", (-1, 500_000_000)),
            ("-7", (-7, 0)),
            ("0.1234567891", (0, 123_456_789)),
        ] {
            assert_eq!(time(text.as_bytes()), Some(wanted), "{text}");
        }
        assert_eq!(time(b"1.x"), None);
    }

    #[test]
    fn an_empty_value_removes_and_zeros_end_the_records() {
        let mut extension = read(&[("path", "x"), ("mtime", "5"), ("uid", "7")]).unwrap();
        extension.read(b"8 path=\n9 mtime=\n\0\0\0").unwrap();
        assert_eq!((extension.path, extension.mtime, extension.uid), (None, None, Some(7)));
    }

    #[test]
    fn attributes_of_star_and_libarchive_are_kept() {
        let extension = read(&[
            ("SCHILY.xattr.user.a%3Db%20", "x"),
            ("LIBARCHIVE.xattr.user.%c3%a4", "aGk"),
            ("LIBARCHIVE.xattr.security.capability", "AQAAAg=="),
            ("SCHILY.xattr.system.posix_acl_access", "x"),
            ("SCHILY.xattr.security.selinux", "x"),
        ]);
        let wanted = [
            ("user.a=b%20".to_owned(), b"x".to_vec()),
            ("user.ä".to_owned(), b"hi".to_vec()),
            ("security.capability".to_owned(), vec![1, 0, 0, 2]),
        ];
        assert_eq!(extension.unwrap().xattrs, wanted);
    }

    #[test]
    fn every_format_of_a_sparse_map_is_read() {
        let extent = |offset, bytes| Extent { offset, bytes };
        let old = read(&[
            ("GNU.sparse.size", "100"),
            ("GNU.sparse.numblocks", "2"),
            ("GNU.sparse.offset", "0"),
            ("GNU.sparse.numbytes", "5"),
            ("GNU.sparse.offset", "50"),
            ("GNU.sparse.numbytes", "6"),
        ]);
        assert_eq!(old.unwrap().sparse.map, [extent(0, 5), extent(50, 6)]);
        let map = read(&[("GNU.sparse.map", "0,5,50,6"), ("GNU.sparse.size", "100")]).unwrap();
        assert_eq!((map.sparse.bytes, map.sparse.map.len()), (Some(100), 2));
        assert!(!Extension::default().sparse.is_some());
    }
}
