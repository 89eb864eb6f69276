//! The 512-byte header of an entry: fields, numbers and checksum as GNU tar reads them.
//!
//! Layouts: POSIX.1-1988 ustar, and the v7, old GNU and GNU variants of it (GNU tar's `tar.h`).

use std::ops::Range;

/// Size of a header, and block size of an archive.
pub const BLOCK: usize = 512;

/// A numeric field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Mode,
    Uid,
    Gid,
    Size,
    Mtime,
    Major,
    Minor,
    /// Length of a sparse file with its holes; old GNU format.
    RealSize,
}

impl Field {
    const fn range(self) -> Range<usize> {
        match self {
            Self::Mode => 100..108,
            Self::Uid => 108..116,
            Self::Gid => 116..124,
            Self::Size => 124..136,
            Self::Mtime => 136..148,
            Self::Major => 329..337,
            Self::Minor => 337..345,
            Self::RealSize => 483..495,
        }
    }
}

const CHECKSUM: Range<usize> = 148..156;
const KIND: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..263;
const PREFIX: Range<usize> = 345..500;
/// Four extents of an old GNU sparse file, and the flag that extension blocks follow.
const EXTENTS: Range<usize> = 386..482;
const MORE_EXTENTS: usize = 482;
/// The same in an extension block.
const BLOCK_EXTENTS: Range<usize> = 0..504;
const BLOCK_MORE_EXTENTS: usize = 504;

/// A header block.
#[derive(Debug, Clone)]
pub struct Header(pub [u8; BLOCK]);

impl Header {
    /// Whether all bytes are zero, as in the end mark.
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// Whether the checksum is valid: the sum of all bytes with the field itself taken as spaces.
    /// POSIX sums unsigned bytes, some old writers signed ones.
    pub fn has_valid_checksum(&self) -> bool {
        let field = &self.0[CHECKSUM];
        let Some(stored) = number(field).filter(|_| field.iter().any(u8::is_ascii_digit)) else {
            return false;
        };
        let bytes = || {
            let all = self.0.iter().enumerate();
            all.map(|(at, byte)| if CHECKSUM.contains(&at) { b' ' } else { *byte })
        };
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        stored == unsigned || stored == signed
    }

    /// The type of the entry.
    pub fn kind(&self) -> u8 {
        self.0[KIND]
    }

    /// A numeric field; `None` if it is invalid or exceeds 63 bits.
    pub fn number(&self, field: Field) -> Option<i64> {
        number(&self.0[field.range()])
    }

    /// The name, with ustar's prefix.
    pub fn name(&self) -> Vec<u8> {
        let name = until_zero(&self.0[..100]);
        let prefix = until_zero(&self.0[PREFIX]);
        // GNU's own magic is `ustar ` and has times where POSIX has the prefix.
        if &self.0[MAGIC] == b"ustar\0" && !prefix.is_empty() {
            [prefix, b"/", name].concat()
        } else {
            name.to_vec()
        }
    }

    /// The target of a link.
    pub fn link(&self) -> Vec<u8> {
        until_zero(&self.0[LINK]).to_vec()
    }

    /// Extents of an old GNU sparse file in the header, or in an extension block; and whether
    /// another extension block follows.
    pub fn extents(&self, is_first: bool) -> (impl Iterator<Item = (i64, i64)> + '_, bool) {
        let (range, more) =
            if is_first { (EXTENTS, MORE_EXTENTS) } else { (BLOCK_EXTENTS, BLOCK_MORE_EXTENTS) };
        let extents = self.0[range].chunks_exact(24).take_while(|pair| pair[12] != 0);
        let pair =
            |pair: &[u8]| (number(&pair[..12]).unwrap_or(-1), number(&pair[12..]).unwrap_or(-1));
        (extents.map(pair), self.0[more] != 0)
    }
}

/// The part before the first zero byte.
pub fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number as GNU tar's `from_header` reads it: octal digits with blanks around them, nothing at
/// all (0), base 256 (two's complement after the top bit), or base 64 after a sign, which GNU tar
/// 1.13.6 to 1.13.11 wrote.
fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        return base256(field);
    }
    let field = if first == 0 { &field[1..] } else { field };
    let text = until_zero(field).trim_ascii();
    match text {
        [] => Some(0),
        [sign @ (b'+' | b'-'), digits @ ..] => {
            let value = digits.iter().try_fold(0, |value: i64, digit| {
                value.checked_mul(64)?.checked_add(base64_digit(*digit)?)
            })?;
            Some(if *sign == b'-' { -value } else { value })
        }
        _ => {
            let mut digits = text.iter().take_while(|byte| !byte.is_ascii_whitespace());
            digits.try_fold(0_i64, |value, digit| match digit {
                b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
                _ => None,
            })
        }
    }
}

fn base256(field: &[u8]) -> Option<i64> {
    // The bit after the mark is the sign.
    let negative = field[0] & 0x40 != 0;
    let start = if negative { -1 } else { 0 };
    let first = i128::from(field[0] & 0x3f) | (i128::from(start) << 6);
    let value = field[1..].iter().fold(first, |value, byte| (value << 8) | i128::from(*byte));
    i64::try_from(value).ok()
}

fn base64_digit(byte: u8) -> Option<i64> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    DIGITS.iter().position(|digit| *digit == byte).and_then(|at| i64::try_from(at).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_gnu_tar_reads_them() {
        let cases: [(&[u8], Option<i64>); 16] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"644 junk", Some(0o644)),
            (b"\x000644\0\0", Some(0o644)),
            (&[0; 12], Some(0)),
            (b"            ", Some(0)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"777777777777", Some(0o777_777_777_777)),
            (b"abc\0", None),
            (b"12x\0", None),
            (b"\x80\0\0\x01\x00", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"+BA\0", Some(64)),
            (b"-B\0\0", Some(-1)),
            (b"+B?\0", None),
        ];
        for (field, value) in cases {
            assert_eq!(number(field), value, "{field:?}");
        }
    }
}
