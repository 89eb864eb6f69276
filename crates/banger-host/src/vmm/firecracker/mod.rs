//! The Firecracker driver. The helper creates the jail and the nodes of its devices.

pub mod api;
pub mod config;
pub mod schema;

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use banger_agent_proto::HELLO_PORT;
use banger_api::vm::VmPaths;
use banger_api::{ApiError, ErrorCode, Hint, VmId};
use banger_base::ShimStatus;
use banger_engine::devices::{Devices, DriveSource, VmmAbilities};
use banger_engine::drivers::{
    Applied, ExitStory, Notices, PowerButton, RunFacts, Stray, Undone, Vmm,
};
use banger_engine::meter::VmmMeter;
use banger_engine::plan::{ProcRef, RunPlan, VmPlan, VmSpec};
use banger_root::Places;
use banger_root::protocol::{Answer, Launch, Request, VmmSocket};
use tokio::net::{UnixListener, UnixStream};

use super::notices::{self, FullDiskEffect};
use super::{FindBootFiles, NO_STORY, check_room, meter, shim};
use crate::HostConfig;
use crate::failure::{blocking, of, on_path};
use crate::guest::{Failure, Listeners, VmmSockets};
use crate::helper::{Helper, Waiting};
use api::Client;

// Firecracker connects a guest's vsock connection to the socket whose name ends with the port.
const _: () = assert!(HELLO_PORT == 10_789);

/// Firecracker.
pub struct Firecracker {
    config: HostConfig,
    helper: Helper,
    places: Places,
    listeners: Listeners,
    boot_files: FindBootFiles,
    gates: Mutex<HashMap<VmId, (Waiting, ProcRef)>>,
}

/// Time limit for a shim to record the exit of its VMM.
const STORY_TIMEOUT: Duration = Duration::from_secs(2);

/// Opens the files of a jail as this user.
fn open_parts(
    find: &FindBootFiles,
    vm: &VmPlan,
    devices: &Devices,
) -> Result<Vec<OwnedFd>, ApiError> {
    let files = find(vm)?;
    let open = |path: &Path, write: bool| {
        let opened = OpenOptions::new().read(true).write(write).open(path);
        opened.map(OwnedFd::from).map_err(|error| on_path("open", path, &error))
    };
    let mut parts = vec![open(&files.kernel, false)?, open(&files.initramfs, false)?];
    for drive in &devices.drives {
        // The helper derives devices from the VM's id.
        if let DriveSource::File(path) = &drive.source {
            parts.push(open(path, drive.role.writable())?);
        }
    }
    Ok(parts)
}

fn fault(vm: &VmPlan, error: &api::ClientError) -> ApiError {
    let did = if error.is_refusal() { "refused" } else { "did not accept" };
    let text = format!("Firecracker {did} the configuration of `{}`", vm.name);
    ApiError::new(ErrorCode::VmmDied, text).caused_by(error)
}

impl Firecracker {
    /// The driver; `places` are those of the helper.
    pub fn new(
        config: HostConfig,
        helper: Helper,
        places: Places,
        listeners: Listeners,
        boot_files: FindBootFiles,
    ) -> Self {
        Self { config, helper, places, listeners, boot_files, gates: Mutex::default() }
    }

    fn gates(&self) -> MutexGuard<'_, HashMap<VmId, (Waiting, ProcRef)>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect_to(&self, vm: &VmPlan, socket: VmmSocket) -> Result<OwnedFd, ApiError> {
        let request = Request::Connect { vm: vm.id.clone(), socket };
        self.helper.descriptor(request, Vec::new()).await
    }

    /// Configures the VMM and starts the guest.
    async fn configure(
        &self,
        vm: &VmPlan,
        machine: &config::Machine,
        shim: ProcRef,
    ) -> Result<(), ApiError> {
        let socket = match self.connect_to(vm, VmmSocket::Api).await {
            Ok(socket) => socket,
            Err(error) => return Err(self.with_end(error, vm, shim).await),
        };
        let talk = async {
            let mut api = Client::new(socket).await?;
            api.logger(&machine.logger).await?;
            api.metrics(&machine.metrics).await?;
            api.machine_config(&machine.machine).await?;
            api.boot_source(&machine.boot).await?;
            for drive in &machine.drives {
                api.drive(drive).await?;
            }
            if let Some(network) = &machine.network {
                api.network_interface(network).await?;
            }
            api.vsock(&machine.vsock).await?;
            api.entropy(&machine.entropy).await?;
            api.action(&schema::Action::InstanceStart).await
        };
        let Err(error): Result<(), api::ClientError> = talk.await else { return Ok(()) };
        let fault = fault(vm, &error);
        // A VMM that answers has not ended.
        Err(if error.is_refusal() { fault } else { self.with_end(fault, vm, shim).await })
    }

    /// Pauses or resumes the vCPUs, unless they are in that state already.
    async fn set_vcpus(&self, vm: &VmPlan, wanted: schema::VmState) -> Result<(), ApiError> {
        let socket = self.connect_to(vm, VmmSocket::Api).await?;
        let (verb, paused) = match wanted {
            schema::VmState::Paused => ("pause", true),
            schema::VmState::Resumed => ("resume", false),
        };
        let talk = async {
            let mut api = Client::new(socket).await?;
            if (api.instance().await?.state == "Paused") == paused {
                return Ok(());
            }
            api.vm_state(&wanted).await
        };
        talk.await.map_err(|error: api::ClientError| {
            let text = format!("Firecracker did not {verb} `{}`", vm.name);
            ApiError::new(ErrorCode::GuestFailed, text).caused_by(&error)
        })
    }

    /// Adds the exit of the VMM to the error, if it has ended.
    async fn with_end(&self, mut error: ApiError, vm: &VmPlan, shim: ProcRef) -> ApiError {
        if let Some(story) = self.ended(vm, shim).await {
            error.causes.push(story.summary());
            error.causes.extend(Some(story.tail()).filter(|tail| !tail.is_empty()));
        }
        error
    }

    /// The exit of the VMM, if it has ended.
    async fn ended(&self, vm: &VmPlan, shim: ProcRef) -> Option<ExitStory> {
        tokio::time::timeout(STORY_TIMEOUT, shim::wait_gone(shim)).await.ok()?;
        match self.root_facts(vm).await?.0 {
            RunFacts::Ended(story) => Some(story),
            RunFacts::Alive { .. } | RunFacts::Nothing => None,
        }
    }

    async fn root_facts(&self, vm: &VmPlan) -> Option<(RunFacts, ShimStatus)> {
        let request = Request::Facts { vm: vm.id.clone() };
        match self.helper.ask(request, Vec::new()).await {
            Ok((Answer::Facts { run, status }, _)) => Some((*run, status)),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(vm = %vm.id, error = %error, causes = ?error.causes, "root");
                None
            }
        }
    }
}

#[async_trait]
impl Vmm for Firecracker {
    fn abilities(&self) -> VmmAbilities {
        config::ABILITIES
    }

    async fn preflight(&self, vm: &VmPlan) -> Result<(), ApiError> {
        if let crate::probe::Kvm::Unusable(why) = self.config.kvm() {
            let text = format!("`{}` needs KVM, which does not work here: {why}", vm.name);
            return Err(ApiError::new(ErrorCode::HostNotReady, text).with_hint(Hint::CheckHost));
        }
        let state = &self.config.layout.state;
        check_room(state, crate::probe::free_bytes(state))?;
        self.helper.ask(Request::Ready, Vec::new()).await?;
        let (find, vm) = (self.boot_files.clone(), vm.clone());
        blocking(move || find(&vm).map(|_| ())).await
    }

    async fn prepare(&self, vm: &VmPlan, devices: &Devices) -> Result<Applied, ApiError> {
        let find = self.boot_files.clone();
        let (plan, given) = (vm.clone(), devices.clone());
        let parts = blocking(move || open_parts(&find, &plan, &given)).await?;
        let request = Request::JailMake { vm: vm.id.clone(), drives: config::drives(devices) };
        let listener = StdListener::from(self.helper.descriptor(request, parts).await?);
        let listener =
            listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener));
        let listener = listener.map_err(|error| of("cannot listen for a guest", &error))?;
        self.listeners.put(&vm.id, listener);
        Ok(Applied::Created)
    }

    async fn clear(&self, vm: &VmPlan) -> Result<Undone, ApiError> {
        self.listeners.take(&vm.id);
        self.helper.remove(Request::JailClear { vm: vm.id.clone() }).await
    }

    async fn spawn(&self, vm: &VmPlan) -> Result<ProcRef, ApiError> {
        let (shim, gate) = self.helper.spawn(&vm.id).await?;
        self.gates().insert(vm.id.clone(), (gate, shim));
        Ok(shim)
    }

    async fn launch(&self, vm: &VmPlan, spec: &VmSpec, devices: &Devices) -> Result<u32, ApiError> {
        let gate = self.gates().remove(&vm.id);
        let (gate, shim) = gate.ok_or_else(|| {
            ApiError::new(ErrorCode::Internal, format!("`{}` has no shim at its gate", vm.name))
        })?;
        let launch = Launch { vcpus: spec.vcpus, memory_mib: spec.memory_mib };
        let vmm = gate.launch(&vm.id, launch).await?;
        self.configure(vm, &config::machine(spec, devices), shim).await?;
        Ok(vmm.pid)
    }

    async fn pause(&self, vm: &VmPlan, _run: &RunPlan) -> Result<(), ApiError> {
        self.set_vcpus(vm, schema::VmState::Paused).await
    }

    async fn resume(&self, vm: &VmPlan, _run: &RunPlan) -> Result<(), ApiError> {
        self.set_vcpus(vm, schema::VmState::Resumed).await
    }

    async fn end(&self, vm: &VmPlan, _run: &RunPlan) -> Result<Undone, ApiError> {
        self.gates().remove(&vm.id);
        self.helper.remove(Request::End { vm: vm.id.clone() }).await
    }

    async fn exited(&self, vm: &VmPlan, run: &RunPlan) -> ExitStory {
        if let Some(shim) = run.shim {
            shim::wait_gone(shim).await;
        }
        match self.root_facts(vm).await {
            Some((RunFacts::Ended(story), _)) => story,
            _ => ExitStory::unknown(NO_STORY),
        }
    }

    async fn stray(&self, vm: &VmPlan) -> Option<Stray> {
        match self.root_facts(vm).await {
            // Root's part knows the shim.
            Some((RunFacts::Alive { vmm_pid }, _)) => Some(Stray { pid: vmm_pid, shim: None }),
            _ => None,
        }
    }

    async fn facts(&self, vm: &VmPlan, run: &RunPlan) -> RunFacts {
        let Some((facts, _)) = self.root_facts(vm).await else {
            // The helper does not answer: the VMM counts as alive while its shim is alive.
            let vmm_pid = run.vmm_pid.filter(|_| run.shim.is_some_and(shim::is_alive));
            return vmm_pid.map_or(RunFacts::Nothing, |vmm_pid| RunFacts::Alive { vmm_pid });
        };
        match facts {
            // A shim that is not on record here is not of this run.
            RunFacts::Alive { .. } if run.shim.is_none() => RunFacts::Nothing,
            facts => facts,
        }
    }

    fn power_button(&self) -> Option<&dyn PowerButton> {
        Some(self)
    }

    fn notices(&self) -> Option<&dyn Notices> {
        Some(self)
    }

    fn meter(&self) -> Option<&dyn VmmMeter> {
        Some(&meter::Processes)
    }

    fn paths(&self, vm: &VmPlan) -> VmPaths {
        let path = |of: fn(&Places, &VmId) -> PathBuf| of(&self.places, &vm.id).into();
        VmPaths {
            console_log: path(Places::console_log),
            vmm_log: path(Places::vmm_log),
            shim_log: path(Places::shim_log),
        }
    }
}

#[async_trait]
impl PowerButton for Firecracker {
    async fn press(&self, vm: &VmPlan) -> Result<(), ApiError> {
        let socket = self.connect_to(vm, VmmSocket::Api).await?;
        let press = async {
            let mut api = Client::new(socket).await?;
            api.action(&schema::Action::SendCtrlAltDel).await
        };
        press.await.map_err(|error: api::ClientError| {
            let text = format!("Firecracker does not press keys in `{}`", vm.name);
            ApiError::new(ErrorCode::GuestFailed, text).caused_by(&error)
        })
    }
}

#[async_trait]
impl Notices for Firecracker {
    async fn of(&self, vm: &VmPlan, _devices: &Devices) -> Vec<String> {
        let trouble = self.root_facts(vm).await.and_then(|(_, status)| status.disk);
        notices::of(&self.config.layout.vm(&vm.id), trouble, FullDiskEffect::FailsWrites)
    }

    /// Firecracker reports a failed request to the guest, which then needs a restart.
    fn is_held(&self, _vm: &VmPlan) -> bool {
        false
    }
}

#[async_trait]
impl VmmSockets for Firecracker {
    async fn connect(&self, vm: &VmPlan) -> Result<UnixStream, ApiError> {
        match self.connect_to(vm, VmmSocket::Vsock).await {
            Ok(socket) => crate::guest::stream(socket, vm),
            Err(error) if error.code == ErrorCode::Busy => Err(Failure::QueueFull.about(vm)),
            Err(error) => Err(error),
        }
    }

    async fn close_hello(&self, vm: &VmPlan) -> Result<(), ApiError> {
        let request = Request::CloseHello { vm: vm.id.clone() };
        self.helper.remove(request).await.map(|_| ())
    }
}
