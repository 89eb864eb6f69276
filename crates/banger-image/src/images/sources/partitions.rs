//! Partition tables: GPT (UEFI specification, section 5.3) and MBR.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// What it is for.
    pub purpose: Purpose,
}

/// Purpose of a partition by its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// For a boot loader, swap space: nothing that belongs into an image.
    Machine,
    /// Anything else.
    Data,
}

/// Maximum number of partitions, and of bytes in an entry of a GPT.
const PARTITIONS: u32 = 256;
const ENTRY_BYTES: u32 = 4096;
/// Sectors of disks, in bytes.
const SECTORS: [u64; 2] = [512, 4096];

/// Types of partitions for machines: GUIDs as they are stored. EFI system, BIOS boot, PReP boot,
/// swap, and boot loader (XBOOTLDR excluded: it has kernels, which belong to a system).
const MACHINE_GUIDS: [[u8; 16]; 4] = [
    guid(0xC12A_7328, 0xF81F, 0x11D2, [0xBA, 0x4B, 0x00, 0xA0, 0xC9, 0x3E, 0xC9, 0x3B]),
    guid(0x2168_6148, 0x6449, 0x6E6F, [0x74, 0x4E, 0x65, 0x65, 0x64, 0x45, 0x46, 0x49]),
    guid(0x9E1A_2D38, 0xC612, 0x4316, [0xAA, 0x26, 0x8B, 0x49, 0x52, 0x1E, 0x5A, 0x8B]),
    guid(0x0657_FD6D, 0xA4AB, 0x43C4, [0x84, 0xE5, 0x09, 0x33, 0xC8, 0x4B, 0x4F, 0x4F]),
];
/// Types of MBR partitions for machines: EFI system, swap, PReP boot.
const MACHINE_TYPES: [u8; 3] = [0xef, 0x82, 0x41];
/// Types of MBR partitions that contain others.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

const fn guid(first: u32, second: u16, third: u16, rest: [u8; 8]) -> [u8; 16] {
    let ([a, b, c, d], [e, f]) = (first.to_le_bytes(), second.to_le_bytes());
    let [g, h] = third.to_le_bytes();
    let [i, j, k, l, m, n, o, p] = rest;
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// Whether the first sector has a plausible MBR.
pub fn is_mbr(start: &[u8]) -> bool {
    start.get(..512).is_some_and(|sector| {
        let entries = mbr_entries(sector);
        sector[510..] == *b"\x55\xaa"
            && entries.iter().all(|entry| matches!(entry.flags, 0 | 0x80))
            && entries.iter().any(|entry| entry.kind != 0 && entry.sectors > 0)
    })
}

/// The partitions of a disk of `bytes`, in order; empty if there is no table.
pub fn read(file: &File, bytes: u64) -> std::io::Result<Vec<Partition>> {
    for sector in SECTORS {
        if let Some(found) = gpt(file, bytes, sector)? {
            return Ok(found);
        }
    }
    mbr(file, bytes)
}

fn number<const N: usize>(bytes: &[u8], offset: usize) -> u64 {
    let mut all = [0; 8];
    if let Some(found) = bytes.get(offset..offset + N) {
        all[..N].copy_from_slice(found);
    }
    u64::from_le_bytes(all)
}

fn read_at(file: &File, disk_bytes: u64, offset: u64, count: u64) -> std::io::Result<Vec<u8>> {
    if offset.checked_add(count).is_none_or(|end| end > disk_bytes) {
        return Ok(Vec::new());
    }
    let mut buffer = vec![0; usize::try_from(count).unwrap_or_default()];
    file.read_exact_at(&mut buffer, offset)?;
    Ok(buffer)
}

fn gpt(file: &File, bytes: u64, sector: u64) -> std::io::Result<Option<Vec<Partition>>> {
    let header = read_at(file, bytes, sector, 512)?;
    if !header.starts_with(b"EFI PART") {
        return Ok(None);
    }
    let (count, entry_bytes) = (number::<4>(&header, 80), number::<4>(&header, 84));
    let fits = count <= u64::from(PARTITIONS)
        && (128..=u64::from(ENTRY_BYTES)).contains(&entry_bytes)
        && count > 0;
    let first = number::<8>(&header, 72).checked_mul(sector);
    let (true, Some(first)) = (fits, first) else { return Ok(Some(Vec::new())) };
    let table = read_at(file, bytes, first, count * entry_bytes)?;
    let entries = table.chunks_exact(usize::try_from(entry_bytes).unwrap_or(128));
    let partitions = (1..).zip(entries).filter_map(|(index, entry)| {
        let (kind, last) = (entry.get(..16)?, number::<8>(entry, 40));
        let first = number::<8>(entry, 32);
        let sectors = last.checked_sub(first)?.checked_add(1)?;
        if kind.iter().all(|byte| *byte == 0) {
            return None;
        }
        let is_machine = MACHINE_GUIDS.iter().any(|guid| guid == kind);
        let purpose = if is_machine { Purpose::Machine } else { Purpose::Data };
        let (start, length) = (first.checked_mul(sector)?, sectors.checked_mul(sector)?);
        Some(Partition { number: index, start, bytes: length, purpose })
    });
    Ok(Some(partitions.collect()))
}

struct MbrEntry {
    flags: u8,
    kind: u8,
    first: u64,
    sectors: u64,
}

fn mbr_entries(sector: &[u8]) -> Vec<MbrEntry> {
    let entries = sector.get(446..510).unwrap_or_default().chunks_exact(16);
    let entry = |bytes: &[u8]| MbrEntry {
        flags: bytes[0],
        kind: bytes[4],
        first: number::<4>(bytes, 8),
        sectors: number::<4>(bytes, 12),
    };
    entries.map(entry).collect()
}

fn mbr(file: &File, bytes: u64) -> std::io::Result<Vec<Partition>> {
    let sector = read_at(file, bytes, 0, 512)?;
    if !is_mbr(&sector) {
        return Ok(Vec::new());
    }
    let partition = |number: u32, base: u64, entry: &MbrEntry| {
        let is_machine = MACHINE_TYPES.contains(&entry.kind);
        let purpose = if is_machine { Purpose::Machine } else { Purpose::Data };
        let start = (base + entry.first) * 512;
        Partition { number, start, bytes: entry.sectors * 512, purpose }
    };
    let used = |entry: &&MbrEntry| entry.kind != 0 && entry.sectors > 0;
    let (mut partitions, entries) = (Vec::new(), mbr_entries(&sector));
    for (number, entry) in (1..).zip(&entries).filter(|(_, entry)| used(entry)) {
        if !EXTENDED.contains(&entry.kind) {
            partitions.push(partition(number, 0, entry));
            continue;
        }
        // A chain: in each sector a partition, and the next link relative to the first one.
        let (first, mut link) = (entry.first, entry.first);
        for number in 5..PARTITIONS {
            let inner = mbr_entries(&read_at(file, bytes, link * 512, 512)?);
            let is_link = |entry: &&MbrEntry| EXTENDED.contains(&entry.kind);
            let logical = inner.iter().filter(used).find(|entry| !is_link(entry));
            partitions.extend(logical.map(|entry| partition(number, link, entry)));
            match inner.iter().filter(used).find(is_link) {
                Some(next) if first + next.first > link => link = first + next.first,
                _ => break,
            }
        }
    }
    Ok(partitions)
}
