//! A simulated machine whose daemon can be killed at any event: store and host stay, all other
//! state of the daemon is lost at once.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use banger_api::idempotency::IdempotencyKey;
use banger_api::limits::VmDefaults;
use banger_api::operation::OpState;
use banger_api::{ApiError, ErrorCode, OpId, VmId};
use banger_engine::Engine;
use banger_engine::oplog::StepEvent;
use banger_engine::record::VmRecord;
use banger_engine::sim::Sim;
use banger_engine::sim::world::{Fault, World};
use banger_engine::store::{Durability, KeptAnswer, Loaded, OpRecord, Store, Unreadable, Write};
use tokio::sync::Notify;

/// The injected fault of a daemon. An event is a commit or a change of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DaemonFault {
    /// No fault.
    None,
    /// It is killed at this event.
    KillAt(usize),
    /// This commit fails.
    FailCommit(usize),
    /// This commit and all after it fail.
    FailCommitsFrom(usize),
}

/// How a daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// No operation was in progress.
    Idle,
    /// It was killed.
    Killed,
}

/// One daemon's run.
struct DaemonRun {
    daemon_fault: DaemonFault,
    events: AtomicUsize,
    commits: AtomicUsize,
    dead: AtomicBool,
    died: Notify,
}

/// Effect of an event on the daemon.
#[derive(PartialEq, Eq)]
enum Event {
    Continues,
    Kills,
}

impl DaemonRun {
    fn event(&self) -> Event {
        // Tasks that still run until the runtime is dropped change nothing.
        if self.dead.load(Ordering::Relaxed) {
            return Event::Kills;
        }
        let number = self.events.fetch_add(1, Ordering::Relaxed);
        if self.daemon_fault == DaemonFault::KillAt(number) {
            self.dead.store(true, Ordering::Relaxed);
            self.died.notify_one();
            return Event::Kills;
        }
        Event::Continues
    }

    async fn event_in_task(&self) {
        if self.event() == Event::Kills {
            std::future::pending::<()>().await;
        }
    }
}

/// The store of the machine.
#[derive(Default)]
pub struct Disk {
    pub vms: BTreeMap<VmId, VmRecord>,
    pub ops: Vec<OpRecord>,
    pub logs: BTreeMap<OpId, Vec<StepEvent>>,
    pub unreadable: Vec<Unreadable>,
    /// Answers to requests with a key.
    pub answers: Vec<KeptAnswer>,
}

/// The machine.
#[derive(Default)]
pub struct Machine {
    disk: Arc<Mutex<Disk>>,
    world: Arc<Mutex<World>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Result of a daemon.
pub struct Report {
    pub ended: Ended,
    /// Events that happened.
    pub events: usize,
    /// Commits among them.
    pub commits: usize,
    /// Effects that were tried.
    pub tried: Vec<String>,
}

impl Machine {
    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        locked(&self.disk)
    }

    pub fn world(&self) -> World {
        locked(&self.world).clone()
    }

    /// Adds an object of a VM that the daemon may not know.
    pub fn add_object(&self, kind: &str, vm: &VmId) {
        locked(&self.world).insert(kind, vm, String::new());
    }

    /// Removes the files of all images.
    pub fn lose_images(&self) {
        locked(&self.world).fetched.retain(|key, _| !key.starts_with("image:"));
    }

    /// The same store and host again.
    pub fn copy(&self) -> Self {
        let disk = self.disk();
        let disk = Disk {
            vms: disk.vms.clone(),
            ops: disk.ops.clone(),
            logs: disk.logs.clone(),
            unreadable: disk.unreadable.clone(),
            answers: disk.answers.clone(),
        };
        Self { disk: Arc::new(Mutex::new(disk)), world: Arc::new(Mutex::new(self.world())) }
    }

    /// Restarts the host: only objects of these kinds are left.
    pub fn restart_host(&self, lasting: &[String]) {
        let mut world = locked(&self.world);
        let is_lasting = |key: &String| lasting.iter().any(|kind| key.starts_with(kind));
        world.objects.retain(|key, _| is_lasting(key));
        world.restarts += 1;
    }

    /// Kills all shims and VMMs.
    pub fn kill_processes(&self) {
        let is_process = |key: &String| key.starts_with("shim:") || key.starts_with("vmm:");
        locked(&self.world).objects.retain(|key, _| !is_process(key));
    }

    /// The only VM, if there is one.
    pub fn vm(&self) -> Option<VmRecord> {
        let disk = self.disk();
        assert!(disk.vms.len() <= 1);
        disk.vms.values().next().cloned()
    }

    /// Runs a daemon until it is idle after `work`, or is killed.
    pub fn daemon(
        &self,
        daemon_fault: DaemonFault,
        faults: &[Fault],
        work: impl AsyncFnOnce(&Engine, &Sim),
    ) -> Report {
        // Tokio's default.
        self.run(daemon_fault, faults, 61, work)
    }

    /// The same; `work` gets its turn after each turn of another task.
    pub fn daemon_in_turns(&self, work: impl AsyncFnOnce(&Engine, &Sim)) -> Report {
        self.run(DaemonFault::None, &[], 1, work)
    }

    fn run(
        &self,
        daemon_fault: DaemonFault,
        faults: &[Fault],
        interval: u32,
        work: impl AsyncFnOnce(&Engine, &Sim),
    ) -> Report {
        let run = Arc::new(DaemonRun {
            daemon_fault,
            events: AtomicUsize::new(0),
            commits: AtomicUsize::new(0),
            dead: AtomicBool::new(false),
            died: Notify::new(),
        });
        let sink = {
            let (run, world) = (run.clone(), self.world.clone());
            Box::new(move |now: &World, _: &[String]| {
                if !run.dead.load(Ordering::Relaxed) {
                    *locked(&world) = now.clone();
                }
                if run.event() == Event::Kills {
                    // Ends the task that made the change at once, without a message.
                    resume_unwind(Box::new("killed"));
                }
            })
        };
        let no_agent = Box::new(|_: &_| Err(ApiError::new(ErrorCode::GuestFailed, "no agent")));
        let random = self.disk().ops.len() as u64 + 1;
        let sim = Sim::new(self.world(), random, sink, no_agent);
        faults.iter().for_each(|fault| sim.fail(fault.clone()));
        let store = Arc::new(Memory { disk: self.disk.clone(), run: run.clone() });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .event_interval(interval)
            .build()
            .unwrap();
        let daemon = async {
            let work = async {
                let drivers = sim.drivers(Arc::new(|_| ()));
                let defaults = VmDefaults::for_host(2, 4 << 30);
                let engine = Engine::open(store, drivers, defaults).await.unwrap();
                engine.idle().await;
                work(&engine, &sim).await;
                engine.idle().await;
            };
            tokio::select! {
                biased;
                () = run.died.notified() => Ended::Killed,
                () = work => Ended::Idle,
            }
        };
        // A change of the host that kills the daemon may be made by this very task.
        let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(daemon)));
        let ended = ended.unwrap_or_else(|panic| {
            if run.dead.load(Ordering::Relaxed) { Ended::Killed } else { resume_unwind(panic) }
        });
        // Drops all its tasks.
        drop(runtime);
        Report {
            ended,
            events: run.events.load(Ordering::Relaxed),
            commits: run.commits.load(Ordering::Relaxed),
            tried: sim.tried().into_iter().collect(),
        }
    }
}

/// The store of one daemon.
struct Memory {
    disk: Arc<Mutex<Disk>>,
    run: Arc<DaemonRun>,
}

#[async_trait]
impl Store for Memory {
    async fn load(&self) -> Result<Loaded, ApiError> {
        let disk = locked(&self.disk);
        let open = disk.ops.iter().filter(|op| op.state == OpState::Running);
        let with_log =
            |op: &OpRecord| (op.clone(), disk.logs.get(&op.id).cloned().unwrap_or_default());
        Ok(Loaded {
            vms: disk.vms.values().cloned().collect(),
            open_ops: open.map(with_log).collect(),
            unreadable: disk.unreadable.clone(),
        })
    }

    async fn commit(&self, writes: Vec<Write>, _durability: Durability) -> Result<(), ApiError> {
        self.run.event_in_task().await;
        let number = self.run.commits.fetch_add(1, Ordering::Relaxed);
        let fails = match self.run.daemon_fault {
            DaemonFault::FailCommit(failing) => number == failing,
            DaemonFault::FailCommitsFrom(first) => number >= first,
            DaemonFault::None | DaemonFault::KillAt(_) => false,
        };
        if fails {
            return Err(ApiError::new(ErrorCode::NoSpace, "the simulated disk is full"));
        }
        locked(&self.disk).apply(writes);
        self.run.event_in_task().await;
        Ok(())
    }

    async fn operation(&self, id: &OpId) -> Result<Option<OpRecord>, ApiError> {
        Ok(locked(&self.disk).ops.iter().find(|op| &op.id == id).cloned())
    }

    async fn kept_answer(&self, key: &IdempotencyKey) -> Result<Option<KeptAnswer>, ApiError> {
        Ok(locked(&self.disk).answers.iter().find(|kept| &kept.key == key).cloned())
    }

    async fn operations(&self, limit: u32) -> Result<Vec<OpRecord>, ApiError> {
        Ok(locked(&self.disk).ops.iter().rev().take(limit as usize).cloned().collect())
    }

    async fn log(&self, id: &OpId) -> Result<Vec<StepEvent>, ApiError> {
        Ok(locked(&self.disk).logs.get(id).cloned().unwrap_or_default())
    }
}

impl Disk {
    fn apply(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::AddOp(op) => self.ops.push(op),
                Write::Log(op, event) => {
                    assert!(self.ops.iter().any(|known| known.id == op), "a log of no operation");
                    self.logs.entry(op).or_default().push(event);
                }
                Write::EndOp { op, result } => {
                    let known = self.ops.iter_mut().find(|known| known.id == op).unwrap();
                    (known.state, known.made, known.error) = match result {
                        Ok(made) => (OpState::Succeeded, made, None),
                        Err(error) => (OpState::Failed, None, Some(error)),
                    };
                }
                Write::PutVm(vm) => drop(self.vms.insert(vm.plan.id.clone(), *vm)),
                Write::RemoveVm(id) => drop(self.vms.remove(&id)),
                Write::KeepAnswer(kept) => self.answers.push(*kept),
                Write::SetAside(id) => self.unreadable.retain(|row| row.id != id),
            }
        }
    }
}
