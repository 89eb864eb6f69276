//! Random edits on both sides at once, with sessions that are cut off.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::world::{World, list};

/// A generator of numbers (splitmix64), so that a seed repeats a run.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % most
    }
}

fn path(random: &mut Random) -> PathBuf {
    let mut path = PathBuf::new();
    for _ in 0..=random.below(3) {
        path.push(["a", "b", "c", "d", "e"][random.below(5) as usize]);
    }
    path
}

/// One edit; returns the text of a new file that is never overwritten or removed.
fn edit(root: &Path, random: &mut Random, number: u64) -> Option<String> {
    let here = root.join(path(random));
    match random.below(10) {
        // Names of their own, so that only a session could lose them.
        0..=2 => {
            let text = format!("kept {number}");
            let _ = fs::create_dir_all(&here);
            return fs::write(here.join(format!("kept-{number}")), &text).is_ok().then_some(text);
        }
        3..=5 => drop(fs::write(&here, format!("{number}"))),
        6 => drop(fs::create_dir_all(&here)),
        7 => drop(fs::rename(&here, root.join(path(random)))),
        8 if !here.is_dir() => drop(fs::remove_file(&here)),
        8 => {}
        _ => {
            let new = root.join(format!("new-{number}"));
            let _ = fs::write(&new, format!("saved {number}"));
            if fs::rename(&new, &here).is_err() {
                let _ = fs::remove_file(new);
            }
        }
    }
    None
}

/// Every text in any file.
fn texts(root: &Path) -> BTreeSet<String> {
    list(root, &[]).into_iter().map(|(_, text)| text).collect()
}

fn run(seed: u64, time: Duration, sessions: usize) {
    let world = World::new();
    let mut random = Random(seed);
    let mut kept = Vec::new();
    let mut number = 0;
    for session in 0..=sessions {
        let live = world.start();
        let begin = Instant::now();
        while begin.elapsed() < time / (sessions as u32 + 1) {
            let root = if random.below(2) == 0 { &world.host } else { &world.guest };
            number += 1;
            kept.extend(edit(root.path(), &mut random, number));
            if random.below(20) == 0 {
                std::thread::sleep(Duration::from_millis(random.below(60)));
            }
        }
        if session == sessions {
            live.alike();
            live.stop();
        } else if random.below(2) == 0 {
            live.stop();
        } else {
            live.cut_off();
        }
    }
    let all = texts(world.host.path());
    for text in &kept {
        let text = format!("0 {:?}", text.as_bytes());
        assert!(all.contains(&text), "seed {seed}: {text} is lost");
    }
    assert_eq!(list(world.host.path(), &[]), list(world.guest.path(), &[]), "seed {seed}");
    println!("seed {seed}: {number} edits, {} files kept, {} at the end", kept.len(), all.len());
}

#[test]
fn random_edits_of_both_sides_end_alike() {
    run(1, Duration::from_millis(1500), 3);
}

/// `BANGER_SYNC_SEED` and `BANGER_SYNC_SECONDS` (600) choose the run.
#[test]
#[ignore = "takes ten minutes (BANGER_SYNC_SECONDS): nextest run -p banger-sync --run-ignored only"]
fn ten_minutes_of_random_edits_end_alike() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seconds: u64 = number("BANGER_SYNC_SECONDS").unwrap_or(600);
    let seed: u64 = number("BANGER_SYNC_SEED").unwrap_or(2);
    for part in 0..seconds.div_ceil(20) {
        run(seed.wrapping_add(part), Duration::from_secs(20.min(seconds)), 6);
    }
}
