//! Creation of VMs: from a request to a plan on record, and sessions that keep a VM alive.

use std::sync::{Arc, Weak};
use std::time::Duration;

use banger_api::disk::HEADROOM_BYTES;
use banger_api::operation::{Accepted, VmTag, stage};
use banger_api::size::{MIB, human_size};
use banger_api::vm::{CreateVm, Lifetime, VmAction};
use banger_api::{ApiError, ErrorCode, Hint, VmId, VmName};
use tracing::Instrument as _;

use crate::cancel;
use crate::devices::RootContent;
use crate::drivers::{Capacity, Host, WantedKernel};
use crate::engine::{Engine, Preparing};
use crate::holds::Remaining;
use crate::lists::{self, ListName};
use crate::once::KeyedRequest;
use crate::op_book::OpBook;
use crate::ops::{Op, OpProgress};
use crate::plan::{BuildPlan, VmPlan, VmSpec};
use crate::program;
use crate::record::{Inspect, VmRecord};
use crate::store::{Durability, KeptAnswer, Write};
use crate::vm_jobs::ThenStart;
use crate::vm_task::InitialWork;

/// Time that a session-bound VM waits for its session, after its create was accepted or the daemon
/// was started.
pub const HOLDER_GRACE: Duration = Duration::from_secs(10);
/// Number of generated names that are tried before a number is appended.
const NAME_TRIES: u32 = 20;

/// A name and an id reserved for a VM that is not stored yet, until this is dropped.
struct Reserved {
    engine: Weak<Engine>,
    vm: VmTag,
}

impl Reserved {
    /// Sets the operation that creates the VM.
    fn set_operation(&self, op: &Arc<Op>) {
        let Some(engine) = self.engine.upgrade() else { return };
        if let Some(preparing) = engine.registry().preparing.get_mut(&self.vm.id) {
            preparing.op = Some(op.clone());
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.upgrade() {
            engine.registry().preparing.remove(&self.vm.id);
        }
    }
}

/// Refuses a create on a full disk, before anything is fetched or made.
fn check_room(free_bytes: u64) -> Result<(), ApiError> {
    if free_bytes >= HEADROOM_BYTES {
        return Ok(());
    }
    let (free, need) = (human_size(free_bytes), human_size(HEADROOM_BYTES));
    let text = format!("a new VM needs {need} on the disk: {free} are free");
    Err(ApiError::new(ErrorCode::NoSpace, text).with_hint(Hint::FreeSpace { path: None }))
}

/// A random machine id (machine-id(5)).
pub(crate) fn new_machine_id(host: &dyn Host) -> String {
    let (high, low) = (host.entropy(), host.entropy());
    format!("{high:016x}{low:016x}")
}

impl Engine {
    /// Accepts a create; the operation fetches a missing image and kernel, creates the VM and
    /// starts it.
    ///
    /// # Errors
    /// A bad value, a name in use, an unknown image, or an error of the store.
    pub async fn create(&self, request: CreateVm) -> Result<Accepted, ApiError> {
        self.create_for(request, None, None).await
    }

    /// The same, also for the VM of an image build, and for a request with a key.
    pub(crate) async fn create_for(
        &self,
        request: CreateVm,
        build: Option<BuildPlan>,
        keyed: Option<KeyedRequest>,
    ) -> Result<Accepted, ApiError> {
        request.check()?;
        let host = self.shared.drivers.host.clone();
        if let Err(error) = check_room(host.capacity().disk_free_bytes) {
            return Err(self.with_prune(error).await);
        }
        let (image, kernel) = self.boot_names(&request);
        self.shared.drivers.images.check(image, kernel)?;
        let warnings = Self::capacity_warnings(&request, host.capacity());
        let engine = self.arc().ok_or_else(|| {
            ApiError::new(ErrorCode::DaemonUnavailable, "the daemon is shutting down")
        })?;
        let reserved = self.reserve(request.name.as_deref())?;
        let vm = reserved.vm.clone();
        let book = OpBook::of_vm(&self.shared, vm.clone());
        let answer = |op: &Op| Accepted {
            operation: Some(op.id.clone()),
            vm: Some(vm.clone()),
            warnings: warnings.clone(),
        };
        let at_unix_ms = host.now_unix_ms();
        let keep = |op: &Op| {
            let KeyedRequest { key, digest: request } = keyed.clone()?;
            let kept = KeptAnswer { key, request, answer: answer(op), at_unix_ms };
            Some(Write::KeepAnswer(Box::new(kept)))
        };
        let op = book.open_with("create", Durability::Process, keep).await?;
        reserved.set_operation(&op);
        let accepted = answer(&op);
        let session = request.lifetime == Lifetime::Session;
        let id = vm.id.clone();
        let span = op.span.clone();
        let work = async move {
            let prepared = engine.prepare(&op, reserved.vm.clone(), request, build).await;
            // After a failure the name is free before the operation ends.
            drop(reserved);
            if let Err(error) = prepared {
                book.end(&op, Err(error)).await;
            }
        };
        tokio::spawn(work.instrument(span));
        if session {
            self.expect_holder(id);
        }
        Ok(accepted)
    }

    /// Names of the image and the kernel.
    fn boot_names<'a>(&'a self, request: &'a CreateVm) -> (&'a str, WantedKernel<'a>) {
        let image = request.image.as_deref().unwrap_or(&self.defaults.image);
        (image, WantedKernel::of(request.kernel.as_deref(), &self.defaults.kernel))
    }

    /// Warnings about values that are allowed and exceed the host's capacity.
    pub(crate) fn capacity_warnings(request: &CreateVm, host: Capacity) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(vcpus) = request.vcpus.filter(|vcpus| *vcpus > host.cpus) {
            warnings
                .push(format!("{vcpus} vCPUs are more than the {} CPUs of this host", host.cpus));
        }
        let memory = request.memory_mib.map(|mib| mib.saturating_mul(MIB));
        if let Some(bytes) = memory.filter(|bytes| *bytes > host.memory_bytes) {
            let (wanted, has) = (human_size(bytes), human_size(host.memory_bytes));
            warnings.push(format!("{wanted} of memory are more than the {has} of this host"));
        }
        for (what, bytes) in [("root", request.root_bytes), ("work", request.work_bytes)] {
            if let Some(bytes) = bytes.filter(|bytes| *bytes > host.disk_free_bytes) {
                let (wanted, free) = (human_size(bytes), human_size(host.disk_free_bytes));
                warnings.push(format!("a {what} disk of {wanted} may fill up: {free} are free"));
            }
        }
        warnings
    }

    /// Reserves a name and an id.
    fn reserve(&self, wanted: Option<&str>) -> Result<Reserved, ApiError> {
        let host = &self.shared.drivers.host;
        let unreadable = self.unreadable_tags();
        let mut registry = self.registry();
        let taken = |name: &VmName| registry.has_name(name, &unreadable, None);
        let name = match wanted {
            Some(text) => {
                let name: VmName = text.parse().map_err(|bad: banger_api::names::BadName| {
                    ApiError::new(ErrorCode::BadRequest, bad.to_string())
                })?;
                if taken(&name) {
                    return Err(self.name_taken(&name));
                }
                name
            }
            None => {
                let mut round = 0;
                loop {
                    let extra = round / NAME_TRIES;
                    let name = VmName::friendly(host.entropy(), if extra == 0 { 0 } else { round });
                    if !taken(&name) {
                        break name;
                    }
                    round += 1;
                }
            }
        };
        let id = loop {
            let id = VmId::from_entropy(host.entropy());
            // Processes of two VMs must not run with the same uid, under any VMM.
            let mut ids = registry.vms.keys().chain(registry.preparing.keys());
            let known = ids.any(|other| *other == id || other.uid() == id.uid());
            if !known && !unreadable.iter().any(|vm| vm.id == id) {
                break id;
            }
        };
        registry.preparing.insert(id.clone(), Preparing { name: name.clone(), op: None });
        drop(registry);
        Ok(Reserved { engine: self.weak(), vm: VmTag { id, name } })
    }

    /// The error of a request for a name that another VM has.
    pub(crate) fn name_taken(&self, name: &VmName) -> ApiError {
        let force = self.unreadable_tags().iter().any(|vm| &vm.name == name);
        ApiError::new(ErrorCode::NameTaken, format!("there is a VM `{name}` already"))
            .with_hint(Hint::ChooseAnotherName)
            .with_hint(Hint::ask(name, VmAction::Delete { force }))
    }

    /// Fetches a missing image and kernel, makes all choices, and records them.
    async fn prepare(
        &self,
        op: &Arc<Op>,
        VmTag { id, name }: VmTag,
        request: CreateVm,
        build: Option<BuildPlan>,
    ) -> Result<(), ApiError> {
        let drivers = &self.shared.drivers;
        let (image, kernel) = self.boot_names(&request);
        let progress = Arc::new(OpProgress::new(op.clone(), stage::PULL_IMAGE));
        drivers.images.boot_set(image, kernel, progress.clone()).await?;
        // Fetching can take minutes, so the image is looked up again under the lock that prevents
        // its deletion until the VM is on record.
        let _in_use = self.images_in_use.read().await;
        let boot = drivers.images.boot_set(image, kernel, progress).await?;
        if *op.cancelled().borrow() {
            return Err(cancel::cancelled(op));
        }
        let root = if build.is_some() { RootContent::Whole } else { RootContent::Changes };
        let program = match build {
            // The programs of a build are those of its script.
            Some(_) => None,
            None => {
                let start = drivers.images.image_start(&boot.image).await?;
                let wanted = request.program.clone().unwrap_or_default();
                program::of(&wanted, &start, &boot.image_name)?
            }
        };
        let chosen = drivers.host.choose(&boot, root).await?;
        let now = drivers.host.now_unix_ms();
        let plan = VmPlan {
            id,
            name,
            drivers: chosen,
            lifetime: request.lifetime,
            machine_id: new_machine_id(&*drivers.host),
            created_unix_ms: now,
            boot,
            program,
            agent_login: request.agent_login.clone(),
            build,
        };
        let spec = VmSpec::of(&request, &self.defaults);
        let then = if request.no_start { ThenStart::No } else { ThenStart::Yes };
        let made = lists::planned(ListName::Create, &plan, &spec);
        let record = VmRecord::new(plan, spec, made);
        let put = Write::PutVm(Box::new(record.clone()));
        self.shared.store.commit(vec![put], Durability::Power).await?;
        self.spawn_task(record, InitialWork::Create(op.clone(), then));
        Ok(())
    }

    /// Adds a holder of a session-bound VM.
    ///
    /// # Errors
    /// Not found, or ambiguous.
    pub fn hold(&self, reference: &str) -> Result<VmId, ApiError> {
        let preparing = self
            .registry()
            .preparing
            .iter()
            .find(|(id, vm)| id.as_str() == reference || vm.name.as_str() == reference)
            .map(|(id, _)| id.clone());
        let id = match preparing {
            Some(id) => id,
            None => self.resolve(reference)?,
        };
        self.holds.add(&id);
        Ok(id)
    }

    /// Removes a holder; deletes the VM after the last one.
    pub async fn release_hold(&self, id: &VmId) {
        if self.holds.drop(id) == Remaining::None {
            self.end_session(id).await;
        }
    }

    /// Deletes a session-bound VM if it has no holder after [`HOLDER_GRACE`].
    pub(crate) fn expect_holder(&self, id: VmId) {
        let Some(engine) = self.arc() else { return };
        tokio::spawn(async move {
            tokio::time::sleep(HOLDER_GRACE).await;
            if !engine.holds.is_held(&id) {
                engine.end_session(&id).await;
            }
        });
    }

    async fn end_session(&self, id: &VmId) {
        let (handle, preparing) = {
            let registry = self.registry();
            let preparing = registry.preparing.get(id).and_then(|vm| vm.op.clone());
            (registry.vms.get(id).cloned(), preparing)
        };
        if let Some(op) = preparing {
            op.cancel();
        }
        let Some(handle) = handle else { return };
        let record = handle.published.borrow().record.clone();
        let keep = record.plan.lifetime != Lifetime::Session || record.inspect == Inspect::Yes;
        if keep {
            return;
        }
        if let Err(error) = self.ask(&handle, VmAction::Delete { force: true }).await {
            tracing::warn!(vm = %id, error = %error, "cannot delete the VM");
        }
    }
}
