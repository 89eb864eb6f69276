//! Runs a VMM in its jail: a shim that waits at its gate, opened once its identity is on record
//! with whoever asked; and the end of both.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use banger_shim::{
    CappedLog, Child, EXIT_FILE, ExitStory, Jailed, Proc, STATE_FILE, ShimConfig, ShimEvent,
    ShimState,
};
use banger_sys::fs::{Durability, open_folder, write_atomically};
use banger_sys::proc::{ProcId, Waited, wait};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use serde::de::DeserializeOwned;

use crate::error::{Kind, RootError};
use crate::id::Id;
use crate::jail::{self, API, LOG, METRICS};
use crate::places::{CGROUP, Places};
use crate::programs::Programs;
use crate::words::{Alive, Did, Launch, RunFacts};

/// In the shim's folder: the shim itself, as it was started.
const SPAWNED: &str = "spawned.json";
/// Bytes of console and VMM log before they are rotated.
const LOG_CAP: u64 = 4 << 20;
/// How long jailer and VMM may take until the VMM's API is there.
const READY_TIMEOUT_MS: u64 = 20_000;
/// How long the shim may take to say so.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(25);
/// How long the shim may take to end its VMM when asked, before both are killed.
const END_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a killed process may take to be gone.
const GONE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest file of a shim's that is read.
const MAX_FILE: u64 = 1 << 20;
/// Most characters of what a program said last.
const MAX_SAID: usize = 500;
/// Longest status line.
const MAX_STATUS: u64 = 64 * 1024;
/// Most vCPUs that Firecracker gives a guest.
const MAX_VCPUS: u32 = 32;
/// Most memory that a guest may have, in MiB.
const MAX_MEMORY_MIB: u64 = 16 << 20;
/// Threads and processes of a VMM beside one for each vCPU.
const OTHER_THREADS: u32 = 16;
/// Memory of a VMM beside its guest's, in MiB, and the part of the guest's that page tables take.
const OTHER_MEMORY_MIB: u64 = 96;
const PAGE_TABLES: u64 = 64;

/// A shim that waits for its configuration. Dropping it makes the shim exit.
pub struct Gate {
    shim: Proc,
    gate: ChildStdin,
    status: ChildStdout,
    folder: PathBuf,
}

fn alive(proc: Proc) -> bool {
    ProcId::from(proc).is_alive()
}

fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> Option<T> {
    let mut text = Vec::new();
    File::open(folder.join(name)).ok()?.take(MAX_FILE).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Forgets state and story of an earlier run.
///
/// # Errors
/// unlink(2).
pub fn forget(places: &Places, vm: &Id) -> Result<(), RootError> {
    for name in [STATE_FILE, EXIT_FILE, SPAWNED] {
        let path = places.shim(vm).join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(RootError::on_path("remove", &path, &error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Starts a shim; it does nothing until [`Gate::open`].
///
/// # Errors
/// There is no jail, or the shim cannot be started.
pub fn spawn(places: &Places, programs: &Programs, vm: &Id) -> Result<Gate, RootError> {
    let root = jail::find(places, vm)?;
    let log = places.logs(vm).join("shim.log");
    let stderr = OpenOptions::new().append(true).create(true).mode(0o600).open(&log);
    let stderr = stderr.map_err(|error| RootError::on_path("open", &log, &error))?;
    let mut child = Command::new(&programs.shim)
        .current_dir(&root)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .map_err(|error| RootError::on_path("start", &programs.shim, &error))?;
    let pipes = child.stdin.take().zip(child.stdout.take());
    let id = ProcId::of(child.id());
    // It outlives whoever started it; while that lives, it has to be reaped.
    std::thread::spawn(move || child.wait());
    let gone = || RootError::new(Kind::Died, format!("the shim of {vm} is gone"));
    let (gate, status) = pipes.ok_or_else(gone)?;
    let shim = Proc::from(id.ok_or_else(gone)?);
    let folder = places.shim(vm);
    let noted = open_folder(&folder).and_then(|folder| {
        write_atomically(folder, SPAWNED, &serde_json::to_vec(&shim)?, Durability::Cached)
    });
    // A shim that nobody knows of must not come to life: the gate is dropped then.
    noted.map_err(|error| RootError::on_path("write to", &folder, &error))?;
    Ok(Gate { shim, gate, status, folder })
}

/// The last that a program said, made harmless; jailer and VMM say there why they end.
fn last_line(log: &str) -> Option<String> {
    let line = log.lines().rfind(|line| !line.trim().is_empty())?;
    Some(line.chars().take(MAX_SAID).map(|c| if c.is_control() { ' ' } else { c }).collect())
}

impl Gate {
    /// Who waits there.
    pub fn shim(&self) -> Proc {
        self.shim
    }

    /// Lets the shim start the VMM in its jail; returns when the VMM's API is there.
    ///
    /// # Errors
    /// Limits that are out of bounds, or what jailer or VMM failed at.
    pub fn open(mut self, config: &ShimConfig) -> Result<Proc, RootError> {
        let failed = |error: &io::Error| RootError::system("start the VMM", error);
        let mut line = serde_json::to_vec(config).map_err(|error| failed(&error.into()))?;
        line.push(b'\n');
        self.gate.write_all(&line).map_err(|error| failed(&error))?;
        drop(self.gate);
        let limit = Timespec { tv_sec: LAUNCH_TIMEOUT.as_secs().cast_signed(), tv_nsec: 0 };
        let status = self.status.as_fd();
        let said = poll(&mut [PollFd::from_borrowed_fd(status, PollFlags::IN)], Some(&limit));
        if said.map_err(|error| failed(&error.into()))? == 0 {
            return Err(failed(&io::ErrorKind::TimedOut.into()));
        }
        let mut answer = Vec::new();
        let read = BufReader::new(self.status.take(MAX_STATUS)).read_until(b'\n', &mut answer);
        read.map_err(|error| failed(&error))?;
        match serde_json::from_slice(&answer) {
            Ok(ShimEvent::Started(state)) => Ok(state.vmm),
            Ok(ShimEvent::Failed { step, message }) => {
                let mut error = RootError::new(Kind::Died, "the VMM could not be started");
                error.causes.push(format!("{step}: {message}"));
                // The shim tells its story first.
                let story = self::read::<ExitStory>(&self.folder, EXIT_FILE);
                error.causes.extend(story.and_then(|story| last_line(&story.vmm_log_tail)));
                Err(error)
            }
            Err(_) => Err(failed(&io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// Everything the shim needs to know: the jailer's arguments are those of Firecracker's
/// docs/jailer.md.
///
/// # Errors
/// Limits that are out of bounds, or programs that are missing.
pub fn config(
    places: &Places,
    programs: &Programs,
    (owner, vm): (u32, &Id),
    launch: Launch,
) -> Result<ShimConfig, RootError> {
    let Launch { vcpus, memory_mib } = launch;
    if !(1..=MAX_VCPUS).contains(&vcpus) || !(1..=MAX_MEMORY_MIB).contains(&memory_mib) {
        let text = format!("{vcpus} vCPUs and {memory_mib} MiB are out of bounds");
        return Err(RootError::new(Kind::BadRequest, text));
    }
    let (firecracker, jailer) = programs.jailed()?;
    let uid = vm.uid().to_string();
    let memory = (memory_mib + memory_mib / PAGE_TABLES + OTHER_MEMORY_MIB) << 20;
    let args = [
        "--id",
        vm.as_str(),
        "--exec-file",
        &firecracker.display().to_string(),
        "--uid",
        &uid,
        "--gid",
        &uid,
        "--chroot-base-dir",
        &places.jails().display().to_string(),
        "--cgroup-version",
        "2",
        "--parent-cgroup",
        CGROUP,
        "--cgroup",
        &format!("memory.max={memory}"),
        "--cgroup",
        &format!("pids.max={}", vcpus + OTHER_THREADS),
        "--new-pid-ns",
        "--",
        "--api-sock",
        &format!("/{API}"),
    ];
    let log = |path: std::path::PathBuf| CappedLog {
        path: path.display().to_string(),
        cap_bytes: LOG_CAP,
    };
    Ok(ShimConfig {
        vm: vm.to_string(),
        state_dir: places.shim(vm).display().to_string(),
        companion: None,
        vmm: Child {
            program: jailer.display().to_string(),
            args: args.map(str::to_owned).into(),
            run_as: None,
            files: Vec::new(),
            view: None,
        },
        console: log(places.console_log(vm)),
        vmm_log: log(places.vmm_log(vm)),
        qmp_fd: None,
        jailed: Some(Jailed {
            pid_file: format!("{}.pid", programs.vmm_name()?),
            log_fifo: Some(LOG.into()),
            metrics_fifo: Some((METRICS.into(), log(places.metrics_log(vm)))),
            ready_socket: API.into(),
            ready_timeout_ms: READY_TIMEOUT_MS,
        }),
        reader: Some(owner),
    })
}

fn gone_within(proc: Proc, limit: Duration) -> bool {
    match ProcId::from(proc).open() {
        Ok(Some(pidfd)) => matches!(wait(&pidfd, limit), Ok(Waited::Ended)),
        Ok(None) => true,
        Err(_) => false,
    }
}

fn kill(proc: Proc) -> Result<(), RootError> {
    let refused = |error: io::Error| RootError::system(format!("end process {}", proc.pid), &error);
    ProcId::from(proc).signal(Signal::KILL).map_err(refused)?;
    if gone_within(proc, GONE_TIMEOUT) {
        return Ok(());
    }
    Err(RootError::new(Kind::Busy, format!("process {} does not end", proc.pid)))
}

/// Ends shim and VMM, and waits until both are gone.
///
/// # Errors
/// One of them does not end.
pub fn end(places: &Places, vm: &Id) -> Result<Did, RootError> {
    let folder = places.shim(vm);
    let mut did = Did::WasAbsent;
    if let Some(shim) = read::<Proc>(&folder, SPAWNED).filter(|shim| alive(*shim)) {
        did = Did::Removed;
        let asked = ProcId::from(shim).signal(Signal::TERM);
        if asked.is_err() || !gone_within(shim, END_TIMEOUT) {
            kill(shim)?;
        }
    }
    // A VMM in a process namespace of its own does not end with its shim when that is killed.
    if let Some(state) = read::<ShimState>(&folder, STATE_FILE).filter(|state| alive(state.vmm)) {
        did = Did::Removed;
        kill(state.vmm)?;
    }
    // One that the shim had no time to write down is in its cgroup.
    match jail::end_cgroup(places, vm)? {
        Did::Removed => Ok(Did::Removed),
        _ => Ok(did),
    }
}

/// What is there of a run.
pub fn facts(places: &Places, vm: &Id) -> RunFacts {
    let folder = places.shim(vm);
    let shim = read::<Proc>(&folder, SPAWNED).is_some_and(alive);
    RunFacts {
        state: read(&folder, STATE_FILE),
        shim: if shim { Alive::Yes } else { Alive::No },
        story: read::<ExitStory>(&folder, EXIT_FILE),
    }
}
