//! Imports and pulls of images beside the programs that do the same: `mke2fs -d`, `umoci unpack`
//! and `skopeo copy`.
//!
//! The root file system has 200 MiB in 12,000 files and is made from a fixed seed. All runs of one
//! figure alternate; ratios are medians of the ratios of rounds:
//!
//! - `import`: `banger image import` of its tar archive; `beyond_reading_ms` is without the time
//!   that reading the archive takes; `mke2fs -d` writes the same files from a folder;
//! - `pull`: `banger image pull` from a registry on this host, with no layer in the cache, against
//!   the longer of `skopeo copy` to an OCI layout and `umoci unpack` of that;
//! - `memory_mib`: the largest resident memory of the worker and the daemon during both;
//! - `disk_ratio`: the largest number of bytes allocated in the data folder during a run, divided
//!   by those of the image;
//! - `rootfs`: an import of the archive that `--rootfs` names, and `disk_ratio` of a pull of it as
//!   one layer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::bench::{Bench, median, rounded};
use crate::bench_images_set as set;
use crate::bench_usage::{Peaks, watch};

/// Programs that are measured beside ours, or that make the images, from `scripts/setup.sh test`.
const NEEDED: [&str; 5] = ["mke2fs", "umoci", "skopeo", "docker-registry", "tar"];
/// Name of the imported image.
const IMAGE: &str = "bench";

/// All figures; removes what it made. `rootfs` is a further archive to import.
///
/// # Errors
/// A program is missing or fails.
pub fn measure(bench: &Bench, rounds: usize, rootfs: Option<&Path>) -> anyhow::Result<Value> {
    for name in NEEDED {
        let found = Command::new("sh").args(["-c", "command -v \"$0\"", name]).output()?;
        ensure!(found.status.success(), "`{name}` is missing: scripts/setup.sh test installs it");
    }
    let folder = bench.home.join("images-bench");
    // What a bench that was interrupted left.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let home = folder.join("home");
    let images = Images { bench: bench.clone(), home, folder: folder.clone() };
    let measured = images.figures(rounds, rootfs);
    let _ = bench.banger(&images.home, &["daemon", "stop"]);
    let _ = fs::remove_dir_all(&folder);
    measured
}

struct Images {
    bench: Bench,
    home: PathBuf,
    folder: PathBuf,
}

/// Runs a program; its duration in milliseconds.
fn timed(program: &str, args: &[&str]) -> anyhow::Result<f64> {
    let began = Instant::now();
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    let took = began.elapsed().as_secs_f64() * 1000.0;
    let printed = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {} failed:\n{printed}", args.join(" "));
    Ok(took)
}

/// Milliseconds that reading a file takes.
fn read(path: &Path) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 18];
    while std::io::Read::read(&mut file, &mut buffer)? > 0 {}
    Ok(began.elapsed().as_secs_f64() * 1000.0)
}

fn middle(values: &[f64]) -> f64 {
    rounded(median(values), 1)
}

impl Images {
    fn text(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn figures(&self, rounds: usize, rootfs: Option<&Path>) -> anyhow::Result<Value> {
        let made = set::make(&self.folder)?;
        let registry = set::Registry::start(&self.folder.join("registry"))?;
        let reference = publish(&registry, "bench", &self.text("layout"))?;
        self.bench.banger(&self.home, &["daemon", "start"])?;
        let import = self.import(rounds, &made.archive, Some(&made.folder))?;
        // Fewer: what umoci has unpacked is removed at the end only.
        let pull = self.pull(rounds.div_ceil(3), &reference)?;
        let imported = self.peak_of_import(&made.archive)?;
        let pulled = self.peak_of_pull(&reference)?;
        let ratio = |peaks: &Peaks| rounded(peaks.disk as f64 / peaks.left as f64, 2);
        let other = match rootfs {
            Some(path) => {
                let mut other = self.import(rounds, path, None)?;
                let layout = self.text("rootfs-layout");
                set::one_layer(path, &layout)?;
                let peaks = self.peak_of_pull(&publish(&registry, "rootfs", &layout)?)?;
                other["disk_ratio"] = json!(ratio(&peaks));
                other
            }
            None => Value::Null,
        };
        let mib = |kib: u64| rounded(kib as f64 / 1024.0, 1);
        Ok(json!({
            "import": import,
            "pull": pull,
            "memory_mib": {
                "worker": mib(imported.worker_kib.max(pulled.worker_kib)),
                "daemon": mib(imported.daemon_kib.max(pulled.daemon_kib)),
            },
            "disk_ratio": {"import": ratio(&imported), "pull": ratio(&pulled)},
            "rootfs": other,
        }))
    }

    fn import(
        &self,
        rounds: usize,
        archive: &Path,
        folder: Option<&Path>,
    ) -> anyhow::Result<Value> {
        let (mut ours, mut reads, mut beyond) = (Vec::new(), Vec::new(), Vec::new());
        let (mut theirs, mut ratios) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let other = || folder.map(|folder| self.mke2fs(folder)).transpose();
            // Who begins alternates, so that what one leaves in caches favours neither.
            let before = if round % 2 == 1 { other()? } else { None };
            let reading = read(archive)?;
            let mine = self.import_once(archive)?;
            let other = if round % 2 == 0 { other()? } else { before };
            self.forget(IMAGE)?;
            ours.push(mine);
            reads.push(reading);
            beyond.push(mine - reading);
            if let Some(other) = other {
                theirs.push(other);
                ratios.push(mine / other);
            }
            let shown = other.map(|other| format!(", mke2fs {other:.0} ms")).unwrap_or_default();
            eprintln!("import {:2}: ours {mine:.0} ms, reading {reading:.0} ms{shown}", round + 1);
        }
        let mut figures = json!({
            "ours_ms": middle(&ours),
            "read_ms": middle(&reads),
            "beyond_reading_ms": middle(&beyond),
            "n": rounds,
        });
        if folder.is_some() {
            figures["mke2fs_ms"] = json!(middle(&theirs));
            figures["ratio"] = json!(rounded(median(&ratios), 2));
        }
        Ok(figures)
    }

    fn import_once(&self, archive: &Path) -> anyhow::Result<f64> {
        let archive = archive.display().to_string();
        self.bench.timed(&self.home, &["image", "import", "-q", "--name", IMAGE, &archive])
    }

    /// Removes an image and all downloaded layers.
    fn forget(&self, image: &str) -> anyhow::Result<()> {
        self.bench.banger(&self.home, &["image", "delete", image])?;
        match fs::remove_dir_all(self.home.join("data/layers")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn mke2fs(&self, folder: &Path) -> anyhow::Result<f64> {
        let (target, folder) = (self.text("mke2fs.ext4"), folder.display().to_string());
        let _ = fs::remove_file(&target);
        let took = timed("mke2fs", &["-q", "-t", "ext4", "-d", &folder, &target, "400M"])?;
        fs::remove_file(&target)?;
        Ok(took)
    }

    fn pull(&self, rounds: usize, reference: &str) -> anyhow::Result<Value> {
        let (mut ours, mut ratios) = (Vec::new(), Vec::new());
        let (mut downloads, mut unpacks) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let before = if round % 2 == 1 { Some(self.others(round, reference)?) } else { None };
            let mine = self.bench.timed(&self.home, &["image", "pull", "-q", reference])?;
            self.forget(reference)?;
            let (download, unpack) = match before {
                Some(known) => known,
                None => self.others(round, reference)?,
            };
            let (number, longer) = (round + 1, download.max(unpack));
            eprintln!(
                "pull {number:2}: ours {mine:.0} ms, skopeo {download:.0} ms, umoci {unpack:.0} ms"
            );
            ours.push(mine);
            downloads.push(download);
            unpacks.push(unpack);
            ratios.push(mine / longer);
        }
        Ok(json!({
            "ours_ms": middle(&ours),
            "skopeo_ms": middle(&downloads),
            "umoci_ms": middle(&unpacks),
            "ratio": rounded(median(&ratios), 2),
            "n": rounds,
        }))
    }

    /// Durations of `skopeo copy` and `umoci unpack`. What they write is removed at the end: ext4
    /// makes files slowly where others were deleted in the last seconds.
    fn others(&self, round: usize, reference: &str) -> anyhow::Result<(f64, f64)> {
        let layout = self.folder.join(format!("copied-{round}"));
        let bundle = self.folder.join(format!("copied-bundle-{round}"));
        let image = format!("{}:latest", layout.display());
        let (from, to) = (format!("docker://{reference}"), format!("oci:{image}"));
        let download = timed("skopeo", &["copy", "-q", "--src-tls-verify=false", &from, &to])?;
        let bundle_text = bundle.display().to_string();
        let unpack = [&["unpack", "--image", &image], set::rootless()?, &[&bundle_text]].concat();
        Ok((download, timed("umoci", &unpack)?))
    }

    /// Memory and disk space of one import, which is not timed.
    fn peak_of_import(&self, archive: &Path) -> anyhow::Result<Peaks> {
        let data = self.home.join("data");
        let (imported, result) = watch(self.daemon()?, &data, || self.import_once(archive));
        result?;
        self.forget(IMAGE)?;
        Ok(imported)
    }

    /// Memory and disk space of one pull, which is not timed.
    fn peak_of_pull(&self, reference: &str) -> anyhow::Result<Peaks> {
        let data = self.home.join("data");
        let pull = || self.bench.banger(&self.home, &["image", "pull", "-q", reference]);
        let (mut pulled, result) = watch(self.daemon()?, &data, pull);
        result?;
        // The image without its layers.
        pulled.left = crate::bench_usage::allocated(&data.join("images"));
        self.forget(reference)?;
        Ok(pulled)
    }

    /// Process of the daemon.
    fn daemon(&self) -> anyhow::Result<u64> {
        let status = self.bench.banger(&self.home, &["daemon", "status", "--json"])?;
        serde_json::from_str::<Value>(&status)?["pid"].as_u64().context("no pid")
    }
}

/// Copies the image of a layout to the registry; its reference.
fn publish(registry: &set::Registry, name: &str, layout: &str) -> anyhow::Result<String> {
    let reference = format!("{}/{name}:1", registry.host);
    let (source, target) = (format!("oci:{layout}:latest"), format!("docker://{reference}"));
    timed("skopeo", &["copy", "-q", "--dest-tls-verify=false", &source, &target])?;
    Ok(reference)
}
