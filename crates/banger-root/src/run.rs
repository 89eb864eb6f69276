//! Runs a VMM in its jail: starts a shim at its gate, opens the gate once the client has recorded
//! the shim, and ends both.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use banger_base::{ProcRef, RunFacts, ShimStatus, VmId, printable};
use banger_shim::gate::{self, Gate};
use banger_shim::{ByteString, CappedLog, Child, Jailed, ShimConfig, ShimEvent, record};
use banger_sys::fs::{Durability, open_folder, open_log, write_atomically};
use banger_sys::proc::{self, Waited, wait};
use rustix::process::Signal;

use crate::error::{Kind, RootError};
use crate::jail::{self, API, LOG, METRICS};
use crate::places::{CGROUP, Places, SHIM_LOG};
use crate::programs::Programs;
use crate::protocol::{Did, Launch};

/// File in the shim's folder with the reference to the shim's process.
const SPAWNED: &str = "spawned.json";
/// Size limit of console and VMM log in bytes before rotation.
const LOG_CAP: u64 = 4 << 20;
/// Time limit for jailer and VMM until the API socket exists.
const READY_TIMEOUT_MS: u64 = 20_000;
/// Time limit for the shim's answer.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(25);
/// Time limit for the shim to end its VMM on request; then both are killed.
const END_TIMEOUT: Duration = Duration::from_secs(3);
/// Time limit for a killed process to end.
const GONE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum length of the quoted last line of a log, in characters.
const MAX_SAID: usize = 500;
/// Maximum number of vCPUs of Firecracker.
const MAX_VCPUS: u32 = 32;
/// Maximum memory of a guest in MiB.
const MAX_MEMORY_MIB: u64 = 16 << 20;
/// Threads and processes of a VMM in addition to one per vCPU.
const OTHER_THREADS: u32 = 16;
/// Memory of a VMM in addition to the guest's, in MiB, and the share of the guest's memory for page
/// tables.
const OTHER_MEMORY_MIB: u64 = 96;
const PAGE_TABLES: u64 = 64;

/// Removes the records of an earlier run.
///
/// # Errors
/// unlink(2).
pub fn forget(places: &Places, vm: &VmId) -> Result<(), RootError> {
    let folder = places.shim(vm);
    record::clear(&folder).map_err(|(path, error)| RootError::on_path("remove", &path, &error))?;
    let path = folder.join(SPAWNED);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RootError::on_path("remove", &path, &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Creates a log that its VM's owner may read, if it does not exist; returns its path. Replaces a
/// log of another user, such as root's by an earlier version.
fn owned_log(folder: &Path, name: &str, owner: u32) -> Result<PathBuf, RootError> {
    let path = folder.join(name);
    open_folder(folder)
        .and_then(|folder| open_log(&folder, name, Some(owner)))
        .map_err(|error| RootError::on_path("open", &path, &error))?;
    Ok(path)
}

/// Starts a shim, which waits at its gate until [`open`].
///
/// # Errors
/// There is no jail, or the shim cannot be started.
pub fn spawn(
    places: &Places,
    programs: &Programs,
    (owner, vm): (u32, &VmId),
) -> Result<Gate, RootError> {
    let root = jail::find(places, vm)?;
    let log = owned_log(&places.logs(vm), SHIM_LOG, owner)?;
    let (gate, mut child) = gate::spawn(&programs.shim, &[], &root, &log)
        .map_err(|failed| RootError::on_path(failed.doing, &failed.path, &failed.error))?;
    let cgroup = jail::make_for_shim(places, vm).then(|| places.shim_cgroup(vm));
    // The shim outlives the helper; while the helper runs, it must reap the shim. Moving a process
    // waits for an RCU grace period, and no start should: until then the shim is in the helper's
    // cgroup, where it may stay.
    std::thread::spawn(move || {
        let _ = cgroup.map(|cgroup| jail::move_shim(&cgroup, child.id()));
        child.wait()
    });
    let folder = places.shim(vm);
    let noted = open_folder(&folder).and_then(|folder| {
        let text = serde_json::to_vec(&gate.process())?;
        write_atomically(folder, SPAWNED, &text, Durability::Cached)
    });
    // An unrecorded shim's gate is dropped, which ends the shim.
    noted.map_err(|error| RootError::on_path("write to", &folder, &error))?;
    Ok(gate)
}

/// The last non-blank line of a log, sanitised; jailer and VMM print their errors there.
fn last_line(log: &str) -> Option<String> {
    let line = log.lines().rfind(|line| !line.trim().is_empty())?;
    Some(printable(line, MAX_SAID))
}

/// Lets a shim start its VMM in the jail; returns the VMM once its API socket exists.
///
/// # Errors
/// The error of the jailer or the VMM; `Died` at the time limit.
pub fn open(
    places: &Places,
    vm: &VmId,
    gate: Gate,
    config: &ShimConfig,
) -> Result<ProcRef, RootError> {
    match gate.open(config, LAUNCH_TIMEOUT) {
        Ok(ShimEvent::Started(state)) => Ok(state.vmm),
        Ok(ShimEvent::Failed { step, message }) => {
            let mut error = RootError::new(Kind::Died, "the VMM could not be started");
            error.causes.push(format!("{step}: {message}"));
            // The shim writes its exit status before it answers.
            let story = record::story(&places.shim(vm));
            error.causes.extend(story.and_then(|story| last_line(&story.vmm_log_tail)));
            Err(error)
        }
        Err(error) => Err(RootError::system("start the VMM", &error)),
    }
}

/// The configuration of the shim, with the jailer's arguments (docs/jailer.md of Firecracker).
///
/// # Errors
/// Limits out of bounds, or missing programs.
pub fn config(
    places: &Places,
    programs: &Programs,
    (owner, vm): (u32, &VmId),
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
    let memory = format!("memory.max={memory}");
    let pids = format!("pids.max={}", vcpus + OTHER_THREADS);
    let args: Vec<ByteString> = vec![
        "--id".into(),
        vm.as_str().into(),
        "--exec-file".into(),
        firecracker.into(),
        "--uid".into(),
        uid.clone().into(),
        "--gid".into(),
        uid.into(),
        "--chroot-base-dir".into(),
        places.jails().into(),
        "--cgroup-version".into(),
        "2".into(),
        "--parent-cgroup".into(),
        CGROUP.into(),
        "--cgroup".into(),
        memory.into(),
        "--cgroup".into(),
        pids.into(),
        "--new-pid-ns".into(),
        "--".into(),
        "--api-sock".into(),
        format!("/{API}").into(),
    ];
    let log = |path: PathBuf| CappedLog { path: path.into(), cap_bytes: LOG_CAP };
    Ok(ShimConfig {
        state_dir: places.shim(vm).into(),
        companion: None,
        vmm: Child {
            program: jailer.into(),
            args,
            run_as: None,
            group: None,
            files: Vec::new(),
            view: None,
        },
        console: log(places.console_log(vm)),
        vmm_log: log(places.vmm_log(vm)),
        qmp_fd: None,
        passed: Vec::new(),
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

fn gone_within(process: ProcRef, limit: Duration) -> bool {
    match proc::open(process) {
        Ok(Some(pidfd)) => matches!(wait(&pidfd, limit), Ok(Waited::Ended)),
        Ok(None) => true,
        Err(_) => false,
    }
}

fn kill(process: ProcRef) -> Result<(), RootError> {
    let pid = process.pid;
    proc::send_signal(process, Signal::KILL)
        .map_err(|error| RootError::system(format!("end process {pid}"), &error))?;
    if gone_within(process, GONE_TIMEOUT) {
        return Ok(());
    }
    Err(RootError::new(Kind::Busy, format!("process {pid} does not end")))
}

/// The shim of a run, if one was started.
fn shim(folder: &Path) -> Option<ProcRef> {
    record::read(folder, SPAWNED)
}

/// Process ids of shim and VMM, those that run.
///
/// # Errors
/// read(2) of the cgroup.
pub fn processes(places: &Places, vm: &VmId) -> Result<Vec<u32>, RootError> {
    let folder = places.shim(vm);
    let recorded = shim(&folder).into_iter().chain(record::state(&folder).map(|state| state.vmm));
    let alive = recorded.filter(|process| proc::is_alive(*process));
    let mut pids: Vec<u32> = alive.map(|process| process.pid).collect();
    pids.extend(jail::processes(places, vm)?);
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Ends shim and VMM, and waits until both are gone.
///
/// # Errors
/// A process does not end.
pub fn end(places: &Places, vm: &VmId) -> Result<Did, RootError> {
    let folder = places.shim(vm);
    let mut did = Did::WasAbsent;
    if let Some(shim) = shim(&folder).filter(|shim| proc::is_alive(*shim)) {
        did = Did::Removed;
        let signalled = proc::send_signal(shim, Signal::TERM);
        if signalled.is_err() || !gone_within(shim, END_TIMEOUT) {
            kill(shim)?;
        }
    }
    // A VMM in its own process namespace survives the kill of its shim.
    if let Some(state) = record::state(&folder).filter(|state| proc::is_alive(state.vmm)) {
        did = Did::Removed;
        kill(state.vmm)?;
    }
    // A VMM that the shim did not record in time is found in its cgroup.
    match jail::end_cgroup(places, vm)? {
        Did::Removed => Ok(Did::Removed),
        _ => Ok(did),
    }
}

/// The state of a run.
pub fn facts(places: &Places, vm: &VmId) -> (RunFacts, ShimStatus) {
    let folder = places.shim(vm);
    (record::facts(&folder, shim(&folder)), record::status(&folder))
}
