//! A simulated machine whose daemon can be killed at any event: what is in the store and on the
//! host stays, everything else of the daemon is gone at once.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use banger_api::limits::VmDefaults;
use banger_api::operation::OpState;
use banger_api::{ApiError, ErrorCode, OpId, VmId};
use banger_engine::Engine;
use banger_engine::oplog::StepEvent;
use banger_engine::record::VmRecord;
use banger_engine::sim::Sim;
use banger_engine::sim::world::{Fault, World};
use banger_engine::store::{Durability, Loaded, OpRecord, Store, Unreadable, Write};
use tokio::sync::Notify;

/// What goes wrong with a daemon, counted in events: commits and changes of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doom {
    /// Nothing.
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
    /// It had nothing left to do.
    Quiet,
    /// It was killed.
    Killed,
}

/// One daemon's life.
struct Life {
    doom: Doom,
    events: AtomicUsize,
    commits: AtomicUsize,
    dead: AtomicBool,
    died: Notify,
}

/// Whether the daemon lives on.
#[derive(PartialEq, Eq)]
enum Event {
    LivesOn,
    Kills,
}

impl Life {
    fn event(&self) -> Event {
        // Tasks that run until the runtime is dropped change nothing any more.
        if self.dead.load(Ordering::Relaxed) {
            return Event::Kills;
        }
        let number = self.events.fetch_add(1, Ordering::Relaxed);
        if self.doom == Doom::KillAt(number) {
            self.dead.store(true, Ordering::Relaxed);
            self.died.notify_one();
            return Event::Kills;
        }
        Event::LivesOn
    }

    async fn event_in_task(&self) {
        if self.event() == Event::Kills {
            std::future::pending::<()>().await;
        }
    }
}

/// What is on the disk of the machine.
#[derive(Default)]
pub struct Disk {
    pub vms: BTreeMap<VmId, VmRecord>,
    pub ops: Vec<OpRecord>,
    pub logs: BTreeMap<OpId, Vec<StepEvent>>,
    pub unreadable: Vec<Unreadable>,
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

/// What a daemon did.
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

    /// The same store and host again.
    pub fn copy(&self) -> Self {
        let disk = self.disk();
        let disk = Disk {
            vms: disk.vms.clone(),
            ops: disk.ops.clone(),
            logs: disk.logs.clone(),
            unreadable: disk.unreadable.clone(),
        };
        Self { disk: Arc::new(Mutex::new(disk)), world: Arc::new(Mutex::new(self.world())) }
    }

    /// The only VM, if there is one.
    pub fn vm(&self) -> Option<VmRecord> {
        let disk = self.disk();
        assert!(disk.vms.len() <= 1);
        disk.vms.values().next().cloned()
    }

    /// Runs a daemon until it is quiet after `work`, or is killed.
    pub fn daemon(
        &self,
        doom: Doom,
        faults: &[Fault],
        work: impl AsyncFnOnce(&Engine, &Sim),
    ) -> Report {
        let life = Arc::new(Life {
            doom,
            events: AtomicUsize::new(0),
            commits: AtomicUsize::new(0),
            dead: AtomicBool::new(false),
            died: Notify::new(),
        });
        let sink = {
            let (life, world) = (life.clone(), self.world.clone());
            Box::new(move |now: &World, _: &[String]| {
                if !life.dead.load(Ordering::Relaxed) {
                    *locked(&world) = now.clone();
                }
                if life.event() == Event::Kills {
                    // Ends the task that made the change at once, without a message.
                    resume_unwind(Box::new("killed"));
                }
            })
        };
        let nobody = Box::new(|_: &_| Err(ApiError::new(ErrorCode::GuestFailed, "no agent")));
        let random = self.disk().ops.len() as u64 + 1;
        let sim = Sim::new(self.world(), random, sink, nobody);
        faults.iter().for_each(|fault| sim.fail(fault.clone()));
        let store = Arc::new(Memory { disk: self.disk.clone(), life: life.clone() });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let live = async {
            let lives = async {
                let drivers = sim.drivers(Arc::new(|_| ()));
                let defaults = VmDefaults::for_host(2, 4 << 30);
                let engine = Engine::open(store, drivers, defaults).await.unwrap();
                engine.quiet().await;
                work(&engine, &sim).await;
                engine.quiet().await;
            };
            tokio::select! {
                biased;
                () = life.died.notified() => Ended::Killed,
                () = lives => Ended::Quiet,
            }
        };
        // A change of the host that kills the daemon may be made by this very task.
        let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(live)));
        let ended = ended.unwrap_or_else(|panic| {
            if life.dead.load(Ordering::Relaxed) { Ended::Killed } else { resume_unwind(panic) }
        });
        // Every task of it is dropped where it stands.
        drop(runtime);
        Report {
            ended,
            events: life.events.load(Ordering::Relaxed),
            commits: life.commits.load(Ordering::Relaxed),
            tried: sim.tried().into_iter().collect(),
        }
    }
}

/// The store of one daemon.
struct Memory {
    disk: Arc<Mutex<Disk>>,
    life: Arc<Life>,
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
        self.life.event_in_task().await;
        let number = self.life.commits.fetch_add(1, Ordering::Relaxed);
        let fails = match self.life.doom {
            Doom::FailCommit(failing) => number == failing,
            Doom::FailCommitsFrom(first) => number >= first,
            Doom::None | Doom::KillAt(_) => false,
        };
        if fails {
            return Err(ApiError::new(ErrorCode::NoSpace, "the simulated disk is full"));
        }
        locked(&self.disk).apply(writes);
        self.life.event_in_task().await;
        Ok(())
    }

    async fn operation(&self, id: &OpId) -> Result<Option<OpRecord>, ApiError> {
        Ok(locked(&self.disk).ops.iter().find(|op| &op.id == id).cloned())
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
                Write::SetAside(id) => self.unreadable.retain(|row| row.id != id),
            }
        }
    }
}
