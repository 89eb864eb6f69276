//! Benchmarks: create-to-ready against the same VM started by hand, and the parts of it.
//!
//! Each figure is the median of alternating runs, because a single run means nothing on a noisy
//! machine:
//!
//! - `create_ready`: `banger vm create` as a whole, against `bench/floor.sh` with the same VMM,
//!   kernel, initramfs and disks; the ratio is the median of the ratios of pairs;
//! - `own_cost_ms`: `banger vm create` with a guest that answers at once, but real disks, sockets,
//!   shim and database: everything but the guest;
//! - `host_cost_ms`: `banger vm start` with a fake Firecracker, see [`host_cost`];
//! - `exec_ms`: `banger exec VM -- /bin/true` on a running VM, the same program in a loop of one
//!   session, and the difference of the medians, which is ours; within it `streams`, the throughput
//!   of commands and copies, see [`bench_streams`];
//! - `images`: imports and pulls beside other programs, see [`bench_images`];
//! - `simulated`: the command line and the daemon with many VMs, see [`bench_simulated`];
//! - `folders` (`--folders` only): live folders, see [`bench_folders`];
//! - `repositories` (`--repositories` only): see [`bench_repositories`];
//! - `faces`: the terminal interface and the web page with many VMs, see [`bench_faces`];
//! - `kernels` (`--kernels` only): the kernel `fast` beside the packaged one, see
//!   [`bench_kernels`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::{bench_faces, bench_folders, bench_images, bench_kernels, bench_repositories};
use crate::{bench_simulated, bench_streams, host_cost};

/// Smallest meaningful number of pairs.
const MIN_PAIRS: usize = 15;
/// Commands before `exec` is measured: the first ones find cold caches in host and guest.
const EXEC_WARM_UP: usize = 10;
/// Programs that the floor and the host's part need, from `scripts/setup.sh test`.
const NEEDED: [&str; 3] = ["socat", "nft", "unshare"];

/// The environment of a benchmark.
#[derive(Debug, Clone)]
pub struct Bench {
    root: PathBuf,
    /// Folder of the measured programs.
    pub programs: PathBuf,
    /// Kernel, image and caches.
    pub home: PathBuf,
    env: Vec<(String, String)>,
}

/// Runs all benchmarks and prints the figures.
///
/// # Errors
/// A program cannot be started; nothing is printed then.
pub fn run(root: &Path, options: &[&str]) -> anyhow::Result<()> {
    let mut pairs = MIN_PAIRS;
    let (mut as_json, mut within, mut only) = (false, false, None);
    let (mut rootfs, mut mib) = (None, 1024);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match *option {
            "--json" => as_json = true,
            "--simulated" | "--faces" | "--images" | "--kernels" | "--folders"
            | "--repositories" => {
                only = Some(*option);
            }
            "--mib" => {
                let size = options.next().context("--mib needs a number")?;
                mib = size.parse().with_context(|| format!("`{size}` is not a number"))?;
            }
            "--rootfs" => {
                rootfs = Some(Path::new(options.next().context("--rootfs needs a path")?))
            }
            host_cost::WITHIN | "--pairs" => {
                within = *option == host_cost::WITHIN;
                let count = options.next().context("--pairs needs a number")?;
                pairs = count.parse().with_context(|| format!("`{count}` is not a number"))?;
            }
            other => bail!("unknown option `{other}`"),
        }
    }
    ensure!(pairs >= MIN_PAIRS, "at least {MIN_PAIRS} pairs are needed to say anything");
    for name in NEEDED {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let system = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
        let found = std::env::split_paths(&folders).chain(system).any(|at| at.join(name).exists());
        ensure!(found, "`{name}` is missing: `make bench` installs it (scripts/setup.sh test)");
    }
    let bench = Bench::new(root)?;
    if within {
        return host_cost::within(&bench, pairs);
    }
    let result = match only {
        Some("--simulated") => bench_simulated::measure(&bench, pairs),
        Some("--faces") => bench_faces::measure(&bench, pairs),
        Some("--kernels") => bench_kernels::measure(&bench, pairs),
        Some("--folders") => bench_folders::measure(&bench),
        Some("--repositories") => bench_repositories::measure(&bench, mib),
        Some(_) => bench_images::measure(&bench, pairs, rootfs),
        None => bench.measure(pairs, rootfs),
    };
    // The daemon of the bench goes whatever happened.
    let _ = bench.banger(&bench.home, &["daemon", "stop"]);
    let figures = result?;
    if as_json {
        println!("{figures}");
    } else {
        println!("{figures:#}");
    }
    Ok(())
}

/// The median.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Rounds to this number of decimal places.
pub fn rounded(value: f64, places: i32) -> f64 {
    let scale = 10f64.powi(places);
    (value * scale).round() / scale
}

impl Bench {
    /// The release programs of this tree, with a home of their own.
    ///
    /// # Errors
    /// They are not built.
    pub fn new(root: &Path) -> anyhow::Result<Self> {
        let programs = root.join("target/release");
        ensure!(programs.join("banger").exists(), "build first: `make build`");
        let home = root.join(".cache/bench");
        Ok(Self { root: root.to_owned(), programs, home, env: Vec::new() })
    }

    /// Adds a variable to the environment of every command.
    pub fn with_env(mut self, env: &[(&str, &str)]) -> Self {
        self.env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        self
    }

    /// The project's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Adds the environment of a home to a command.
    pub fn in_home<'a>(&self, command: &'a mut Command, home: &Path) -> &'a mut Command {
        command.env("BANGER_HOME", home).envs(self.env.iter().map(|(name, value)| (name, value)))
    }

    /// Runs a command and expects success; returns its output.
    pub fn banger(&self, home: &Path, args: &[&str]) -> anyhow::Result<String> {
        let output = self
            .in_home(&mut Command::new(self.programs.join("banger")), home)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .context("cannot run banger")?;
        let printed = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "banger {} failed:\n{printed}", args.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command; returns its duration in milliseconds.
    pub fn timed(&self, home: &Path, args: &[&str]) -> anyhow::Result<f64> {
        let began = Instant::now();
        self.banger(home, args)?;
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    }

    fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        let text = self.banger(&self.home, &[args, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| text)
    }

    fn measure(&self, pairs: usize, rootfs: Option<&Path>) -> anyhow::Result<Value> {
        fs::create_dir_all(&self.home)?;
        // What a bench that was interrupted left; mostly there is nothing.
        for left in ["parts", "bench", "exec"] {
            let _ = self.banger(&self.home, &["vm", "delete", "-f", left]);
        }
        let (ours, floor, ratio) = self.create_ready(pairs)?;
        let exec = self.exec(pairs)?;
        let own = self.own_cost(pairs)?;
        let host = host_cost::outside(pairs)?;
        let simulated = bench_simulated::measure(self, pairs)?;
        let faces = bench_faces::measure(self, pairs)?;
        let images = bench_images::measure(self, pairs, rootfs)?;
        Ok(json!({
            "create_ready": {
                "ratio": rounded(ratio, 3),
                "n": pairs,
                "ours_ms": rounded(ours, 1),
                "floor_ms": rounded(floor, 1),
            },
            "own_cost_ms": {"median": rounded(own, 1), "n": pairs},
            "host_cost_ms": host,
            "exec_ms": exec,
            "faces": faces,
            "images": images,
            "simulated": simulated,
        }))
    }

    /// Medians of ours and of the floor in milliseconds, and the median of their ratios.
    fn create_ready(&self, pairs: usize) -> anyhow::Result<(f64, f64, f64)> {
        // Fetches kernel and image, fills every cache, and leaves a VM to take the floor's parts
        // from.
        self.banger(&self.home, &["vm", "create", "--name", "parts", "--vcpus", "1"])?;
        let floor = self.floor_arguments()?;
        self.banger(&self.home, &["vm", "delete", "-f", "parts"])?;
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for pair in 0..pairs {
            // Who begins alternates too, so that what one leaves in caches favours neither.
            let (mine, other) = if pair % 2 == 0 {
                let mine = self.create()?;
                (mine, self.floor(&floor)?)
            } else {
                let other = self.floor(&floor)?;
                (self.create()?, other)
            };
            eprintln!("pair {:2}: ours {mine:.0} ms, floor {other:.0} ms", pair + 1);
            ours.push(mine);
            theirs.push(other);
            ratios.push(mine / other);
        }
        Ok((median(&ours), median(&theirs), median(&ratios)))
    }

    fn create(&self) -> anyhow::Result<f64> {
        let took =
            self.timed(&self.home, &["vm", "create", "-q", "--name", "bench", "--vcpus", "1"])?;
        self.banger(&self.home, &["vm", "delete", "-f", "bench"])?;
        Ok(took)
    }

    fn floor(&self, arguments: &[String]) -> anyhow::Result<f64> {
        let output = Command::new(self.root.join("bench/floor.sh"))
            .args(arguments)
            .env("VHOST_DEVICE_VSOCK", self.programs.join("vhost-device-vsock"))
            .output()
            .context("cannot run bench/floor.sh")?;
        let printed = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "bench/floor.sh failed:\n{printed}");
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().parse().with_context(|| format!("bench/floor.sh printed `{text}`"))
    }

    /// The parts of a VM of ours, as arguments of `bench/floor.sh`: taken from its running QEMU.
    fn floor_arguments(&self) -> anyhow::Result<Vec<String>> {
        let show = self.json(&["vm", "show", "parts"])?;
        let pid = show["pid"].as_u64().context("no pid")?;
        let line = fs::read(format!("/proc/{pid}/cmdline"))?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<&str> = line.split('\0').collect();
        let value = |name: &str| {
            let at = words.iter().position(|word| *word == name);
            at.and_then(|at| words.get(at + 1)).copied().with_context(|| format!("no {name}"))
        };
        let append = value("-append")?.to_owned();
        // QEMU moves received descriptors into its fd sets, so files are identified by name.
        let open: Vec<PathBuf> = fs::read_dir(format!("/proc/{pid}/fd"))?
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .collect();
        let file = |folder: &str, end: &str| -> anyhow::Result<String> {
            let found = open
                .iter()
                .map(|path| path.display().to_string())
                .find(|path| path.contains(&format!("/{folder}/")) && path.ends_with(end));
            found.with_context(|| format!("QEMU has no {folder} file {end} open"))
        };
        let kernel = file("kernels", "vmlinux")?;
        let initramfs = file("initramfs", ".cpio")?;
        let modules = file("kernels", "modules.ext4")?;
        let image = file("images", "root.ext4")?;
        let blank = |name: &str| -> anyhow::Result<String> {
            let folder = self.home.join("cache/blank");
            let found = fs::read_dir(&folder)?.flatten().map(|entry| entry.path()).find(|path| {
                let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
                file.starts_with(name) && file.ends_with(".ext4")
            });
            Ok(found.with_context(|| format!("no blank {name}"))?.display().to_string())
        };
        let config = self.home.join("floor.json");
        fs::write(&config, format!("{}\n", floor_config()))?;
        let memory = show["memory_mib"].as_u64().context("no memory")?.to_string();
        let config = config.display().to_string();
        let (root, work) = (blank("layer")?, blank("work")?);
        Ok(vec![config, kernel, initramfs, modules, image, root, work, append, memory])
    }

    fn exec(&self, runs: usize) -> anyhow::Result<Value> {
        self.banger(&self.home, &["vm", "create", "-q", "--name", "exec", "--vcpus", "1"])?;
        // Until the guest's init has settled, its start-up is what would be measured. `--wait` does
        // not wait for the bus, which is not there at first.
        let settle = "for n in $(seq 300); do case $(systemctl is-system-running 2>&1) in \
                      running|degraded) exit 0;; esac; sleep 0.2; done; exit 1";
        self.banger(&self.home, &["exec", "exec", "--", "sh", "-c", settle])?;
        // The same program in a loop of one session: what the command itself takes.
        let loop_of_it = "begin=$(date +%s%N); for n in $(seq 20); do /bin/true; done; \
                          echo $((($(date +%s%N) - begin) / 20000))";
        let in_loop = ["exec", "exec", "--", "sh", "-c", loop_of_it];
        // In series, not alternating: right after a loop the guest still reclaims its processes.
        let mut whole = Vec::new();
        for run in 0..EXEC_WARM_UP + runs {
            let took = self.timed(&self.home, &["exec", "exec", "--", "/bin/true"])?;
            if run >= EXEC_WARM_UP {
                whole.push(took);
            }
        }
        let mut command = Vec::new();
        for _ in 0..runs {
            let microseconds = self.banger(&self.home, &in_loop)?;
            command.push(microseconds.trim().parse::<f64>()? / 1000.0);
        }
        let streams = bench_streams::measure(self, "exec")?;
        self.banger(&self.home, &["vm", "delete", "-f", "exec"])?;
        let (whole, command) = (median(&whole), median(&command));
        Ok(json!({
            "median": rounded(whole, 1),
            "command_ms": rounded(command, 1),
            "own_ms": rounded(whole - command, 1),
            "n": runs,
            "streams": streams,
        }))
    }

    /// Everything but the guest: a fake program that answers at once stands in for QEMU and its
    /// companion.
    fn own_cost(&self, runs: usize) -> anyhow::Result<f64> {
        let status = crate::cargo::command()
            .current_dir(&self.root)
            .args(["build", "--quiet", "--release", "--package", "banger-testkit"])
            .status()?;
        ensure!(status.success(), "the fake guest did not build");
        let home = self.home.join("own-cost");
        fs::create_dir_all(home.join("config"))?;
        let fake = self.programs.join("fake-guest").display().to_string();
        let config = format!("qemu_bin = \"{fake}\"\nvhost_device_vsock_bin = \"{fake}\"\n");
        fs::write(home.join("config/config.toml"), config)?;
        for shared in ["data", "cache"] {
            let link = home.join(shared);
            if !link.exists() {
                std::os::unix::fs::symlink(self.home.join(shared), link)?;
            }
        }
        let one = || {
            let took = self.timed(&home, &["vm", "create", "-q", "--name", "own"]);
            self.banger(&home, &["vm", "delete", "-f", "own"])?;
            took
        };
        let times =
            one().and_then(|_| (0..runs).map(|_| one()).collect::<anyhow::Result<Vec<f64>>>());
        let _ = self.banger(&home, &["daemon", "stop"]);
        Ok(median(&times?))
    }
}

/// Configuration of the floor's guest, equal to ours.
fn floor_config() -> Value {
    json!({
        "protocol": 1,
        "hostname": "floor",
        "machine_id": "0123456789abcdef0123456789abcdef",
        "root": {"disk": {"serial": "image"}, "layer": {"serial": "root"}},
        "work": {"serial": "work"},
        "modules": {"serial": "modules"},
        "network": {
            "mac": "02:00:00:00:00:01",
            "addresses": ["10.0.2.15/24"],
            "gateway": "10.0.2.2",
            "dns": ["10.0.2.3"],
            "search": [],
            "mtu": null,
        },
        "files": [],
        "env": {},
        "clock_unix_ms": 0,
        "entropy": "",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).is_nan());
        assert!((rounded(1.2345, 2) - 1.23).abs() < 1e-9);
    }
}
