//! Fingerprints of files and of objects made of several files.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A file of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Name within the object's folder.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Lowercase hex; of all bytes, or as [`digest_of_blocks`] for file-system images.
    pub sha256: String,
}

/// Digits of an id.
const ID_DIGITS: usize = 16;

/// Lowercase hex.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of all bytes of a reader, as lowercase hex.
///
/// # Errors
/// Errors of the reader.
pub fn digest_of_file(mut reader: impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(count) => hash.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Block of the sparse digest in bytes.
const BLOCK: usize = 4096;

/// SHA-256 of a file's length and of its 4096-byte blocks that are not all zero, each preceded by
/// its number. It is independent of holes, which are not read.
///
/// # Errors
/// read(2), lseek(2).
pub fn digest_of_blocks(file: &File) -> io::Result<String> {
    let length = file.metadata()?.len();
    let mut hash = Sha256::new();
    hash.update(length.to_le_bytes());
    let mut buffer = vec![0; 256 * BLOCK];
    let mut at = 0;
    while at < length {
        at = match seek(file, SeekFrom::Data(at)) {
            // Rounded down: on a host with smaller blocks, a hole may end within a block.
            Ok(data) => (data - data % BLOCK as u64).max(at),
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let want = usize::try_from(length - at).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..want], at)?;
        for (number, block) in (at / BLOCK as u64..).zip(buffer[..want].chunks(BLOCK)) {
            if block.iter().any(|byte| *byte != 0) {
                hash.update(number.to_le_bytes());
                hash.update(block);
            }
        }
        at += want as u64;
    }
    Ok(hex(&hash.finalize()))
}

/// Fingerprint of an object with these files, and its id, which is the prefix of the fingerprint.
pub fn id_of(files: &[FileDigest]) -> (String, String) {
    let mut hash = Sha256::new();
    for file in files {
        hash.update(format!("{} {} {}\n", file.name, file.bytes, file.sha256));
    }
    let fingerprint = hex(&hash.finalize());
    let id = fingerprint[..ID_DIGITS].to_owned();
    (fingerprint, id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_digest_is_plain_sha256() {
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest_of_file(&b"abc"[..]).unwrap(), abc);
    }

    #[test]
    fn holes_and_zeros_are_the_same_other_content_is_not() {
        let files: Vec<File> = (0..3).map(|_| tempfile::tempfile().unwrap()).collect();
        for file in &files {
            file.set_len(10_000_000).unwrap();
            file.write_all_at(b"data", 5_000_000).unwrap();
        }
        files[1].write_all_at(&vec![0; 3_000_000], 1000).unwrap();
        files[2].write_all_at(b"x", 9_999_999).unwrap();
        let digests: Vec<_> = files.iter().map(|file| digest_of_blocks(file).unwrap()).collect();
        assert_eq!(digests[0], digests[1]);
        assert_ne!(digests[0], digests[2]);
        files[1].set_len(10_000_001).unwrap();
        assert_ne!(digests[0], digest_of_blocks(&files[1]).unwrap());
    }

    #[test]
    fn an_id_depends_on_every_part() {
        let file = |name: &str, bytes, sha256: &str| FileDigest {
            name: name.into(),
            bytes,
            sha256: sha256.into(),
        };
        let (fingerprint, id) = id_of(&[file("a", 1, "x")]);
        assert!(fingerprint.starts_with(&id) && id.len() == 16);
        for other in [file("b", 1, "x"), file("a", 2, "x"), file("a", 1, "y")] {
            assert_ne!(id_of(&[other]).1, id);
        }
    }
}
