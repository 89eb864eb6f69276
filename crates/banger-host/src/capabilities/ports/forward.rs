//! The daemon's side of `banger-forward`: one process for each VM that publishes ports and has an
//! address. It runs as the daemon's user and survives the daemon.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use banger_api::publish::PortForward;
use banger_api::{ApiError, ErrorCode, VmId};
use banger_engine::drivers::{Applied, Undone};
use banger_engine::plan::{Lease, ProcRef, VmPlan};
use banger_shim::{Forward, ForwardConfig, ForwardEvent};

use super::found;
use super::listen::refused;
use crate::failure::{blocking, of};
use crate::gate::{self, Gate};
use crate::layout::Layout;

/// Time limit until it listens.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit to end after SIGTERM, which it does not handle.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Forwarding processes.
pub struct Forwarding {
    program: PathBuf,
    layout: Layout,
    gates: Mutex<HashMap<VmId, Gate>>,
}

impl Forwarding {
    /// Uses this program.
    pub fn new(program: PathBuf, layout: Layout) -> Self {
        Self { program, layout, gates: Mutex::default() }
    }

    fn gates(&self) -> MutexGuard<'_, HashMap<VmId, Gate>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process that waits at its gate.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn spawn(&self, vm: &VmPlan) -> Result<ProcRef, ApiError> {
        let (program, log) = (self.program.clone(), self.layout.shim_log(&vm.id));
        let arguments = found::arguments(&vm.id, &self.layout);
        // Not in the VM's folder, which may be removed while this process runs.
        let gate = blocking(move || gate::spawn(&program, &arguments, Path::new("/"), &log));
        let gate = gate.await?;
        let process = gate.process();
        self.gates().insert(vm.id.clone(), gate);
        Ok(process)
    }

    /// Opens the gate and waits until the process listens on all ports.
    ///
    /// # Errors
    /// A port in use or not permitted; the process has ended.
    pub async fn open(
        &self,
        vm: &VmPlan,
        ports: &[PortForward],
        lease: &Lease,
    ) -> Result<Applied, ApiError> {
        let internal = |text| ApiError::new(ErrorCode::Internal, format!("`{}` {text}", vm.name));
        let gate = self.gates().remove(&vm.id);
        let gate = gate.ok_or_else(|| internal("has nothing that forwards its ports"))?;
        let forwards = ports.iter().map(|port| Forward {
            listen: port.listens_on(),
            to: SocketAddr::new(lease.address.into(), port.guest_port),
        });
        let config = ForwardConfig { forwards: forwards.collect() };
        let failed = || format!("what forwards the ports of `{}` failed", vm.name);
        match gate::open(gate, &config, Vec::new(), LISTEN_TIMEOUT).await {
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

    /// Terminates the process of a run and waits for its end.
    ///
    /// # Errors
    /// It does not end.
    pub async fn end(&self, vm: &VmPlan, process: Option<ProcRef>) -> Result<Undone, ApiError> {
        self.gates().remove(&vm.id);
        match process {
            Some(process) => gate::end(process, END_TIMEOUT).await,
            None => Ok(Undone::WasAbsent),
        }
    }
}
