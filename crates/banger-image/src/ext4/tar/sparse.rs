//! Maps and contents of sparse files.
//!
//! An archive stores the data of a sparse file contiguously, with a map of its offsets. ext4 stores
//! whole blocks, so the extents of the tree are whole blocks, padded with zeros.

use std::io::{self, Read};

use crate::ext4::Extent;

/// Maximum number of extents of a file.
pub const EXTENTS_MAX: usize = 1 << 20;
/// Block of ext4 in bytes.
const BLOCK: u64 = 4096;
/// Maximum file size of ext4: 2^32 - 1 blocks.
const FILE_BYTES_MAX: u64 = (u32::MAX as u64) * BLOCK;

/// The map of a sparse file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// Length of the file with its holes.
    pub bytes: u64,
    /// Stored extents in order, none empty.
    stored: Vec<Extent>,
}

impl Map {
    /// Checks a map: ascending, within a file of `bytes`, no more than `stored_bytes` in all.
    /// `None` if it is invalid.
    pub fn new(extents: Vec<Extent>, bytes: u64, stored_bytes: u64) -> Option<Self> {
        let (mut end, mut total) = (0, 0_u64);
        for extent in &extents {
            if extent.offset < end {
                return None;
            }
            end = extent.offset.checked_add(extent.bytes)?;
            total = total.checked_add(extent.bytes)?;
        }
        if end > bytes || total > stored_bytes || bytes > FILE_BYTES_MAX {
            return None;
        }
        let stored = extents.into_iter().filter(|extent| extent.bytes > 0).collect();
        Some(Self { bytes, stored })
    }

    /// Extents of whole blocks, adjacent ones merged; the last may end with the file.
    pub fn blocks(&self) -> Vec<Extent> {
        let mut blocks: Vec<Extent> = Vec::new();
        for extent in &self.stored {
            let start = extent.offset / BLOCK * BLOCK;
            let end = (extent.offset + extent.bytes).next_multiple_of(BLOCK).min(self.bytes);
            match blocks.last_mut() {
                Some(last) if last.offset + last.bytes >= start => last.bytes = end - last.offset,
                _ => blocks.push(Extent { offset: start, bytes: end - start }),
            }
        }
        blocks
    }
}

/// Reads the block extents of a sparse file from its stored data.
pub struct Expand<'a, R> {
    inner: R,
    stored: &'a [Extent],
    blocks: Vec<Extent>,
    block: usize,
    at: u64,
}

impl<'a, R: Read> Expand<'a, R> {
    /// `inner` reads the stored data.
    pub fn new(inner: R, map: &'a Map) -> Self {
        let blocks = map.blocks();
        let at = blocks.first().map_or(0, |extent| extent.offset);
        Self { inner, stored: &map.stored, blocks, block: 0, at }
    }
}

impl<R: Read> Read for Expand<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(range) = self.blocks.get(self.block) else { return Ok(0) };
        let range_end = range.offset + range.bytes;
        while self.stored.first().is_some_and(|extent| extent.offset + extent.bytes <= self.at) {
            self.stored = &self.stored[1..];
        }
        let next = self.stored.first();
        let up_to =
            |end: u64| usize::try_from(end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = match next {
            Some(extent) if extent.offset <= self.at => {
                let want = up_to(extent.offset + extent.bytes);
                match self.inner.read(&mut buffer[..want])? {
                    0 if want > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => count,
                }
            }
            next => {
                let zeros = up_to(next.map_or(range_end, |extent| extent.offset.min(range_end)));
                buffer[..zeros].fill(0);
                zeros
            }
        };
        self.at += count as u64;
        if self.at >= range_end {
            self.block += 1;
            self.at = self.blocks.get(self.block).map_or(self.at, |extent| extent.offset);
        }
        Ok(count)
    }
}

/// Reads the map at the beginning of a file's data (GNU sparse format 1.0): decimal numbers, one a
/// line, padded to whole blocks of the archive. Returns the extents and the number of bytes read.
///
/// # Errors
/// read(2); `InvalidData` for an invalid map.
pub fn read_map(reader: &mut impl Read) -> io::Result<(Vec<Extent>, u64)> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let mut block = [0; super::header::BLOCK];
    let (mut read_bytes, mut at) = (0, block.len());
    let mut number = || -> io::Result<u64> {
        let mut value: Option<u64> = None;
        loop {
            if at == block.len() {
                reader.read_exact(&mut block)?;
                (read_bytes, at) = (read_bytes + block.len() as u64, 0);
            }
            let byte = block[at];
            at += 1;
            match (byte, value) {
                (b'0'..=b'9', _) => {
                    let more = value.unwrap_or(0).checked_mul(10);
                    value = more.and_then(|more| more.checked_add(u64::from(byte - b'0')));
                    value.ok_or_else(bad)?;
                }
                (b'\n', Some(value)) => return Ok(value),
                _ => return Err(bad()),
            }
        }
    };
    let count = usize::try_from(number()?).ok().filter(|n| *n <= EXTENTS_MAX).ok_or_else(bad)?;
    let mut extents = Vec::new();
    for _ in 0..count {
        extents.push(Extent { offset: number()?, bytes: number()? });
    }
    Ok((extents, read_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extents(pairs: &[(u64, u64)]) -> Vec<Extent> {
        pairs.iter().map(|(offset, bytes)| Extent { offset: *offset, bytes: *bytes }).collect()
    }

    #[test]
    fn sparse_data_is_placed_by_the_map() {
        let map = Map::new(extents(&[(5, 3), (5000, 0), (12_288, 4), (20_000, 0)]), 20_000, 7);
        let map = map.unwrap();
        assert_eq!(map.blocks(), extents(&[(0, 4096), (12_288, 4096)]));
        let mut all = Vec::new();
        Expand::new(&b"abcdefg"[..], &map).read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 8192);
        assert_eq!((&all[5..8], &all[4096..4100]), (&b"abc"[..], &b"defg"[..]));
        assert_eq!(all.iter().filter(|byte| **byte != 0).count(), 7);
        let short = Expand::new(&b"abcd"[..], &map).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
        let tail = Map::new(extents(&[(8190, 5)]), 8195, 5).unwrap();
        assert_eq!(tail.blocks(), extents(&[(4096, 4099)]));
        assert!(Map::new(vec![], 1 << 40, 0).unwrap().blocks().is_empty());
    }

    #[test]
    fn invalid_maps_are_refused() {
        for (pairs, bytes, stored) in [
            (&[(10, 5), (12, 1)][..], 100, 100),
            (&[(10, 5)], 14, 5),
            (&[(10, 5)], 100, 4),
            (&[(u64::MAX, 2)], u64::MAX, 2),
            (&[], u64::MAX, 0),
        ] {
            assert_eq!(Map::new(extents(pairs), bytes, stored), None, "{pairs:?}");
        }
        for text in ["x\n", "1\n-1\n2\n", "\n", "99999999999999999999\n", "9999999\n", "2\n1\n"] {
            let mut block = text.as_bytes().to_vec();
            block.resize(512, 0);
            assert!(read_map(&mut block.as_slice()).is_err(), "{text}");
        }
        let mut block = b"1\n1048576\n3\n".to_vec();
        block.resize(512, 0);
        assert_eq!(read_map(&mut block.as_slice()).unwrap(), (extents(&[(1_048_576, 3)]), 512));
    }
}
