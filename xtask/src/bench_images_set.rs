//! The root file system of the bench of images, made from a fixed seed, and a registry for it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};

/// Number of files, and of their bytes.
const FILES: u64 = 12_000;
const BYTES: u64 = 200 << 20;
const SEED: u64 = 0x2545_f491_4f6c_dd1d;
/// Files in a folder.
const IN_FOLDER: u64 = 30;
/// Half of the files have words, which compress as the text and the programs of a distribution do.
const WORDS: [&str; 16] = [
    "kernel ",
    "return ",
    "\n",
    "configure ",
    "the ",
    "package ",
    "0x7f",
    "library ",
    "->",
    "version ",
    "struct ",
    "include ",
    "of ",
    "\t",
    "device ",
    "static ",
];

/// What was made.
pub struct Made {
    /// The root file system as a folder.
    pub folder: PathBuf,
    /// Its tar archive.
    pub archive: PathBuf,
}

/// Numbers of xorshift64*, the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(SEED)
    }
}

/// Option of umoci(1) for an ordinary user.
pub fn rootless() -> anyhow::Result<&'static [&'static str]> {
    Ok(if fs::metadata("/proc/self")?.uid() == 0 { &[] } else { &["--rootless"] })
}

/// Runs a program.
fn run(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(args).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    let printed = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {} failed:\n{printed}", args.join(" "));
    Ok(())
}

/// Makes the root file system, its archive `rootfs.tar`, and an image of one layer in the OCI
/// layout `layout`.
///
/// # Errors
/// A program fails; write(2).
pub fn make(folder: &Path) -> anyhow::Result<Made> {
    let text = |name: &str| folder.join(name).display().to_string();
    let (layout, bundle) = (text("layout"), text("bundle"));
    let image = format!("{layout}:latest");
    run("umoci", &["init", "--layout", &layout])?;
    run("umoci", &["new", "--image", &image])?;
    let unpack = [&["unpack", "--image", image.as_str()], rootless()?, &[&bundle]].concat();
    run("umoci", &unpack)?;
    let root = folder.join("bundle/rootfs");
    fill(&root)?;
    run("umoci", &["repack", "--image", &image, &bundle])?;
    let archive = text("rootfs.tar");
    let root_text = root.display().to_string();
    run("tar", &["--sort=name", "--numeric-owner", "-C", &root_text, "-cf", &archive, "."])?;
    Ok(Made { folder: root, archive: archive.into() })
}

/// Makes an image with this archive as its only layer in the OCI layout `layout`.
///
/// # Errors
/// umoci(1) fails.
pub fn one_layer(archive: &Path, layout: &str) -> anyhow::Result<()> {
    let image = format!("{layout}:latest");
    run("umoci", &["init", "--layout", layout])?;
    run("umoci", &["new", "--image", &image])?;
    run("umoci", &["raw", "add-layer", "--image", &image, &archive.display().to_string()])
}

/// Lengths as distributions have them: most files are small, a few have most of the bytes.
fn lengths(random: &mut Random) -> Vec<u64> {
    let length = |number: u64, random: &mut Random| match number % 100 {
        0 => (256 << 10) + random.next() % (1 << 20),
        1..15 => (8 << 10) + random.next() % (56 << 10),
        _ => 64 + random.next() % (8 << 10),
    };
    let mut lengths: Vec<u64> = (0..FILES).map(|number| length(number, random)).collect();
    let sum: u64 = lengths.iter().sum();
    let scaled = |bytes: u64| (u128::from(bytes) * u128::from(BYTES) / u128::from(sum)) as u64;
    lengths.iter_mut().for_each(|bytes| *bytes = scaled(*bytes));
    let rest = BYTES - lengths.iter().sum::<u64>();
    lengths[0] += rest;
    lengths
}

fn fill(root: &Path) -> anyhow::Result<()> {
    let mut random = Random(SEED);
    let lengths = lengths(&mut random);
    for (number, length) in (0..).zip(lengths) {
        let folder = root.join(format!("usr/lib/part-{:03}", number / IN_FOLDER));
        if number % IN_FOLDER == 0 {
            fs::create_dir_all(&folder)?;
        }
        let mut content = Vec::with_capacity(length as usize + 16);
        while (content.len() as u64) < length {
            match number % 2 {
                0 => content.extend(random.next().to_le_bytes()),
                _ => content.extend(WORDS[(random.next() >> 60) as usize].as_bytes()),
            }
        }
        content.truncate(length as usize);
        fs::write(folder.join(format!("file-{number:05}.so")), content)?;
    }
    fs::create_dir_all(root.join("bin"))?;
    fs::create_dir_all(root.join("etc"))?;
    fs::File::create(root.join("etc/os-release"))?.write_all(b"PRETTY_NAME=Bench\n")?;
    Ok(())
}

/// A docker-registry on this host; it ends when this is dropped.
pub struct Registry {
    process: Child,
    /// Address and port.
    pub host: String,
}

impl Registry {
    /// Serves this folder on a port that the kernel chooses.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let config = folder.join("config.yml");
        let settings = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: 127.0.0.1:0\n",
            folder.join("storage").display()
        );
        fs::write(&config, settings)?;
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run docker-registry")?;
        let stderr = process.stderr.take();
        let mut registry = Self { process, host: String::new() };
        // It logs the port.
        let mut lines = BufReader::new(stderr.context("no output")?).lines();
        let host = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("listening on 127.0.0.1:")?;
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            Some(format!("127.0.0.1:{port}"))
        });
        registry.host = host.context("docker-registry names no port")?;
        std::thread::spawn(move || lines.for_each(drop));
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lengths_have_the_sum_and_are_always_the_same() {
        let one = lengths(&mut Random(SEED));
        assert_eq!((one.len() as u64, one.iter().sum::<u64>()), (FILES, BYTES));
        assert_eq!(one, lengths(&mut Random(SEED)));
        let mut sorted = one;
        sorted.sort_unstable();
        assert!(sorted[FILES as usize / 2] < 16 << 10, "most are small");
    }
}
