//! The daemon's side of `banger-forward`: one process for each VM that publishes ports and has an
//! address. It runs as the daemon's user and lives on without the daemon.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use banger_api::{ApiError, ErrorCode, VmId};
use banger_engine::drivers::{Applied, Undone};
use banger_engine::oplog::StepId;
use banger_engine::plan::{ProcRef, RunPlan, VmPlan};
use banger_shim::{Forward, ForwardConfig, ForwardEvent};

use super::listen::refused;
use crate::failure::{blocking, of};
use crate::gate::{self, Gate};
use crate::layout::Layout;

/// How long it may take to listen; far more than it needs.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to end when asked: the signal alone ends it.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Forwarding processes.
pub struct Forwarding {
    program: PathBuf,
    layout: Layout,
    gates: Mutex<HashMap<VmId, Gate>>,
}

/// The process on record.
fn forwarder(run: &RunPlan) -> Option<ProcRef> {
    run.found(&StepId::new("forwarder"))
}

impl Forwarding {
    /// With this program.
    pub fn new(program: PathBuf, layout: Layout) -> Self {
        Self { program, layout, gates: Mutex::default() }
    }

    fn gates(&self) -> MutexGuard<'_, HashMap<VmId, Gate>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process that waits at its gate, where there is something to forward.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn spawn(&self, vm: &VmPlan, run: &RunPlan) -> Result<Option<ProcRef>, ApiError> {
        if run.spec.publish.is_empty() {
            return Ok(None);
        }
        let (program, log) = (self.program.clone(), self.layout.shim_log(&vm.id));
        // In no folder of the VM, which is removed without asking this process.
        let gate = blocking(move || gate::spawn(&program, Path::new("/"), &log)).await?;
        let process = gate.process();
        self.gates().insert(vm.id.clone(), gate);
        Ok(Some(process))
    }

    /// Opens the gate and waits until all ports are listened on.
    ///
    /// # Errors
    /// A port that is taken or not allowed, a VM without an address, a process that is gone.
    pub async fn open(&self, vm: &VmPlan, run: &RunPlan) -> Result<Applied, ApiError> {
        if run.spec.publish.is_empty() {
            return Ok(Applied::AlreadyThere);
        }
        let internal = |text| ApiError::new(ErrorCode::Internal, format!("`{}` {text}", vm.name));
        let lease = run.lease.as_ref().ok_or_else(|| internal("has no address to forward to"))?;
        let gate = self.gates().remove(&vm.id);
        let gate = gate.ok_or_else(|| internal("has nothing that forwards its ports"))?;
        let forwards = run.spec.publish.iter().map(|port| Forward {
            listen: port.listens_on(),
            to: SocketAddr::new(lease.address.into(), port.guest_port),
        });
        let config = ForwardConfig { forwards: forwards.collect() };
        let failed = || format!("what forwards the ports of `{}` failed", vm.name);
        match gate::open(gate, &config, LISTEN_TIMEOUT).await {
            Ok(ForwardEvent::Listening) => Ok(Applied::Created),
            Ok(ForwardEvent::Failed { listen, os_error }) => {
                let other = || io::ErrorKind::Other.into();
                let error = os_error.map_or_else(other, io::Error::from_raw_os_error);
                Err(refused(vm, listen, &error))
            }
            Ok(ForwardEvent::Refused { message }) => {
                let mut error = ApiError::new(ErrorCode::Internal, failed());
                error.causes.push(message);
                Err(error)
            }
            Err(error) => Err(of(failed(), &error)),
        }
    }

    /// Ends the process of a run, and waits until it is gone.
    ///
    /// # Errors
    /// It does not end.
    pub async fn end(&self, vm: &VmPlan, run: &RunPlan) -> Result<Undone, ApiError> {
        self.gates().remove(&vm.id);
        match forwarder(run) {
            Some(forwarder) => gate::end(forwarder, END_TIMEOUT).await,
            None => Ok(Undone::WasAbsent),
        }
    }

    /// Whether the process of a run lives, where there is to be one.
    pub fn are_alive(&self, run: &RunPlan) -> bool {
        run.spec.publish.is_empty() || forwarder(run).is_some_and(gate::is_alive)
    }
}
