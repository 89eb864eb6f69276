//! The interface of the engine: all VMs, operations, images and kernels of one state folder.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use banger_api::operation::{Accepted, VmTag};
use banger_api::reference;
use banger_api::vm::{AgentHealth, VmAction, VmDetails, VmHealth, VmState, VmSummary};
use banger_api::{ApiError, ErrorCode, Hint, VmId, VmName};
use tokio::sync::oneshot;

use crate::autostart;
use crate::drivers::Drivers;
use crate::holds::Holds;
use crate::oplog;
use crate::ops::{Op, Ops};
use crate::plan::VmPlan;
use crate::record::VmRecord;
use crate::recovery::{self, Action, Facts, HostSince};
use crate::refusals;
use crate::rename::Renaming;
use crate::shared::{Published, Shared};
use crate::store::{Durability, Loaded, OpRecord, Store, Unreadable, Write};
use crate::trace::Context;
use crate::unreadable;
use crate::view;
use crate::vm_task::{self, InitialWork, Message, VmHandle};

/// A VM whose image is being fetched: it has a name and an id, and is not stored yet.
pub(crate) struct Preparing {
    pub(crate) name: VmName,
    /// The operation that creates it, once it is on record.
    pub(crate) op: Option<Arc<Op>>,
}

#[derive(Default)]
pub(crate) struct Registry {
    pub(crate) vms: BTreeMap<VmId, VmHandle>,
    pub(crate) preparing: BTreeMap<VmId, Preparing>,
    pub(crate) renamings: Vec<Renaming>,
    /// Number of renamings so far.
    pub(crate) renamings_made: u64,
}

impl Registry {
    /// Whether a VM other than `except` has this name, or gets it. The records of `unreadable` VMs
    /// cannot be parsed.
    pub(crate) fn has_name(
        &self,
        name: &VmName,
        unreadable: &[VmTag],
        except: Option<&VmId>,
    ) -> bool {
        let others = self.vms.iter().filter(|(id, _)| Some(*id) != except);
        unreadable.iter().any(|vm| &vm.name == name)
            || others.into_iter().any(|(_, vm)| &vm.published.borrow().record.plan.name == name)
            || self.preparing.values().any(|vm| &vm.name == name)
            || self.renamings.iter().any(|one| one.keeps(name, except))
    }
}

/// All VMs of one state folder.
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
    pub(crate) registry: Mutex<Registry>,
    pub(crate) holds: Holds,
    pub(crate) defaults: banger_api::limits::VmDefaults,
    /// Locked while a create with a key is accepted.
    pub(crate) keyed: tokio::sync::Mutex<()>,
    /// [`Shared::images_in_use`].
    pub(crate) images_in_use: Arc<tokio::sync::RwLock<()>>,
    /// Rows that cannot be parsed.
    pub(crate) unreadable: Mutex<Vec<Unreadable>>,
    pub(crate) weak_self: Weak<Engine>,
}

impl Engine {
    /// Loads the store, decides on the recovery of each VM, and starts its task.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn open(
        store: Arc<dyn Store>,
        drivers: Drivers,
        defaults: banger_api::limits::VmDefaults,
    ) -> Result<Arc<Self>, ApiError> {
        let loaded = store.load().await?;
        let drivers = Arc::new(drivers);
        let changes = tokio::sync::watch::Sender::default();
        let (engine, images_in_use) = (OnceLock::new(), Arc::default());
        let ops = Ops::default();
        let shared = Shared { store, drivers, ops, changes, engine, images_in_use };
        let (images_in_use, shared) = (shared.images_in_use.clone(), Arc::new(shared));
        let Loaded { vms, open_ops, unreadable } = loaded;
        let engine = Arc::new_cyclic(|weak_self| Self {
            shared,
            registry: Mutex::default(),
            holds: Holds::default(),
            defaults,
            keyed: tokio::sync::Mutex::default(),
            images_in_use,
            unreadable: Mutex::new(unreadable),
            weak_self: weak_self.clone(),
        });
        // Set once, here.
        let _ = engine.shared.engine.set(engine.weak());
        let (open_ops, without_vm): (Vec<_>, Vec<_>) =
            open_ops.into_iter().partition(|(op, _)| op.subject.vm().is_some());
        let ends = open_ops.iter().map(|(op, _)| Write::EndOp {
            op: op.id.clone(),
            result: Err(recovery::interrupted(&op.id)),
        });
        let mut writes: Vec<Write> = ends.collect();
        let mut decided = Vec::new();
        for mut record in vms {
            autostart::complete(&mut record);
            let mut action = engine.decide(&record, &open_ops).await;
            // In one commit with the end of the operation: a later daemon would not see its log.
            if let Action::MarkBroken(problem) = action {
                tracing::error!(vm = %record.plan.id, problem, "operation log is invalid");
                record.mark_invalid(format!("its operation log is invalid: {problem}"));
                writes.push(Write::PutVm(Box::new(record.clone())));
                action = Action::Nothing;
            }
            decided.push((record, action));
        }
        // On a full disk the next daemon decides the same again; running VMs are adopted anyway.
        if let Err(error) = engine.shared.store.commit(writes, Durability::Process).await {
            tracing::error!(error = %error, causes = ?error.causes, "store");
        }
        for (record, action) in decided {
            engine.spawn_task(record, InitialWork::Recover(action));
        }
        engine.delete_build_vms();
        engine.clean_images(without_vm.into_iter().map(|(op, _)| op).collect());
        Ok(engine)
    }

    async fn decide(
        &self,
        record: &VmRecord,
        open_ops: &[(OpRecord, Vec<oplog::StepEvent>)],
    ) -> Action {
        let drivers = &self.shared.drivers;
        let plan = &record.plan;
        let log = open_ops
            .iter()
            .filter(|(op, _)| op.subject.vm().is_some_and(|vm| vm.id == plan.id))
            .try_for_each(|(op, log)| {
                oplog::check_all(log).map_err(|illegal| format!("{}: {illegal}", op.id))
            });
        let (run, host) = match (&record.run, drivers.vmm(plan)) {
            (Some(run), Ok(vmm)) => {
                let same = run.host_boot_id == drivers.host.boot_id();
                let host = if same { HostSince::Same } else { HostSince::Restarted };
                (vmm.facts(plan, run).await, host)
            }
            (None, _) | (_, Err(_)) => (crate::drivers::RunFacts::Nothing, HostSince::Same),
        };
        recovery::decide(record, &Facts { run, host, log })
    }

    /// Starts the task that owns a VM.
    pub(crate) fn spawn_task(&self, record: VmRecord, initial: InitialWork) {
        let id = record.plan.id.clone();
        let session = record.plan.lifetime == banger_api::vm::Lifetime::Session;
        let engine = self.weak();
        let removed_id = id.clone();
        let on_removed = Box::new(move || {
            if let Some(engine) = engine.upgrade() {
                engine.registry().vms.remove(&removed_id);
                engine.shared.changed();
            }
        });
        let mut registry = self.registry();
        let handle = vm_task::spawn(self.shared.clone(), record, initial, on_removed);
        registry.preparing.remove(&id);
        registry.vms.insert(id.clone(), handle);
        drop(registry);
        self.shared.changed();
        if session {
            self.expect_holder(id);
        }
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn weak(&self) -> Weak<Self> {
        self.weak_self.clone()
    }

    pub(crate) fn arc(&self) -> Option<Arc<Self>> {
        self.weak_self.upgrade()
    }

    /// The drivers.
    pub fn drivers(&self) -> &Drivers {
        &self.shared.drivers
    }

    /// Defaults of a new VM.
    pub fn defaults(&self) -> &banger_api::limits::VmDefaults {
        &self.defaults
    }

    pub(crate) fn all(&self) -> Vec<Published> {
        self.registry().vms.values().map(|handle| handle.published.borrow().clone()).collect()
    }

    /// Number of changes of VMs; when it changes, [`Self::states`] may have changed.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// All VMs for the feed of changes, by id.
    pub fn states(&self) -> Vec<banger_api::events::VmNow> {
        self.all().into_iter().map(view::now).collect()
    }

    /// Events of all operations, for the stream of events.
    pub fn operation_news(&self) -> &crate::op_news::OpNews {
        self.shared.ops.news()
    }

    /// The operations in progress, for the stream of events.
    pub fn operations_now(&self) -> Vec<banger_api::events::OperationNow> {
        self.shared.ops.live_ops().iter().filter_map(|op| op.now()).collect()
    }

    /// Ids of all VMs.
    pub fn ids(&self) -> Vec<VmId> {
        self.registry().vms.keys().cloned().collect()
    }

    /// Number of VMs.
    pub fn count(&self) -> usize {
        self.registry().vms.len()
    }

    /// All VMs, by name.
    pub async fn list(&self) -> Vec<VmSummary> {
        let mut list = Vec::new();
        for published in self.all() {
            list.push(view::summary(&self.shared.drivers, &published).await);
        }
        list.extend(self.unreadable_summaries());
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// Address of a running VM, by its name.
    pub fn address_of(&self, name: &str) -> Option<core::net::Ipv4Addr> {
        let runs = |vm: &VmHandle| {
            let published = vm.published.borrow();
            let record = &published.record;
            let found = record.plan.name.as_str() == name
                && matches!(record.state, VmState::Running | VmState::Paused);
            found.then(|| record.clone())
        };
        let record = self.registry().vms.values().find_map(runs)?;
        record.run.as_ref()?.lease.as_ref().map(|lease| lease.address)
    }

    /// Finds a VM by name, id or unique prefix.
    ///
    /// # Errors
    /// Not found, or ambiguous.
    pub fn resolve(&self, reference: &str) -> Result<VmId, ApiError> {
        let all = self.all();
        let listing = all.iter().map(|vm| (&vm.record.plan.id, &vm.record.plan.name));
        let unreadable = self.unreadable_tags();
        let unreadable = unreadable.iter().map(|vm| (&vm.id, &vm.name));
        reference::resolve(listing.chain(unreadable), reference)
    }

    pub(crate) fn handle(&self, reference: &str) -> Result<VmHandle, ApiError> {
        let id = self.resolve(reference)?;
        let handle = self.registry().vms.get(&id).cloned();
        handle.ok_or_else(|| match self.unreadable_row(&id) {
            Some(row) => unreadable::explain(&row),
            None => ApiError::new(ErrorCode::NotFound, format!("`{reference}` was deleted")),
        })
    }

    /// Details of one VM.
    ///
    /// # Errors
    /// Not found, or ambiguous.
    pub async fn show(&self, reference: &str) -> Result<VmDetails, ApiError> {
        let published = self.handle(reference)?.published.borrow().clone();
        Ok(view::details(&self.shared.drivers, &published).await)
    }

    /// Requests an action on a VM.
    ///
    /// # Errors
    /// Not found, refused, or the store fails.
    pub async fn request(&self, reference: &str, action: VmAction) -> Result<Accepted, ApiError> {
        action.check()?;
        if action == (VmAction::Delete { force: true })
            && let Some(row) = self.resolve(reference).ok().and_then(|id| self.unreadable_row(&id))
        {
            return self.set_aside(row).await;
        }
        if let VmAction::Rename { name } = &action {
            return self.rename(reference, name).await;
        }
        self.ask(&self.handle(reference)?, action).await
    }

    pub(crate) async fn ask(
        &self,
        handle: &VmHandle,
        action: VmAction,
    ) -> Result<Accepted, ApiError> {
        let urgent = matches!(action, VmAction::Kill {} | VmAction::Delete { force: true });
        let channel = if urgent { &handle.urgent } else { &handle.mailbox };
        let (reply, answer) = oneshot::channel();
        let message = Message::Request { action, context: Context::current(), reply };
        let gone = || ApiError::new(ErrorCode::NotFound, "the VM was deleted in the meantime");
        channel.send(message).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Whether a VM has a lease of an address on the bridge.
    pub fn any_leased(&self) -> bool {
        let leased = |vm: &Published| vm.record.run.as_ref().is_some_and(|run| run.lease.is_some());
        self.all().iter().any(leased)
    }

    /// Health of the guest agent of a VM; an agent that does not answer is a result, not an error.
    ///
    /// # Errors
    /// Not found, or ambiguous.
    pub async fn health(&self, reference: &str) -> Result<VmHealth, ApiError> {
        let record = self.handle(reference)?.published.borrow().record.clone();
        let mut health = VmHealth {
            id: record.plan.id.clone(),
            name: record.plan.name.clone(),
            state: record.state,
            agent: AgentHealth::NotRunning,
            reason: None,
            round_trip_us: None,
            uptime_ms: None,
            boot_id: None,
            agent_restarts: None,
            warning: None,
        };
        if record.state == VmState::Running {
            match self.shared.drivers.guest.health(&record.plan).await {
                Ok(answer) => {
                    health.agent = AgentHealth::Ok;
                    health.round_trip_us = Some(answer.round_trip_us);
                    health.uptime_ms = Some(answer.uptime_ms);
                    health.boot_id = Some(answer.boot_id);
                    health.agent_restarts = Some(answer.agent_restarts);
                    health.warning = view::agent_warning(&record.plan.name, answer.agent_restarts);
                }
                Err(error) => {
                    tracing::warn!(vm = %record.plan.id, error = %error, "agent lost");
                    health.agent = AgentHealth::Lost;
                    health.reason = Some(error.causes.last().unwrap_or(&error.message).clone());
                }
            }
        }
        Ok(health)
    }

    /// The plan of a running VM, for a connection to its agent.
    ///
    /// # Errors
    /// Not found, ambiguous, or not running.
    pub fn running_plan(&self, reference: &str) -> Result<VmPlan, ApiError> {
        let record = self.handle(reference)?.published.borrow().record.clone();
        if record.state == VmState::Running {
            return Ok(record.plan.clone());
        }
        Err(self.not_running(&record))
    }

    /// The error of a request to the agent of a VM that is not running.
    pub(crate) fn not_running(&self, record: &VmRecord) -> ApiError {
        let name = &record.plan.name;
        let text = format!("`{name}` is {}", record.state.as_str());
        let way = match record.state {
            VmState::Paused => VmAction::Resume {},
            _ => VmAction::Start {},
        };
        let mut error = ApiError::new(ErrorCode::WrongState, text).with_hint(Hint::ask(name, way));
        error.causes = record.because.as_ref().map(refusals::story).unwrap_or_default();
        error
    }
}
