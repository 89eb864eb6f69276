//! Extracts the ELF file of a bzImage, which Firecracker and QEMU's microvm start directly.
//!
//! Follows Documentation/arch/x86/boot.rst (setup header), and for LZ4 the legacy frame of
//! `lz4_Frame_format.md` with the kernel's addition: the unpacked size in the last four bytes.

use std::io::{self, Read};

/// Maximum size of an unpacked kernel in bytes.
pub const ELF_BYTES_MAX: usize = 256 << 20;
/// Maximum size of a bzImage in bytes.
pub const BZIMAGE_BYTES_MAX: u64 = 128 << 20;
/// Unpacked size of a full block of an LZ4 legacy frame.
const LZ4_BLOCK: usize = 8 << 20;
/// Magic number of such a frame, little-endian.
const LZ4_LEGACY: [u8; 4] = 0x184c_2102_u32.to_le_bytes();

/// Reason why a file is not a bootable kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelFormatError {
    /// Neither a bzImage nor ELF.
    #[error("is not a Linux kernel for x86-64")]
    NotAKernel,
    /// Boot protocol before 2.08.
    #[error("has boot protocol {major}.{minor:02}, at least 2.08 is needed")]
    TooOld {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
    /// The file is shorter than its parts.
    #[error("is truncated: {has} bytes of {wants}")]
    Truncated {
        /// Size of the file in bytes.
        has: usize,
        /// Size according to its header in bytes.
        wants: usize,
    },
    /// Unsupported compression.
    #[error("has a payload of an unknown compression (it begins {0:02x?})")]
    UnknownCompression(Vec<u8>),
    /// The payload cannot be decompressed.
    #[error("has a damaged payload")]
    Payload(#[source] io::Error),
    /// The contained ELF file cannot be booted.
    #[error("is not a bootable ELF file: {0}")]
    BadElf(&'static str),
}

/// Compression of the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// LZ4, legacy frame, in memory.
    Lz4(&'a [u8]),
    /// gzip.
    Gzip(&'a [u8]),
    /// Zstandard.
    Zstd(&'a [u8]),
    /// xz, decompressed by the program of that name.
    Xz(&'a [u8]),
    /// None.
    Elf(&'a [u8]),
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// Finds the payload of a kernel file.
///
/// # Errors
/// Not a kernel, or an incomplete one.
pub fn payload(file: &[u8]) -> Result<Payload<'_>, KernelFormatError> {
    if file.starts_with(b"\x7fELF") {
        return Ok(Payload::Elf(file));
    }
    if file.get(0x202..0x206) != Some(b"HdrS") {
        return Err(KernelFormatError::NotAKernel);
    }
    let not_whole = |wants| KernelFormatError::Truncated { has: file.len(), wants };
    let version = u16_at(file, 0x206).ok_or_else(|| not_whole(0x208))?;
    let [minor, major] = version.to_le_bytes();
    if version < 0x0208 {
        return Err(KernelFormatError::TooOld { major, minor });
    }
    let sectors = match file[0x1f1] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let offset = u32_at(file, 0x248).ok_or_else(|| not_whole(0x250))? as usize;
    let length = u32_at(file, 0x24c).ok_or_else(|| not_whole(0x250))? as usize;
    let start = (sectors + 1) * 512 + offset;
    let packed = file.get(start..start + length).ok_or_else(|| not_whole(start + length))?;
    match packed {
        [0x1f, 0x8b, ..] => Ok(Payload::Gzip(packed)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Payload::Zstd(packed)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Ok(Payload::Xz(packed)),
        [0x7f, b'E', b'L', b'F', ..] => Ok(Payload::Elf(packed)),
        _ if packed.starts_with(&LZ4_LEGACY) => Ok(Payload::Lz4(packed)),
        _ => Err(KernelFormatError::UnknownCompression(packed.iter().take(4).copied().collect())),
    }
}

/// The release in the setup code of a bzImage (`kernel_version` of its header), of which `head` is
/// the beginning.
pub fn release(head: &[u8]) -> Option<String> {
    if head.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let offset = usize::from(u16_at(head, 0x20e).filter(|offset| *offset != 0)?) + 0x200;
    let text = head.get(offset..)?;
    let end = text.iter().position(|byte| matches!(byte, 0 | b' '))?;
    std::str::from_utf8(&text[..end]).ok().map(str::to_owned)
}

/// Decompresses an LZ4 legacy frame to which the kernel's build has appended the unpacked size.
fn unpack_lz4(packed: &[u8]) -> Result<Vec<u8>, KernelFormatError> {
    let damaged =
        |why: String| KernelFormatError::Payload(io::Error::new(io::ErrorKind::InvalidData, why));
    let body = packed.get(4..packed.len().saturating_sub(4)).unwrap_or_default();
    let expected = u32_at(packed, packed.len().saturating_sub(4)).unwrap_or_default() as usize;
    if expected > ELF_BYTES_MAX {
        return Err(damaged(format!("{expected} bytes when unpacked")));
    }
    let mut unpacked = Vec::with_capacity(expected);
    let mut block = vec![0; LZ4_BLOCK];
    let mut rest = body;
    while let Some(length) = u32_at(rest, 0) {
        let length = length as usize;
        let bytes = rest.get(4..4 + length).ok_or_else(|| damaged("a block is cut off".into()))?;
        let count = lz4_flex::block::decompress_into(bytes, &mut block)
            .map_err(|error| damaged(error.to_string()))?;
        unpacked.extend_from_slice(&block[..count]);
        if unpacked.len() > expected {
            break;
        }
        rest = &rest[4 + length..];
    }
    if unpacked.len() != expected {
        return Err(damaged(format!("{} bytes unpacked, {expected} expected", unpacked.len())));
    }
    Ok(unpacked)
}

/// Reads an unpacked kernel, up to the size limit.
///
/// # Errors
/// Errors of the reader; the size limit.
pub fn read_limited(reader: impl Read) -> Result<Vec<u8>, KernelFormatError> {
    let mut unpacked = Vec::new();
    reader
        .take(ELF_BYTES_MAX as u64 + 1)
        .read_to_end(&mut unpacked)
        .map_err(KernelFormatError::Payload)?;
    if unpacked.len() > ELF_BYTES_MAX {
        return Err(KernelFormatError::BadElf("too large"));
    }
    Ok(unpacked)
}

/// Decompresses a payload; `xz` handles the xz format.
///
/// # Errors
/// A damaged payload; errors of `xz`.
pub fn unpack<E: From<KernelFormatError>>(
    payload: Payload<'_>,
    xz: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, E> {
    // The four appended bytes do not belong to the stream.
    let stream = |packed: &'_ [u8]| packed.len().saturating_sub(4);
    let unpacked = match payload {
        Payload::Elf(elf) => elf.to_vec(),
        Payload::Lz4(packed) => unpack_lz4(packed)?,
        Payload::Gzip(packed) => read_limited(flate2::read::GzDecoder::new(packed))?,
        Payload::Zstd(packed) => {
            let decoder = zstd::Decoder::with_buffer(&packed[..stream(packed)])
                .map_err(KernelFormatError::Payload)?;
            read_limited(decoder)?
        }
        Payload::Xz(packed) => xz(&packed[..stream(packed)])?,
    };
    check_elf(&unpacked, unpacked.len() as u64)?;
    Ok(unpacked)
}

/// Maximum number of bytes at a file's start that [`check_elf`] reads.
pub const ELF_HEAD_BYTES: usize = 4096;

/// Checks that a file of `length` bytes that starts with `head` is an x86-64 kernel, and complete
/// according to its program headers (ELF-64 object file format, version 1.5).
///
/// # Errors
/// A description of the defect.
pub fn check_elf(head: &[u8], length: u64) -> Result<(), KernelFormatError> {
    use KernelFormatError::BadElf;
    /// EM_X86_64.
    const X86_64: u16 = 62;
    const PT_LOAD: u32 = 1;
    if !head.starts_with(b"\x7fELF") {
        return Err(BadElf("it does not begin like one"));
    }
    if head.get(4..6) != Some(&[2, 1]) || u16_at(head, 18) != Some(X86_64) {
        return Err(BadElf("it is for another machine"));
    }
    // ET_EXEC, or ET_DYN of a relocatable kernel.
    if !matches!(u16_at(head, 16), Some(2 | 3)) {
        return Err(BadElf("it is not executable"));
    }
    let cut = || BadElf("its headers are cut off");
    let table = u64_at(head, 32).and_then(|at| usize::try_from(at).ok()).ok_or_else(cut)?;
    let entry_bytes = usize::from(u16_at(head, 54).ok_or_else(cut)?);
    let entries = usize::from(u16_at(head, 56).ok_or_else(cut)?);
    if entry_bytes != 56 || entries == 0 || entries > 64 || table > ELF_HEAD_BYTES {
        return Err(BadElf("its program headers make no sense"));
    }
    let mut loads = 0;
    for entry in 0..entries {
        let at = table + entry * entry_bytes;
        let kind = u32_at(head, at).ok_or_else(cut)?;
        let offset = u64_at(head, at + 8).ok_or_else(cut)?;
        let bytes = u64_at(head, at + 32).ok_or_else(cut)?;
        loads += usize::from(kind == PT_LOAD);
        let end = offset.checked_add(bytes).ok_or_else(cut)?;
        if end > length {
            let wants = usize::try_from(end).unwrap_or(usize::MAX);
            let has = usize::try_from(length).unwrap_or(usize::MAX);
            return Err(KernelFormatError::Truncated { has, wants });
        }
    }
    if loads == 0 {
        return Err(BadElf("nothing in it is to be loaded"));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A small ELF file that passes the checks.
    pub fn elf(content: usize) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[16..18].copy_from_slice(&2_u16.to_le_bytes());
        file[18..20].copy_from_slice(&62_u16.to_le_bytes());
        file[32..40].copy_from_slice(&64_u64.to_le_bytes());
        file[54..56].copy_from_slice(&56_u16.to_le_bytes());
        file[56..58].copy_from_slice(&1_u16.to_le_bytes());
        file[64..68].copy_from_slice(&1_u32.to_le_bytes());
        file[64 + 8..64 + 16].copy_from_slice(&120_u64.to_le_bytes());
        file[64 + 32..64 + 40].copy_from_slice(&(content as u64).to_le_bytes());
        file.extend((0..content).map(|n| (n / 7 % 251) as u8));
        file
    }

    fn lz4(content: &[u8]) -> Vec<u8> {
        let mut packed = LZ4_LEGACY.to_vec();
        for block in content.chunks(LZ4_BLOCK) {
            let bytes = lz4_flex::block::compress(block);
            packed.extend((bytes.len() as u32).to_le_bytes());
            packed.extend(bytes);
        }
        packed.extend((content.len() as u32).to_le_bytes());
        packed
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        let mut encoder = flate2::bufread::GzEncoder::new(content, flate2::Compression::fast());
        encoder.read_to_end(&mut packed).unwrap();
        packed.extend((content.len() as u32).to_le_bytes());
        packed
    }

    fn zstd_(content: &[u8]) -> Vec<u8> {
        let mut packed = zstd::encode_all(content, 1).unwrap();
        packed.extend((content.len() as u32).to_le_bytes());
        packed
    }

    /// A bzImage around a payload.
    pub fn bzimage(packed: &[u8]) -> Vec<u8> {
        let (sectors, offset) = (7_u8, 100_u32);
        let mut file = vec![0x90; (usize::from(sectors) + 1) * 512 + offset as usize];
        file[0x1f1] = sectors;
        file[0x202..0x206].copy_from_slice(b"HdrS");
        file[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
        file[0x248..0x24c].copy_from_slice(&offset.to_le_bytes());
        file[0x24c..0x250].copy_from_slice(&(packed.len() as u32).to_le_bytes());
        file.extend(packed);
        file.extend([0xaa; 333]);
        file
    }

    fn no_xz(_: &[u8]) -> Result<Vec<u8>, KernelFormatError> {
        Err(KernelFormatError::NotAKernel)
    }

    fn unpacked(file: &[u8]) -> Result<Vec<u8>, KernelFormatError> {
        unpack(payload(file)?, no_xz)
    }

    #[test]
    fn payloads_of_every_compression_are_unpacked() {
        // More than one LZ4 block.
        let kernel = elf(9 << 20);
        for packed in [lz4(&kernel), gzip(&kernel), zstd_(&kernel), kernel.clone()] {
            assert!(unpacked(&bzimage(&packed)).unwrap() == kernel);
        }
        assert!(unpacked(&kernel).unwrap() == kernel, "ELF as it is");
    }

    #[test]
    fn truncated_or_altered_kernels_are_refused() {
        let kernel = elf(300_000);
        for packed in [lz4(&kernel), gzip(&kernel), zstd_(&kernel), kernel.clone()] {
            let whole = bzimage(&packed);
            let start = whole.len() - 333 - packed.len();
            for length in [0, 1, 0x203, 0x24a, start, start + 20, start + packed.len() - 1] {
                assert!(unpacked(&whole[..length]).is_err(), "{length} bytes");
            }
        }
        let mut wrong_size = lz4(&kernel);
        let last = wrong_size.len() - 3;
        wrong_size[last] ^= 1;
        let error = unpacked(&bzimage(&wrong_size)).unwrap_err();
        assert_eq!(error.to_string(), "has a damaged payload");
        let cut = unpacked(&kernel[..kernel.len() - 1]).unwrap_err();
        assert_eq!(cut.to_string(), "is truncated: 300119 bytes of 300120");
    }

    #[test]
    fn files_other_than_kernels_are_refused() {
        assert!(matches!(payload(b"#!/bin/sh"), Err(KernelFormatError::NotAKernel)));
        let mut old = bzimage(b"x");
        old[0x206] = 6;
        assert_eq!(
            payload(&old).unwrap_err().to_string(),
            "has boot protocol 2.06, at least 2.08 is needed"
        );
        assert!(matches!(
            payload(&bzimage(b"BZh9")),
            Err(KernelFormatError::UnknownCompression(start)) if start == b"BZh9"
        ));
        let mut arm = elf(10);
        arm[18] = 183;
        assert!(matches!(unpacked(&arm), Err(KernelFormatError::BadElf(_))));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(mut file in proptest::collection::vec(any::<u8>(), 0..2048),
            changes in proptest::collection::vec((0..2000_usize, any::<u8>()), 0..20)) {
            let _ = unpacked(&file);
            let kernel = elf(500);
            file = bzimage(&lz4(&kernel));
            for (at, byte) in changes {
                let at = at % file.len();
                file[at] = byte;
            }
            if let Ok(elf) = unpacked(&file) {
                prop_assert!(elf.len() <= ELF_BYTES_MAX);
            }
        }
    }
}
