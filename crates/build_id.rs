//! Build script of both programs: `BANGER_BUILD_ID` is a hash of the workspace's sources.
//!
//! The CLI compares its own with the daemon's, to see that another build was installed. It hangs on
//! the two programs alone, so that a changed file does not rebuild the libraries below them.

use std::fs;
use std::path::{Path, PathBuf};

/// FNV-1a, 64 bits: a fingerprint, not a protection.
struct Hash(u64);

impl Hash {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let wanted = path.extension().is_some_and(|e| e == "rs" || e == "toml" || e == "sql");
        if path.is_dir() {
            sources(&path, found);
        } else if wanted {
            found.push(path);
        }
    }
}

fn main() {
    let crates = Path::new("..");
    let lock = PathBuf::from("../../Cargo.lock");
    println!("cargo:rerun-if-changed={}", crates.display());
    println!("cargo:rerun-if-changed={}", lock.display());
    let mut files = vec![lock];
    sources(crates, &mut files);
    files.sort();
    let mut hash = Hash(0xcbf2_9ce4_8422_2325);
    for file in files {
        hash.add(file.to_string_lossy().as_bytes());
        hash.add(&fs::read(&file).unwrap_or_default());
    }
    println!("cargo:rustc-env=BANGER_BUILD_ID={:016x}", hash.0);
}
