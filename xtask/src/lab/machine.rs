//! One run of the lab: QEMU, its disks and its output.
//!
//! A run leaves only its logs: writes to disks go to temporary layers, the kernel kills QEMU when
//! this process dies, and the run's folder is removed as soon as QEMU has opened its files.

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::durations::Durations;
use super::image::Image;
use super::report::Fault;
use super::{must, remove};

/// Runs whose logs are kept.
const KEPT_LOGS: usize = 10;
/// Memory of the lab: guests of 512 MiB, ten of them at once.
const MEMORY: &str = "6G";
/// Virtual CPUs, as many as the test machines have.
const CPUS: &str = "2";
/// Without a heartbeat for this long, the lab counts as frozen. It sends one every five seconds.
const FROZEN: Duration = Duration::from_secs(60);

/// The last words of a kernel.
const PANIC: &str = "Kernel panic - not syncing";
/// Limit of the captured output in bytes; all tests together print less.
const MAX_SAID: usize = 64 << 20;
/// Socket of the QEMU monitor, beside the logs.
const MONITOR: &str = "monitor";

/// Input of a run.
pub struct Job {
    /// Root file system, kernel and initramfs.
    pub image: Image,
    /// This run's programs and command.
    pub payload: PathBuf,
    /// Kernels and images for guests.
    pub cache: Option<PathBuf>,
    /// Maximum duration; the lab is killed afterwards.
    pub timeout: Duration,
    /// The terminal of an interactive run.
    pub terminal: Option<Terminal>,
}

/// How a run ended.
pub struct Ended {
    /// How.
    pub how: How,
    /// All its output.
    pub said: String,
    /// How long each test in it took.
    pub durations: Durations,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// With the exit code of what ran in the lab.
    Exited(u8),
    /// By a fault of the emulation, before its end.
    Broken(Fault),
    /// Killed when its time was over, after this many seconds.
    OutOfTime(u64),
}

/// The caller's terminal in raw mode; dropping this restores its settings.
pub struct Terminal {
    size: String,
    kind: String,
    settings: String,
}

impl Terminal {
    /// The terminal on standard input, if it is one.
    pub fn of_ours() -> Option<Self> {
        let stty = |word: &str| {
            let output = Command::new("stty").arg(word).stdin(Stdio::inherit()).output().ok()?;
            let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
            output.status.success().then_some(text)
        };
        let kind = std::env::var("TERM").unwrap_or_else(|_| "linux".to_owned());
        Some(Self { size: stty("size")?, kind, settings: stty("-g")? })
    }
}

/// `ROWS COLUMNS TERM`.
impl fmt::Display for Terminal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.size, self.kind)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // QEMU restores it as well, unless it was killed.
        let _ = Command::new("stty").arg(&self.settings).status();
    }
}

/// Folders of one run.
pub struct RunFolder {
    /// Disks; removed once QEMU has opened them, or on drop.
    pub path: PathBuf,
    /// Logs, and in `out` what the lab left in `$LAB_OUT`.
    logs: PathBuf,
    /// Lock held during the run; it distinguishes live runs from leftovers of killed ones.
    _lock: fs::File,
}

impl RunFolder {
    /// Creates the folders, and removes leftovers of killed runs.
    ///
    /// # Errors
    /// A folder cannot be created or removed.
    pub fn new(lab: &Path) -> anyhow::Result<Self> {
        let _lab = super::lock(lab)?;
        let (runs, all_logs) = (lab.join("runs"), lab.join("logs"));
        fs::create_dir_all(&runs)?;
        fs::create_dir_all(&all_logs)?;
        for entry in fs::read_dir(&runs)?.flatten() {
            let abandoned = fs::File::open(entry.path().join("lock"))
                .map_or(true, |lock| lock.try_lock().is_ok());
            if abandoned {
                remove(&entry.path())?;
            }
        }
        let output = Command::new("date").arg("+%Y%m%d-%H%M%S").output()?;
        let time = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let name = format!("{time}-{}", std::process::id());
        let (path, logs) = (runs.join(&name), all_logs.join(&name));
        fs::create_dir(&path)?;
        fs::create_dir(&logs)?;
        let lock = fs::File::create(path.join("lock"))?;
        lock.lock()?;
        let latest = all_logs.join("latest");
        remove(&latest)?;
        std::os::unix::fs::symlink(&name, &latest)?;
        let out = lab.join("out");
        remove(&out)?;
        std::os::unix::fs::symlink(Path::new("logs").join(&name).join("out"), &out)?;
        keep_newest(&all_logs)?;
        Ok(Self { path, logs, _lock: lock })
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // What is left now is removed by the next run.
        let _ = remove(&self.path);
    }
}

fn keep_newest(logs: &Path) -> anyhow::Result<()> {
    let mut all: Vec<PathBuf> = fs::read_dir(logs)?.flatten().map(|entry| entry.path()).collect();
    all.retain(|path| !path.ends_with("latest"));
    all.sort();
    for old in all.iter().rev().skip(KEPT_LOGS) {
        remove(old)?;
    }
    Ok(())
}

/// QEMU, killed when dropped.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots the lab, prints its output, and waits for its end.
///
/// # Errors
/// QEMU cannot be started, or the lab ended without a verdict.
pub fn run(run: &RunFolder, job: &Job) -> anyhow::Result<Ended> {
    eprintln!("lab: booting (logs: {})", run.logs.display());
    let mut command = qemu(run, job);
    if job.terminal.is_none() {
        // An end of file on its input would disconnect the lab's channel, so this pipe stays open.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
    }
    command.stderr(fs::File::create(run.logs.join("qemu.log"))?);
    let child = command.spawn().context("cannot run `setpriv`: install `util-linux`")?;
    let mut qemu = Qemu(child);
    let output = fs::File::create(run.logs.join("output.log"))?;
    let shown = qemu.0.stdout.take().map(|stdout| thread::spawn(move || show(stdout, output)));
    let waited = wait(&mut qemu, run, job);
    drop(qemu);
    remove(&run.logs.join(MONITOR))?;
    let (said, durations) = match shown.map(thread::JoinHandle::join) {
        None => (String::new(), Durations::default()),
        Some(Ok(shown)) => shown?,
        Some(Err(_)) => bail!("the thread that shows the output panicked"),
    };
    Ok(Ended { how: waited?, said, durations })
}

/// Detects heartbeats: each one makes a file grow.
struct Pulse {
    file: PathBuf,
    seen: u64,
    at: Instant,
}

impl Pulse {
    fn new(file: PathBuf) -> Self {
        Self { file, seen: 0, at: Instant::now() }
    }

    /// Whether heartbeats have begun and then stopped.
    fn has_stopped(&mut self) -> bool {
        let length = fs::metadata(&self.file).map_or(0, |file| file.len());
        if length != self.seen {
            (self.seen, self.at) = (length, Instant::now());
        }
        self.seen > 0 && self.at.elapsed() > FROZEN
    }
}

fn wait(qemu: &mut Qemu, run: &RunFolder, job: &Job) -> anyhow::Result<How> {
    let began = Instant::now();
    let parent = std::os::unix::process::parent_id();
    let mut opened = false;
    let mut pulse = Pulse::new(run.logs.join("alive"));
    while qemu.0.try_wait()?.is_none() {
        if began.elapsed() > job.timeout {
            return Ok(How::OutOfTime(job.timeout.as_secs()));
        }
        if pulse.has_stopped() {
            note_processors(run);
            return Ok(How::Broken(Fault::Froze));
        }
        if std::os::unix::process::parent_id() != parent {
            bail!("the parent process of the lab has ended");
        }
        // The first kernel messages appear after QEMU has opened its disks.
        if !opened && fs::metadata(run.logs.join("boot.log")).is_ok_and(|log| log.len() > 0) {
            opened = true;
            remove(&run.path)?;
        }
        thread::sleep(Duration::from_millis(50));
    }
    if !has_result(run) && has_panicked(run) {
        return Ok(How::Broken(Fault::Panicked));
    }
    Ok(How::Exited(verdict(run)?))
}

/// Whether the kernel of the lab wrote its last words.
fn has_panicked(run: &RunFolder) -> bool {
    let boot = fs::read(run.logs.join("boot.log")).unwrap_or_default();
    String::from_utf8_lossy(&boot).contains(PANIC)
}

/// Whether the lab has sent its result.
fn has_result(run: &RunFolder) -> bool {
    fs::metadata(run.logs.join("result.tar")).is_ok_and(|archive| archive.len() > 0)
}

/// Saves the state of QEMU's virtual CPUs, if QEMU answers, to find the cause of the freeze.
fn note_processors(run: &RunFolder) {
    let ask = || -> std::io::Result<Vec<u8>> {
        // Through the folder's descriptor, because the length of a socket's path is limited.
        let folder = fs::File::open(&run.logs)?;
        let path = format!("/proc/self/fd/{}/{MONITOR}", folder.as_raw_fd());
        let mut monitor = UnixStream::connect(path)?;
        monitor.set_read_timeout(Some(Duration::from_secs(2)))?;
        monitor.write_all(b"info status\ninfo cpus\ninfo registers -a\n")?;
        let mut said = Vec::new();
        // The read ends with the timeout.
        let _ = monitor.read_to_end(&mut said);
        if said.is_empty() { Err(std::io::ErrorKind::TimedOut.into()) } else { Ok(said) }
    };
    let answer = ask().unwrap_or_else(|error| format!("no answer: {error}\n").into_bytes());
    let _ = fs::write(run.logs.join("frozen.log"), answer);
}

/// Copies output to ours and to the log as it comes; returns it, and how long each test took.
fn show(mut from: impl Read, mut log: fs::File) -> anyhow::Result<(String, Durations)> {
    let mut said: Vec<u8> = Vec::new();
    let mut durations = Durations::default();
    let mut buffer = [0; 8192];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok((String::from_utf8_lossy(&said).into_owned(), durations));
        }
        let bytes = &buffer[..count];
        durations.observe(bytes, Instant::now());
        let mut ours = std::io::stdout().lock();
        ours.write_all(bytes)?;
        ours.flush()?;
        log.write_all(bytes)?;
        let room = MAX_SAID.saturating_sub(said.len()).min(count);
        said.extend_from_slice(&bytes[..room]);
    }
}

/// Unpacks the result archive of the lab; it contains the exit code.
fn verdict(run: &RunFolder) -> anyhow::Result<u8> {
    let archive = run.logs.join("result.tar");
    ensure!(has_result(run), "the lab ended without a verdict; see {}", run.logs.display());
    let mut unpack = Command::new("tar");
    unpack.args(["--no-same-owner", "--no-same-permissions", "-xf"]).arg(&archive);
    must(unpack.arg("-C").arg(&run.logs), "the result archive of the lab is incomplete")?;
    remove(&archive)?;
    let code =
        fs::read_to_string(run.logs.join("exit-code")).context("the lab sent no exit code")?;
    code.trim().parse().with_context(|| format!("`{}` is no exit code", code.trim()))
}

fn qemu(run: &RunFolder, job: &Job) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64", "-name", "lab"]);
    // QEMU creates its unnamed temporary layers in this folder.
    command.env("TMPDIR", run.path.parent().unwrap_or(&run.path));
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,+svm"]);
    command.args(["-smp", CPUS, "-m", MEMORY, "-nic", "user,model=virtio-net-pci,ipv6=off"]);
    command.args(["-object", "rng-random,id=random,filename=/dev/urandom"]);
    command.args(["-device", "virtio-rng-pci,rng=random", "-device", "virtio-serial-pci"]);
    command.arg("-kernel").arg(&job.image.kernel).arg("-initrd").arg(&job.image.initrd);
    // QEMU before 8.0 keeps what it translated by virtual address: with random ones it translates a
    // program again at each start, and a command takes up to four times as long.
    command.args(["-append", "root=LABEL=lab rw console=ttyS0 net.ifnames=0 panic=1 norandmaps"]);
    let mut disks = vec![("lab", &job.image.disk), ("payload", &job.payload)];
    disks.extend(job.cache.as_ref().map(|cache| ("cache", cache)));
    for (name, file) in disks {
        let file = file.display();
        command.arg("-drive").arg(format!(
            "if=none,id={name},file={file},format=raw,snapshot=on,cache=unsafe,discard=unmap"
        ));
        command.arg("-device").arg(format!("virtio-blk-pci,drive={name},serial={name}"));
    }
    let log = |name: &str| run.logs.join(name).display().to_string();
    command.arg("-chardev").arg(format!("file,id=boot,path={}", log("boot.log")));
    command.args(["-serial", "chardev:boot"]);
    command.arg("-chardev").arg(format!("file,id=result,path={}", log("result.tar")));
    command.args(["-device", "virtserialport,chardev=result,name=lab.result"]);
    command.arg("-chardev").arg(format!("file,id=alive,path={}", log("alive")));
    command.args(["-device", "virtserialport,chardev=alive,name=lab.alive"]);
    command.args(["-mon", "chardev=monitor,mode=readline"]).arg("-chardev");
    // The length of a socket's path is limited, so it is relative to QEMU's folder, the logs.
    command.arg(format!("socket,id=monitor,path={MONITOR},server=on,wait=off"));
    command.current_dir(&run.logs);
    command.args(["-chardev", "stdio,id=io,signal=off"]);
    // A plain channel for a program, a terminal for an interactive run.
    command.args(match job.terminal {
        None => ["-device", "virtserialport,chardev=io,name=lab.io"],
        Some(_) => ["-device", "virtconsole,chardev=io"],
    });
    command
}
