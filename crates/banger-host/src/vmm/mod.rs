//! VMM drivers: here QEMU with its companion vhost-device-vsock, both owned by a shim; Firecracker
//! in its jail in a module of its own.

pub mod firecracker;
mod meter;
pub mod notices;
mod pause;
pub mod qemu;
mod shim;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use banger_agent_proto::HELLO_PORT;
use banger_api::disk::HEADROOM_BYTES;
use banger_api::hint::SetupAdvice;
use banger_api::size::human_size;
use banger_api::vm::VmPaths;
use banger_api::{ApiError, ErrorCode, Hint};
use banger_engine::devices::{Devices, DriveSource, Nic, VmmAbilities};
use banger_engine::drivers::{Applied, ExitStory, Notices, RunFacts, Stray, Undone, Vmm};
use banger_engine::meter::VmmMeter;
use banger_engine::plan::{ProcRef, RunPlan, VmPlan, VmSpec};
use banger_root::protocol::{Access, Request};
use banger_shim::{DiskTrouble, VcpuState, record};
use tokio::net::{UnixListener, UnixStream};

use crate::HostConfig;
use crate::failure::{blocking, on_path};
use crate::gate::Gate;
use crate::guest::{self, Listeners, VmmSockets};
use crate::layout::{VSOCK, shown};
use crate::probe;
use notices::FullDiskEffect;
use qemu::Accelerator;

/// Exit story of a run whose shim recorded none.
const NO_STORY: &str = "the VMM ended with its shim, which was killed before it could say how";

/// Files that a VM boots from.
#[derive(Debug, Clone)]
pub struct BootFiles {
    /// Uncompressed kernel.
    pub kernel: std::path::PathBuf,
    /// Boot initramfs.
    pub initramfs: std::path::PathBuf,
    /// Disk with the kernel's modules.
    pub modules: std::path::PathBuf,
    /// Root file system of the image.
    pub image: std::path::PathBuf,
}

/// Finds and checks the files that a VM boots from.
pub type FindBootFiles = Arc<dyn Fn(&VmPlan) -> Result<BootFiles, ApiError> + Send + Sync>;

/// QEMU's microvm.
pub struct Qemu {
    config: HostConfig,
    listeners: Listeners,
    boot_files: FindBootFiles,
    gates: Mutex<HashMap<banger_api::VmId, Gate>>,
}

fn hello_socket(run: &Path) -> std::path::PathBuf {
    run.join(format!("{VSOCK}_{HELLO_PORT}"))
}

/// Removes the socket for the guest's hello, so that the guest can no longer connect to the host.
///
/// # Errors
/// unlink(2).
fn remove_hello_socket(run: &Path) -> Result<(), ApiError> {
    let socket = hello_socket(run);
    match std::fs::remove_file(&socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(on_path("remove the socket", &socket, &error))
        }
        _ => Ok(()),
    }
}

impl Qemu {
    /// The driver.
    pub fn new(config: HostConfig, listeners: Listeners, boot_files: FindBootFiles) -> Self {
        Self { config, listeners, boot_files, gates: Mutex::default() }
    }

    fn gates(&self) -> std::sync::MutexGuard<'_, HashMap<banger_api::VmId, Gate>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens devices through the helper, in the order of the shim's configuration.
    async fn open_devices(&self, vm: &VmPlan, devices: &Devices) -> Result<Vec<OwnedFd>, ApiError> {
        let mut requests = Vec::new();
        for drive in devices.drives.iter().filter(|drive| drive.source == DriveSource::Device) {
            let open = |access| Request::SnapshotOpen { vm: vm.id.clone(), access };
            if drive.role.writable() {
                requests.push(open(Access::ReadWrite));
            }
            requests.push(open(Access::Read));
        }
        if matches!(devices.nic, Nic::Tap { .. }) {
            requests.push(Request::TapOpen { vm: vm.id.clone() });
        }
        let mut opened = Vec::new();
        for request in requests {
            opened.push(self.config.helper.descriptor(request, Vec::new()).await?);
        }
        Ok(opened)
    }

    fn accelerator(&self) -> Accelerator {
        match self.config.kvm_for_qemu() {
            probe::Kvm::Usable => Accelerator::Kvm,
            probe::Kvm::Unusable(_) => {
                Accelerator::Tcg { tsc_khz: crate::tsc::frequency_khz(&self.config.layout.cache) }
            }
        }
    }
}

/// Creates the run folder and the socket for the hello; both belong to the VM's uid.
fn make_run(
    run: &Path,
    owner: Option<u32>,
) -> Result<(Applied, std::os::unix::net::UnixListener), ApiError> {
    let applied = crate::storage::make_folder(run)?;
    let socket = hello_socket(run);
    remove_hello_socket(run)?;
    let listener = banger_sys::unix_path::bind(&socket)
        .map_err(|error| on_path("listen on the socket", &socket, &error))?;
    listener.set_nonblocking(true).map_err(|error| on_path("use the socket", &socket, &error))?;
    if let Some(uid) = owner {
        for path in [run, &socket] {
            std::os::unix::fs::lchown(path, Some(uid), Some(uid))
                .map_err(|error| on_path("give away", path, &error))?;
        }
    }
    Ok((applied, listener))
}

/// Refuses a start on a full disk: a boot writes at least as much.
fn check_room(state: &Path, free: Option<u64>) -> Result<(), ApiError> {
    let free = free.unwrap_or(u64::MAX);
    if free >= HEADROOM_BYTES {
        return Ok(());
    }
    let (free, need) = (human_size(free), human_size(HEADROOM_BYTES));
    let text = format!("a start needs {need} on the disk of `{}`: {free} are free", shown(state));
    Err(ApiError::new(ErrorCode::NoSpace, text)
        .with_hint(Hint::FreeSpace { path: Some(shown(state).to_string()) }))
}

/// Refuses a uid that other processes have, for example those of another daemon's VM: they could
/// access this VM's files and signal its processes.
fn refuse_used_uid(vm: &VmPlan, uid: u32) -> Result<(), ApiError> {
    let Some(pid) = probe::process_of(uid) else { return Ok(()) };
    let text = format!("`{}` would run as the uid {uid}, as process {pid} does", vm.name);
    Err(ApiError::new(ErrorCode::HostNotReady, text)
        .with_hint(SetupAdvice::ReplaceUid { process: pid }))
}

fn full_disk_effect(root_is_device: bool) -> FullDiskEffect {
    if root_is_device { FullDiskEffect::PausesAtAnyError } else { FullDiskEffect::PausesGuest }
}

/// The error of a request to a guest that is paused.
fn paused(vm: &VmPlan, config: &HostConfig, trouble: DiskTrouble) -> ApiError {
    let effect = full_disk_effect(config.layout.root_cow(&vm.id).exists());
    let why = notices::disk_trouble(&config.layout.vm(&vm.id), trouble, effect);
    ApiError::new(ErrorCode::GuestFailed, format!("`{}` does not answer: {why}", vm.name))
        .with_hint(Hint::FreeSpace { path: None })
}

#[async_trait]
impl VmmSockets for Qemu {
    async fn connect(&self, vm: &VmPlan) -> Result<UnixStream, ApiError> {
        if let Some(trouble) = record::status(&self.config.layout.shim_state(&vm.id)).disk {
            return Err(paused(vm, &self.config, trouble));
        }
        let socket = self.config.layout.run(&vm.id).join(VSOCK);
        // The run folder belongs to the uid of the VM's processes.
        let owner = rustix::process::geteuid().as_raw();
        let owner = self.config.runs_as(vm).unwrap_or(owner);
        match banger_sys::unix_path::connect_owned(&socket, owner) {
            Ok(stream) => guest::stream(stream.into(), vm),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Err(guest::Failure::QueueFull.about(vm))
            }
            Err(error) => Err(on_path("connect to", &socket, &error)),
        }
    }

    async fn close_hello(&self, vm: &VmPlan) -> Result<(), ApiError> {
        let run = self.config.layout.run(&vm.id);
        blocking(move || remove_hello_socket(&run)).await
    }
}

#[async_trait]
impl Vmm for Qemu {
    fn abilities(&self) -> VmmAbilities {
        qemu::ABILITIES
    }

    async fn preflight(&self, vm: &VmPlan) -> Result<(), ApiError> {
        let programs = self.config.programs();
        for (name, found, hint) in [
            ("qemu-system-x86_64", programs.qemu, Hint::install("qemu-system-x86")),
            (
                "vhost-device-vsock",
                programs.vhost_device_vsock,
                SetupAdvice::InstallCompanion.into(),
            ),
        ] {
            if found.is_none() {
                let text = format!("`{}` needs the program {name}, which was not found", vm.name);
                return Err(ApiError::new(ErrorCode::HostNotReady, text).with_hint(hint));
            }
        }
        let state = &self.config.layout.state;
        check_room(state, probe::free_bytes(state))?;
        let (find, vm, uid) = (self.boot_files.clone(), vm.clone(), self.config.runs_as(vm));
        // The start ends remaining processes of the VM itself.
        let uid = uid.filter(|_| shim::stray(&self.config.layout.shim_state(&vm.id)).is_none());
        blocking(move || {
            uid.map_or(Ok(()), |uid| refuse_used_uid(&vm, uid))?;
            find(&vm).map(|_| ())
        })
        .await
    }

    async fn prepare(&self, vm: &VmPlan, _devices: &Devices) -> Result<Applied, ApiError> {
        let run = self.config.layout.run(&vm.id);
        let state = self.config.layout.shim_state(&vm.id);
        let owner = self.config.runs_as(vm);
        let (applied, listener) = blocking(move || {
            // The folder may have been removed. Records of an earlier run must not be mistaken
            // for those of this one.
            crate::storage::make_folder(&state)?;
            shim::clear_state(&state)?;
            make_run(&run, owner)
        })
        .await?;
        let listener = UnixListener::from_std(listener)
            .map_err(|error| crate::failure::of("cannot listen for a guest", &error))?;
        self.listeners.put(&vm.id, listener);
        Ok(applied)
    }

    async fn clear(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        self.listeners.take(&vm.id);
        let run = self.config.layout.run(&vm.id);
        let state = self.config.layout.shim_state(&vm.id);
        blocking(move || {
            shim::clear_state(&state)?;
            crate::storage::remove_folder(&run)
        })
        .await
    }

    async fn spawn(&self, vm: &VmPlan) -> Result<ProcRef, ApiError> {
        let (config, plan) = (self.config.clone(), vm.clone());
        let gate = blocking(move || shim::spawn(&config, &plan)).await?;
        let process = gate.process();
        self.gates().insert(vm.id.clone(), gate);
        Ok(process)
    }

    async fn launch(&self, vm: &VmPlan, spec: &VmSpec, devices: &Devices) -> Result<u32, ApiError> {
        let gate = self.gates().remove(&vm.id);
        let gate = gate.ok_or_else(|| {
            ApiError::new(ErrorCode::Internal, format!("`{}` has no shim at its gate", vm.name))
        })?;
        let accelerator = self.accelerator();
        let (config, find) = (self.config.clone(), self.boot_files.clone());
        let (plan, spec, given) = (vm.clone(), spec.clone(), devices.clone());
        let wanted = blocking(move || {
            let files = find(&plan)?;
            shim::config(&config, (&plan, &spec), (&files, &given), accelerator)
        })
        .await?;
        let descriptors = self.open_devices(vm, devices).await?;
        shim::open(gate, vm, &wanted, descriptors).await
    }

    async fn pause(&self, vm: &VmPlan, run: &RunPlan) -> Result<(), ApiError> {
        pause::set(&self.config.layout.shim_state(&vm.id), vm, run, VcpuState::Paused).await
    }

    async fn resume(&self, vm: &VmPlan, run: &RunPlan) -> Result<(), ApiError> {
        pause::set(&self.config.layout.shim_state(&vm.id), vm, run, VcpuState::Running).await
    }

    async fn end(&self, vm: &VmPlan, run: &RunPlan) -> Result<Undone, ApiError> {
        self.gates().remove(&vm.id);
        shim::end(&self.config.layout.shim_state(&vm.id), run).await
    }

    async fn exited(&self, vm: &VmPlan, run: &RunPlan) -> ExitStory {
        let state = self.config.layout.shim_state(&vm.id);
        if let Some(shim) = run.shim {
            shim::wait_gone(shim).await;
        }
        record::story(&state).unwrap_or_else(|| ExitStory::unknown(NO_STORY))
    }

    async fn stray(&self, vm: &VmPlan) -> Option<Stray> {
        shim::stray(&self.config.layout.shim_state(&vm.id))
    }

    async fn facts(&self, vm: &VmPlan, run: &RunPlan) -> RunFacts {
        record::facts(&self.config.layout.shim_state(&vm.id), run.shim)
    }

    fn paths(&self, vm: &VmPlan) -> VmPaths {
        VmPaths {
            console_log: self.config.layout.console_log(&vm.id).into(),
            vmm_log: self.config.layout.vmm_log(&vm.id).into(),
            shim_log: self.config.layout.shim_log(&vm.id).into(),
        }
    }

    fn notices(&self) -> Option<&dyn Notices> {
        Some(self)
    }

    fn meter(&self) -> Option<&dyn VmmMeter> {
        Some(&meter::Processes)
    }
}

#[async_trait]
impl Notices for Qemu {
    async fn of(&self, vm: &VmPlan, devices: &Devices) -> Vec<String> {
        let trouble = record::status(&self.config.layout.shim_state(&vm.id)).disk;
        let on_device = devices.drives.iter().any(|drive| drive.source == DriveSource::Device);
        notices::of(&self.config.layout.vm(&vm.id), trouble, full_disk_effect(on_device))
    }

    fn is_held(&self, vm: &VmPlan) -> bool {
        let trouble = record::status(&self.config.layout.shim_state(&vm.id)).disk;
        matches!(trouble, Some(DiskTrouble::HeldNoSpace | DiskTrouble::HeldWriteError))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_start_on_a_full_disk_is_refused_with_the_numbers() {
        let state = Path::new("/state");
        for free in [None, Some(HEADROOM_BYTES)] {
            check_room(state, free).unwrap();
        }
        let error = check_room(state, Some(20 << 20)).unwrap_err();
        assert_eq!(error.code, ErrorCode::NoSpace);
        let expected = "a start needs 64 MiB on the disk of `/state`: 20 MiB are free";
        assert_eq!(error.message, expected);
    }

    #[test]
    fn a_uid_with_processes_is_refused() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root may start a process of another user");
            return;
        }
        let vm = crate::testing::plan("0d9f3c2b1a87", "web");
        let uid = vm.id.uid();
        refuse_used_uid(&vm, uid).unwrap();
        let mut process = Command::new("sleep").arg("600").uid(uid).spawn().unwrap();
        let error = refuse_used_uid(&vm, uid).unwrap_err();
        process.kill().unwrap();
        // Ended but not reaped: it cannot use the uid any more.
        let ended = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        let pid = rustix::process::Pid::from_child(&process);
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), ended).unwrap();
        refuse_used_uid(&vm, uid).unwrap();
        process.wait().unwrap();
        assert_eq!(error.code, ErrorCode::HostNotReady);
        assert!(error.message.contains("`web`") && error.message.contains(&uid.to_string()));
        let hint = error.hint().unwrap();
        assert!(hint.contains(&format!("process {}", process.id())), "{hint}");
    }
}
