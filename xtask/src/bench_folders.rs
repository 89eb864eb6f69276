//! Live folders between this host and a VM (`--folders`).
//!
//! - `small` and `large`, with 20 and 50,000 files: milliseconds from a save on one side until a
//!   program on the other side reads the new content; the time of a message to or from the guest's
//!   program is a part of it. The pauses between two saves last from 0.1 to 1.5 s, so that some
//!   meet the session while it writes its state;
//! - `first_copy`: until 50,000 files of a host folder are in the guest, against `rsync -a` of the
//!   same folder with `banger exec` as its remote shell; rounds alternate.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::bench::{Bench, median, rounded};
use crate::bench_create::percentile;
use crate::bench_guest::{Eye, Vm};

/// Saves in each direction.
const SAVES: usize = 40;
/// Folders of ten files in the large tree.
const LARGE: usize = 5000;
/// Rounds of the first copy.
const ROUNDS: usize = 3;
/// Longest time of a first copy.
const FIRST_DEADLINE: Duration = Duration::from_secs(1200);
/// Longest time until a save is seen.
const DEADLINE: Duration = Duration::from_secs(60);

/// All figures; removes what it made.
///
/// # Errors
/// A command fails.
pub fn measure(bench: &Bench) -> anyhow::Result<Value> {
    let folder = bench.home.join("folders-bench");
    // What a bench that was interrupted left.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let measured = figures(bench, &folder);
    let _ = fs::remove_dir_all(&folder);
    measured
}

fn figures(bench: &Bench, folder: &Path) -> anyhow::Result<Value> {
    let vm = Vm::create(bench, "folders")?;
    let small = Tree::make(folder, "small", 2)?;
    small.begin(&vm, "/root/small")?;
    let of_small = saves(&vm, &small, "/root/small")?;
    vm.set(&["--unsync", "/root/small"])?;
    let large = Tree::make(folder, "large", LARGE)?;
    let first = first_copy(&vm, folder, &large)?;
    large.begin(&vm, "/root/large")?;
    let of_large = saves(&vm, &large, "/root/large")?;
    Ok(json!({ "small": of_small, "large": of_large, "first_copy": first }))
}

impl Vm<'_> {
    fn set(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let words = [["vm", "set", self.name].as_slice(), arguments].concat();
        self.bench.banger(&self.bench.home, &words)
    }

    fn live_folder(&self) -> anyhow::Result<Value> {
        let text = self.bench.banger(&self.bench.home, &["vm", "sync", self.name, "--json"])?;
        let folders: Value = serde_json::from_str(&text)?;
        Ok(folders[0].clone())
    }
}

/// A folder of this host.
struct Tree {
    host: PathBuf,
    files: usize,
}

impl Tree {
    /// Folders of ten files each, as in a `node_modules`.
    fn make(parent: &Path, name: &str, folders: usize) -> anyhow::Result<Self> {
        let host = parent.join(name);
        for folder in 0..folders {
            let path = host.join(format!("m{}/p{folder}/lib", folder % 500));
            fs::create_dir_all(&path)?;
            for file in 0..10 {
                let text = format!("module.exports = [{folder}, {file}]\n").repeat(40);
                fs::write(path.join(format!("f{file}.js")), text)?;
            }
        }
        Ok(Self { host, files: folders * 10 })
    }

    /// Makes it a live folder, and waits until both sides are alike; milliseconds.
    fn begin(&self, vm: &Vm<'_>, guest: &str) -> anyhow::Result<f64> {
        let begin = Instant::now();
        vm.set(&["--sync", &format!("{}:{guest}", self.host.display())])?;
        while begin.elapsed() < FIRST_DEADLINE {
            if vm.live_folder()?["rounds"].as_u64().is_some_and(|rounds| rounds > 0) {
                return Ok(begin.elapsed().as_secs_f64() * 1000.0);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("{} was not copied", self.host.display())
    }
}

/// Saves one file in turns on both sides.
fn saves(vm: &Vm<'_>, tree: &Tree, guest: &str) -> anyhow::Result<Value> {
    settle(vm)?;
    let mut eye = vm.eye()?;
    let (mut to_guest, mut to_host) = (Vec::new(), Vec::new());
    for save in 0..SAVES {
        let name = format!("m1/p1/lib/f{}.js", save % 10);
        let (here, there) = (tree.host.join(&name), format!("{guest}/{name}"));
        let text = format!("host-{save}");
        to_guest.push(eye.sees(&there, &text, || Ok(fs::write(&here, &text)?))?);
        pause(save);
        to_host.push(save_in_guest(&mut eye, (&here, &there), &format!("guest-{save}"))?);
        pause(save + SAVES / 2);
    }
    let figures = |times: &[f64]| {
        json!({
            "p50_ms": rounded(percentile(times, 0.5), 1),
            "p95_ms": rounded(percentile(times, 0.95), 1),
            "max_ms": rounded(percentile(times, 1.0), 1),
        })
    };
    Ok(json!({
        "files": tree.files,
        "n": SAVES,
        "host_to_guest": figures(&to_guest),
        "guest_to_host": figures(&to_host),
    }))
}

fn save_in_guest(eye: &mut Eye, (here, there): (&Path, &str), text: &str) -> anyhow::Result<f64> {
    let begin = Instant::now();
    eye.write(there, text)?;
    while fs::read(here).ok().as_deref() != Some(text.as_bytes()) {
        if begin.elapsed() > DEADLINE {
            bail!("`{there}` did not arrive in {}", here.display());
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    let took = begin.elapsed().as_secs_f64() * 1000.0;
    eye.written()?;
    Ok(took)
}

/// Waits until the session has looked at what it wrote: no round for two seconds.
fn settle(vm: &Vm<'_>) -> anyhow::Result<()> {
    let rounds = || -> anyhow::Result<u64> {
        vm.live_folder()?["rounds"].as_u64().context("`vm sync --json` has no rounds")
    };
    let (mut last, mut since) = (rounds()?, Instant::now());
    while since.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(200));
        let now = rounds()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(())
}

/// From 0.1 to 1.5 s, in an order that looks random.
fn pause(number: usize) {
    let ms = 100 + number * 617 % 1400;
    std::thread::sleep(Duration::from_millis(u64::try_from(ms).unwrap_or(100)));
}

fn first_copy(vm: &Vm<'_>, folder: &Path, tree: &Tree) -> anyhow::Result<Value> {
    let shell = vm.remote_shell(folder)?;
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let live = || {
            let took = tree.begin(vm, "/root/large")?;
            settle(vm)?;
            vm.set(&["--unsync", "/root/large"])?;
            vm.run("rm -rf /root/large && sync")?;
            Ok::<_, anyhow::Error>(took)
        };
        let copied = || {
            let took = vm.rsync(&shell, &tree.host, "/root/copied")?;
            vm.run("rm -rf /root/copied && sync")?;
            Ok::<_, anyhow::Error>(took)
        };
        let (mine, other) = if round % 2 == 0 {
            let mine = live()?;
            (mine, copied()?)
        } else {
            let other = copied()?;
            (live()?, other)
        };
        eprintln!("first copy {}: live {mine:.0} ms, rsync {other:.0} ms", round + 1);
        ours.push(mine);
        theirs.push(other);
        ratios.push(mine / other);
    }
    Ok(json!({
        "files": tree.files,
        "n": ROUNDS,
        "ours_ms": rounded(median(&ours), 0),
        "rsync_ms": rounded(median(&theirs), 0),
        "ratio": rounded(median(&ratios), 2),
    }))
}
