//! Readers of foreign images with mutations of files that other programs wrote.
//!
//! `cargo xtask fuzz` runs the same targets instrumented, with the seeds of this test:
//! `BANGER_FUZZ_SEEDS` is the folder where it leaves them.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod seeds;
mod targets;

use std::fs;
use std::path::PathBuf;

/// Mutations of each seed.
const MUTATIONS: u64 = 250;

/// Pseudo-random numbers: xorshift64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }
}

/// A few bytes changed, numbers at their limits, a part cut off or repeated.
fn mutated(seed: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len());
        // Headers of archives and file systems are at the start of blocks of 512 bytes.
        let at = if numbers.below(2) == 0 { at } else { at / 512 * 512 + numbers.below(160) };
        let Some(place) = bytes.get_mut(at..) else { continue };
        match numbers.below(6) {
            0 => bytes.truncate(at.max(1)),
            1 => {
                let part = place[..place.len().min(512)].to_vec();
                bytes.splice(at..at, part);
            }
            2 => {
                let value = [0, 0xff, 0x7f, 0x80][numbers.below(4)];
                place.iter_mut().take(1 << numbers.below(4)).for_each(|byte| *byte = value);
            }
            _ => {
                if let Some(byte) = place.first_mut() {
                    *byte ^= 1 << numbers.below(8);
                }
            }
        }
    }
    bytes
}

#[test]
fn mutations_of_real_files_are_read_or_refused() {
    let temp = tempfile::tempdir().unwrap();
    let folder = std::env::var_os("BANGER_FUZZ_SEEDS");
    let folder = folder.map_or_else(|| temp.path().to_owned(), PathBuf::from);
    seeds::write(&folder);
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for (name, target) in targets::ALL {
        let mut refused = 0;
        for seed in fs::read_dir(folder.join(name)).unwrap() {
            let path = seed.unwrap().path();
            let seed = fs::read(&path).unwrap();
            assert!(target(&seed), "{} is refused", path.display());
            for _ in 0..MUTATIONS {
                refused += u64::from(!target(&mutated(&seed, &mut numbers)));
            }
        }
        assert!(refused > 0, "{name} refuses nothing");
    }
    for (_, target) in targets::ALL {
        target(b"");
        target(&[0; 4096]);
    }
}
