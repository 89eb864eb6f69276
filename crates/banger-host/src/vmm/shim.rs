//! The daemon's side of the shim: start it, open its gate, end it, find it again.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_api::{ApiError, ErrorCode, Hint};
use banger_engine::devices::{Devices, DriveSource, Nic};
use banger_engine::drivers::{Stray, Undone};
use banger_engine::plan::{RunPlan, VmPlan, VmSpec};
use banger_shim::{
    Access, ByteString, CappedLog, Child, Companion, PassedFile, ShimConfig, ShimEvent, View,
    record,
};

use super::BootFiles;
use super::qemu::{self, Accelerator, fd};
use crate::HostConfig;
use crate::failure::{of, on_path};
use crate::gate::{self, Gate};
use crate::layout::{VHOST, VSOCK};
use crate::probe;

pub use crate::gate::{is_alive, wait_gone};

/// Bytes of console and VMM log before they are rotated.
const LOG_CAP: u64 = 4 << 20;
/// Bytes that a guest may send on a connection before the companion has to tell it of free room.
/// Its own default, the size of the largest packet of a guest, makes a guest wait after each one.
const ROOM: [&str; 2] = ["--tx-buffer-size", "1048576"];
/// How long the companion may take to listen; far more than it needs.
const COMPANION_TIMEOUT_MS: u64 = 10_000;
/// How long the shim may take to start both.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the shim may take to end both when asked, before it is killed with them.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// Where QEMU's user network learns the host's resolvers.
const RESOLVER: [&str; 3] = ["/etc/resolv.conf", "/run/systemd/resolve", "/etc/hosts"];

/// Removes the records of an earlier run.
pub fn clear_state(state: &Path) -> Result<(), ApiError> {
    record::clear(state).map_err(|(path, error)| on_path("remove", &path, &error))
}

/// Starts a shim; it does nothing until [`open`]. Call within a tokio runtime.
pub fn spawn(config: &HostConfig, vm: &VmPlan) -> Result<Gate, ApiError> {
    let layout = &config.layout;
    gate::spawn(&config.shim, &[], &layout.run(&vm.id), &layout.shim_log(&vm.id))
}

/// Lets the shim start companion and VMM; returns the VMM's process id.
/// `descriptors` are those that the configuration numbers as passed.
pub async fn open(
    gate: Gate,
    vm: &VmPlan,
    config: &ShimConfig,
    descriptors: Vec<OwnedFd>,
) -> Result<u32, ApiError> {
    match gate::open(gate, config, descriptors, LAUNCH_TIMEOUT).await {
        Ok(ShimEvent::Started(state)) => Ok(state.vmm.pid),
        Ok(ShimEvent::Failed { step, message }) => {
            let text = format!("the VMM of `{}` could not be started", vm.name);
            let mut error = ApiError::new(ErrorCode::VmmDied, text);
            error.causes.push(format!("{step}: {message}"));
            Err(error)
        }
        Err(error) => Err(of(format!("the shim of `{}` failed", vm.name), &error)),
    }
}

fn file(fd: i32, path: &Path, access: Access) -> PassedFile {
    PassedFile { fd, path: path.into(), access }
}

/// The files that QEMU gets, and the numbers at which it finds what only root can open, in the
/// order of [`super::Qemu::open_devices`].
fn descriptors(files: &BootFiles, devices: &Devices) -> (Vec<PassedFile>, Vec<i32>) {
    let mut opened = vec![
        file(fd::KERNEL, &files.kernel, Access::Read),
        file(fd::INITRAMFS, &files.initramfs, Access::Read),
    ];
    let mut passed = Vec::new();
    for (place, drive) in devices.drives.iter().enumerate() {
        let number = fd::drive(place);
        let both = [(number, Access::ReadWrite), (number + 1, Access::Read)];
        let each = if drive.role.writable() { &both[..] } else { &[(number, Access::Read)] };
        match &drive.source {
            DriveSource::File(path) => {
                opened.extend(each.iter().map(|(number, access)| file(*number, path, *access)));
            }
            DriveSource::Device => passed.extend(each.iter().map(|(number, _)| *number)),
        }
    }
    if matches!(devices.nic, Nic::Tap { .. }) {
        passed.push(fd::TAP);
    }
    (opened, passed)
}

/// Everything the shim needs to know.
pub fn config(
    host: &HostConfig,
    (vm, spec): (&VmPlan, &VmSpec),
    (files, devices): (&BootFiles, &Devices),
    accelerator: Accelerator,
) -> Result<ShimConfig, ApiError> {
    let programs = host.programs();
    let missing = |name: &str| {
        ApiError::new(ErrorCode::HostNotReady, format!("{name} was not found"))
            .with_hint(Hint::CheckHost)
    };
    let qemu = programs.qemu.ok_or_else(|| missing("qemu-system-x86_64"))?;
    let vsock = programs.vhost_device_vsock.ok_or_else(|| missing("vhost-device-vsock"))?;
    let layout = &host.layout;
    let run_as = host.runs_as(vm);
    let (opened, passed) = descriptors(files, devices);
    // Where QEMU is not this user it has to be in the group that may use KVM.
    let group = match (accelerator, run_as) {
        (Accelerator::Kvm, Some(_)) => probe::kvm_group(),
        _ => None,
    };
    let companion = Child {
        program: vsock.into(),
        args: ["--guest-cid", "3", "--socket", VHOST, "--uds-path", VSOCK, ROOM[0], ROOM[1]]
            .map(ByteString::from)
            .into(),
        run_as,
        group: None,
        files: Vec::new(),
        // It makes its sockets in the run folder.
        view: Some(View { read: Vec::new(), write: vec![".".into()] }),
    };
    let args = qemu::arguments(spec, accelerator, devices);
    let log = |path: PathBuf| CappedLog { path: path.into(), cap_bytes: LOG_CAP };
    Ok(ShimConfig {
        state_dir: layout.shim_state(&vm.id).into(),
        companion: Some(Companion {
            child: companion,
            ready_socket: VHOST.into(),
            ready_timeout_ms: COMPANION_TIMEOUT_MS,
            connection_fd: fd::VSOCK,
        }),
        vmm: Child {
            program: qemu.into(),
            args: args.into_iter().map(ByteString::from).collect(),
            run_as,
            group,
            files: opened,
            // Disks come as descriptors; these two it opens again by `/proc/self/fd/N`. The
            // resolver's files are for its user network.
            view: Some(View {
                read: [&files.kernel, &files.initramfs]
                    .map(|path| ByteString::from(path.as_path()))
                    .into_iter()
                    .chain(RESOLVER.map(ByteString::from))
                    .collect(),
                write: vec![".".into()],
            }),
        },
        console: log(layout.console_log(&vm.id)),
        vmm_log: log(layout.vmm_log(&vm.id)),
        qmp_fd: Some(fd::MONITOR),
        passed,
        jailed: None,
        reader: None,
    })
}

/// What lives of the last run that a shim recorded.
pub fn stray(state: &Path) -> Option<Stray> {
    let children = record::state(state)?;
    let all = [Some(children.vmm), children.companion].into_iter().flatten();
    let alive = all.into_iter().find(|child| is_alive(*child))?;
    // The shim is the parent of both, and they do not outlive it.
    let shim = banger_sys::proc::parent(alive.pid).and_then(banger_sys::proc::reference);
    Some(Stray { pid: alive.pid, shim: shim.filter(|shim| shim.pid > 1 && is_alive(alive)) })
}

/// Ends the shim and with it VMM and companion, and waits until all are gone.
pub async fn end(state: &Path, run: &RunPlan) -> Result<Undone, ApiError> {
    let undone = match run.shim {
        Some(shim) => gate::end(shim, END_TIMEOUT).await?,
        None => Undone::WasAbsent,
    };
    // The kernel ends both with their shim, but not at the same moment; their disks are free only
    // when they are gone.
    let Some(children) = record::state(state) else { return Ok(undone) };
    for child in [Some(children.vmm), children.companion].into_iter().flatten() {
        gate::kill(child).await?;
    }
    Ok(undone)
}
