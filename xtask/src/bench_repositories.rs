//! Repositories in machines (`--repositories`), beside what users do by hand. A repository of 1 GiB
//! (`--mib`) in files of 64 KiB, three of four with words, is sent to a new VM each time:
//!
//! - `import`: `banger run PATH -- true` without the time of `banger vm create`, against `rsync -a`
//!   of the folder with its `.git` and of the files alone, with `banger exec` as its remote shell,
//!   and against `git bundle create`, `banger cp` in place of scp, and `git clone` of that;
//! - `push`: `banger workspace push` of one changed file, against `rsync -a` again;
//! - `history`: bytes of objects that arrive of a repository with 400 MiB of history and a small
//!   tree.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::{Value, json};

use crate::bench::{Bench, median, rounded};
use crate::bench_guest::{Vm, timed};

/// Bytes of a file.
const FILE: usize = 64 << 10;
/// Files with a version in each commit of the history, of one MiB.
const VERSIONS: usize = 400;
/// Pushes of one file.
const PUSHES: usize = 5;

/// All figures; removes what it made.
///
/// # Errors
/// A command fails.
pub fn measure(bench: &Bench, mib: usize) -> anyhow::Result<Value> {
    let folder = bench.home.join("repositories-bench");
    // What a bench that was interrupted left.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let measured = figures(bench, &folder, mib);
    let _ = fs::remove_dir_all(&folder);
    measured
}

fn figures(bench: &Bench, folder: &Path, mib: usize) -> anyhow::Result<Value> {
    let history = history(bench, folder)?;
    let work = repository(&folder.join("work"), mib)?;
    let (import, push) = import(bench, folder, &work)?;
    Ok(json!({ "mib": mib, "import": import, "push": push, "history": history }))
}

/// Runs git in a folder.
fn git(folder: &Path, arguments: &[&str]) -> anyhow::Result<f64> {
    let mut command = Command::new("git");
    command.current_dir(folder);
    command.args(["-c", "user.name=Bench", "-c", "user.email=bench@example.org"]);
    command.args(["-c", "gc.auto=0"]).args(arguments);
    timed(command)
}

/// A generator of numbers (xorshift), so that all runs have the same files.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(length).collect()
    }

    fn words(&mut self, length: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(length + 16);
        while text.len() < length {
            let number = self.next();
            let end = if number.is_multiple_of(9) { "\n" } else { " " };
            text.extend(format!("{:x}{end}", number % 50_000).bytes());
        }
        text.truncate(length);
        text
    }
}

/// A repository with one commit, packed as after a clone.
fn repository(path: &Path, mib: usize) -> anyhow::Result<PathBuf> {
    let mut random = Random(1);
    for number in 0..mib * (1 << 20) / FILE {
        let folder = path.join(format!("d{}/e{}", number % 40, number % 7));
        fs::create_dir_all(&folder)?;
        let content = if number % 4 == 0 { random.bytes(FILE) } else { random.words(FILE) };
        fs::write(folder.join(format!("f{number}")), content)?;
    }
    git(path, &["init", "-q", "-b", "main"])?;
    git(path, &["add", "-A"])?;
    git(path, &["commit", "-q", "-m", "all"])?;
    git(path, &["repack", "-q", "-a", "-d", "--window=0"])?;
    Ok(path.to_owned())
}

fn delete(vm: &Vm<'_>) {
    let _ = vm.bench.banger(&vm.bench.home, &["vm", "delete", "-f", vm.name]);
}

/// Creates a VM; milliseconds until it is ready.
fn create<'a>(bench: &'a Bench, name: &'static str) -> anyhow::Result<(Vm<'a>, f64)> {
    let vm = Vm { bench, name };
    delete(&vm);
    let create = [&["vm", "create", "-q", "--name", name], Vm::SIZE.as_slice()].concat();
    let took = bench.timed(&bench.home, &create)?;
    Ok((vm, took))
}

/// Creates a VM with a repository; milliseconds until the repository is there.
fn run<'a>(bench: &'a Bench, name: &'static str, path: &Path) -> anyhow::Result<(Vm<'a>, f64)> {
    let vm = Vm { bench, name };
    delete(&vm);
    let path = path.display().to_string();
    let size = Vm::SIZE.as_slice();
    let words = [&["run", &path, "-q", "--name", name], size, &["--", "true"]].concat();
    let took = bench.timed(&bench.home, &words)?;
    Ok((vm, took))
}

fn import(bench: &Bench, folder: &Path, work: &Path) -> anyhow::Result<(Value, Value)> {
    let (copy, created) = create(bench, "rsync")?;
    let shell = copy.remote_shell(folder)?;
    let rsync = copy.rsync(&shell, work, "/root/work")?;
    let (ours, whole) = run(bench, "ours", work)?;
    let push = pushes(&ours, (&copy, &shell), work)?;
    drop((ours, copy));
    let (files, _) = create(bench, "files")?;
    let mut command = files.rsync_command(&shell, work, "/root/files");
    command.arg("--exclude=/.git");
    let files_alone = timed(command)?;
    drop(files);
    let by_hand = bundle(bench, folder, work)?;
    let import = whole - created;
    let ratio = |other: f64| rounded(import / other, 2);
    let import = json!({
        "n": 1,
        "ours_ms": rounded(import, 0),
        "rsync_ms": rounded(rsync, 0),
        "rsync_files_ms": rounded(files_alone, 0),
        "bundle_ms": rounded(by_hand, 0),
        "ratio_rsync": ratio(rsync),
        "ratio_rsync_files": ratio(files_alone),
        "ratio_bundle": ratio(by_hand),
    });
    Ok((import, push))
}

/// Milliseconds of a bundle on its way.
fn bundle(bench: &Bench, folder: &Path, work: &Path) -> anyhow::Result<f64> {
    let (vm, _) = create(bench, "bundle")?;
    let file = folder.join("work.bundle").display().to_string();
    let made = git(work, &["bundle", "create", "-q", &file, "main"])?;
    let copied = bench.timed(&bench.home, &["cp", &file, "bundle:/root/work.bundle"])?;
    let clone = "git clone -q -b main /root/work.bundle /root/work && rm /root/work.bundle";
    let cloned = bench.timed(&bench.home, &["exec", "bundle", "--", "sh", "-c", clone])?;
    fs::remove_file(file)?;
    drop(vm);
    eprintln!("bundle: made {made:.0} ms, copied {copied:.0} ms, cloned {cloned:.0} ms");
    Ok(made + copied + cloned)
}

/// One changed file, in turns.
fn pushes(ours: &Vm<'_>, (copy, shell): (&Vm<'_>, &Path), work: &Path) -> anyhow::Result<Value> {
    let (mut mine, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..PUSHES {
        let mut file = fs::File::options().append(true).open(work.join("d1/e1/f1"))?;
        writeln!(file, "changed {round}")?;
        drop(file);
        let push = || {
            let words = ["vm", "workspace", "push", ours.name];
            ours.bench.timed(&ours.bench.home, &words)
        };
        let again = || copy.rsync(shell, work, "/root/work");
        let (one, other) = if round % 2 == 0 {
            let one = push()?;
            (one, again()?)
        } else {
            let other = again()?;
            (push()?, other)
        };
        mine.push(one);
        theirs.push(other);
        ratios.push(one / other);
    }
    Ok(json!({
        "n": PUSHES,
        "ours_ms": rounded(median(&mine), 0),
        "rsync_ms": rounded(median(&theirs), 0),
        "ratio": rounded(median(&ratios), 2),
    }))
}

/// A small tree after many versions of one large file.
fn history(bench: &Bench, folder: &Path) -> anyhow::Result<Value> {
    let path = folder.join("history");
    fs::create_dir_all(path.join("src"))?;
    git(&path, &["init", "-q", "-b", "main"])?;
    let mut random = Random(2);
    for number in 0..100 {
        fs::write(path.join(format!("src/f{number}")), random.words(5000))?;
    }
    for _ in 0..VERSIONS {
        fs::write(path.join("asset"), random.bytes(1 << 20))?;
        git(&path, &["add", "-A"])?;
        git(&path, &["commit", "-q", "-m", "a version"])?;
    }
    git(&path, &["rm", "-q", "asset"])?;
    git(&path, &["commit", "-q", "-m", "without it"])?;
    git(&path, &["repack", "-q", "-a", "-d", "--window=0"])?;
    let size = |text: String| -> anyhow::Result<u64> {
        let number = text.split_whitespace().next().context("no size")?;
        Ok(number.parse()?)
    };
    let mut du = Command::new("du");
    let du = du.args(["-sb", ".git/objects"]).current_dir(&path).output()?;
    let host = size(String::from_utf8_lossy(&du.stdout).into_owned())?;
    let (vm, _) = run(bench, "history", &path)?;
    let guest = size(vm.run("du -sb /root/history/.git/objects")?)?;
    Ok(json!({
        "host_mib": rounded(host as f64 / f64::from(1 << 20), 1),
        "sent_mib": rounded(guest as f64 / f64::from(1 << 20), 2),
    }))
}
