//! Live folders: a session for each one of a running VM, as the records of VMs demand.
//!
//! The service compares what is wanted with the sessions that run whenever a VM changes, so that a
//! restart of the daemon or of a VM needs nothing else: a session that ended begins again. The
//! state that both sides agreed on stays in `live-folders/VM/` of the state folder as long as the
//! VM has the folder.

mod connect;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use banger_api::VmId;
use banger_api::sync::{SyncFolder, SyncView};
use banger_engine::Engine;
use banger_engine::capabilities::live_folders::VmFolders;
use banger_engine::plan::VmPlan;
use banger_sync::base::{self, Base};
use banger_sync::{Folders, Session};
use banger_sync_side::Identity;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::stopping::Stopping;

/// Changes of VMs within this time are taken together.
const PAUSE: Duration = Duration::from_millis(20);
/// First and longest pause before a session that ended begins again.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long sessions may take to save their state when the daemon ends.
const END_TIMEOUT: Duration = Duration::from_secs(3);
/// Free bytes of the host's disk below which nothing is written to a folder.
const RESERVE_BYTES: u64 = 512 << 20;
/// Folder in the state folder.
pub const FOLDER: &str = "live-folders";

/// A session is for one folder in one boot of a VM.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    vm: VmId,
    boot_id: String,
    host: Vec<u8>,
    guest: Vec<u8>,
    ignore: Vec<String>,
}

/// A folder that is kept alike.
struct Kept {
    current: Mutex<Current>,
    cancel: Notify,
}

#[derive(Default)]
struct Current {
    session: Option<Arc<Session>>,
    /// Why there is none.
    message: Option<String>,
    /// Whether a user has to do something first.
    halted: bool,
    cancelled: bool,
}

impl Kept {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cancel(&self) {
        let mut current = self.current();
        current.cancelled = true;
        if let Some(session) = &current.session {
            session.stop();
        }
        drop(current);
        self.cancel.notify_one();
    }
}

/// The sessions, each with its task.
type Running = BTreeMap<Key, (Arc<Kept>, JoinHandle<()>)>;

/// The sessions of all VMs.
pub struct LiveFolders {
    engine: Arc<Engine>,
    state: PathBuf,
    running: Mutex<Running>,
}

impl LiveFolders {
    /// Sessions with their state in the state folder.
    pub fn new(engine: Arc<Engine>, state: &Path) -> Arc<Self> {
        let running = Mutex::default();
        Arc::new(Self { engine, state: state.join(FOLDER), running })
    }

    /// Runs until the daemon shuts down.
    pub async fn follow(self: Arc<Self>, stopping: Stopping) {
        let mut changes = self.engine.changes();
        loop {
            changes.mark_unchanged();
            self.update(self.engine.live_folders());
            tokio::select! {
                () = stopping.requested() => break,
                changed = changes.changed() => if changed.is_err() { break },
            }
            tokio::time::sleep(PAUSE).await;
        }
        let sessions = std::mem::take(&mut *self.running());
        sessions.values().for_each(|(kept, _)| kept.cancel());
        let ended = async {
            for (_, task) in sessions.into_values() {
                let _ = task.await;
            }
        };
        // The rest begins again with a state that is older, which costs no file.
        let _ = tokio::time::timeout(END_TIMEOUT, ended).await;
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins and ends sessions, and removes states that nothing needs any more.
    fn update(&self, vms: Vec<VmFolders>) {
        let mut wanted = BTreeMap::new();
        for VmFolders { vm, boot_id, folders } in &vms {
            let Some(boot_id) = boot_id else { continue };
            for folder in folders {
                let key = Key {
                    vm: vm.id.clone(),
                    boot_id: boot_id.clone(),
                    host: folder.host.as_bytes().to_vec(),
                    guest: folder.guest.as_bytes().to_vec(),
                    ignore: folder.ignore.clone(),
                };
                wanted.insert(key, (vm.clone(), folder.clone()));
            }
        }
        let mut running = self.running();
        let mut ending = BTreeMap::new();
        running.retain(|key, (kept, task)| {
            let is_wanted = wanted.contains_key(key);
            if !is_wanted {
                kept.cancel();
                let ended = std::mem::replace(task, tokio::spawn(async {}));
                let place = (key.vm.clone(), key.host.clone(), key.guest.clone());
                ending.insert(place, ended);
            }
            is_wanted
        });
        for (key, (vm, folder)) in wanted {
            let place = (key.vm.clone(), key.host.clone(), key.guest.clone());
            running.entry(key).or_insert_with(|| {
                let kept = Arc::new(Kept { current: Mutex::default(), cancel: Notify::new() });
                let (engine, base) = (self.engine.clone(), self.base(&vm.id, &folder));
                let (task, before) = (kept.clone(), ending.remove(&place));
                let begun = tokio::spawn(async move {
                    if let Some(before) = before {
                        // Two sessions must not write the same state.
                        let _ = before.await;
                    }
                    task.keep(&engine, &vm, &folder, &base).await;
                });
                (kept, begun)
            });
        }
        drop(running);
        self.remove_states(&vms);
    }

    /// File of the state of a folder.
    fn base(&self, vm: &VmId, folder: &SyncFolder) -> PathBuf {
        let name = base::file_name(folder.host.as_bytes(), folder.guest.as_bytes());
        self.state.join(vm.as_str()).join(name)
    }

    /// Removes states of folders that no VM has any more.
    fn remove_states(&self, vms: &[VmFolders]) {
        let mut needed: BTreeSet<PathBuf> = BTreeSet::new();
        for VmFolders { vm, folders, .. } in vms {
            needed.extend(folders.iter().map(|folder| self.base(&vm.id, folder)));
        }
        let Ok(folders) = std::fs::read_dir(&self.state) else { return };
        for folder in folders.flatten() {
            for file in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                if !needed.contains(&file.path().with_extension("base")) {
                    let _ = std::fs::remove_file(file.path());
                }
            }
            // It stays as long as it has files.
            let _ = std::fs::remove_dir(folder.path());
        }
    }

    /// Has the sessions of a VM look at their folders as a whole.
    pub fn look(&self, vm: &VmId) {
        for (_, (kept, _)) in self.running().iter().filter(|(key, _)| key.vm == *vm) {
            if let Some(session) = &kept.current().session {
                session.look();
            }
        }
    }

    /// The live folders of a VM with their state.
    pub fn views(&self, vm: &VmId) -> Vec<SyncView> {
        let all = self.engine.live_folders();
        let Some(found) = all.into_iter().find(|found| found.vm.id == *vm) else {
            return Vec::new();
        };
        let running = self.running();
        let view = |folder: SyncFolder| {
            let is_it = |key: &&Key| {
                key.vm == *vm
                    && key.host == folder.host.as_bytes()
                    && key.guest == folder.guest.as_bytes()
            };
            let kept = running.iter().find(|(key, _)| is_it(key)).map(|(_, (kept, _))| kept);
            match kept {
                Some(kept) => {
                    let current = kept.current();
                    let status = current.session.as_ref().map(|session| session.status());
                    let message = current.message.clone();
                    view::view(folder, status, message, current.halted)
                }
                None => view::view(folder, None, Some("the VM is not running".into()), false),
            }
        };
        found.folders.into_iter().map(view).collect()
    }
}

impl Kept {
    /// Runs one session after another until cancelled.
    async fn keep(&self, engine: &Arc<Engine>, vm: &VmPlan, folder: &SyncFolder, base: &Path) {
        let mut pause = RETRY.0;
        while !self.current().cancelled {
            let ended = self.session(engine, vm, folder, base).await;
            self.current().session = None;
            let Err(problem) = ended else { return };
            tracing::info!(
                vm = %vm.id, folder = %folder.host, reason = problem.message,
                "a live folder waits"
            );
            self.wait_for(problem);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.cancel.notified() => {}
            }
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// Notes a session, unless it is to end already.
    fn begin(&self, session: &Arc<Session>) -> bool {
        let mut current = self.current();
        if !current.cancelled {
            current.session = Some(session.clone());
            (current.message, current.halted) = (None, false);
        }
        !current.cancelled
    }

    fn wait_for(&self, problem: view::Problem) {
        let mut current = self.current();
        (current.message, current.halted) = (Some(problem.message), problem.halted);
    }

    /// One session; `Ok` if it was cancelled.
    async fn session(
        &self,
        engine: &Arc<Engine>,
        vm: &VmPlan,
        folder: &SyncFolder,
        base: &Path,
    ) -> Result<(), view::Problem> {
        if let Some(parent) = base.parent() {
            std::fs::create_dir_all(parent).map_err(view::Problem::state)?;
        }
        // With a state, a folder that is missing was removed: it is not made again.
        let is_new = Base::open(base).map_err(view::Problem::state)?.is_new();
        Identity::of(folder.host.as_path())
            .map_err(|error| view::Problem::host_folder(&error, folder))?;
        let connecting = connect::connect(engine, vm, folder, is_new);
        let guest = tokio::select! {
            connected = connecting => connected?,
            () = self.cancel.notified() => return Ok(()),
        };
        let session = Arc::new(Session::default());
        if !self.begin(&session) {
            return Ok(());
        }
        let folders = Folders {
            host: folder.host.as_path().to_owned(),
            ignore: folder.ignore.clone(),
            base: base.to_owned(),
            reserve_bytes: RESERVE_BYTES,
        };
        // A change of the VM is noticed a moment after it; what a user does in that moment counts.
        let (engine, vm, wanted) = (engine.clone(), vm.id.clone(), folder.clone());
        let is_wanted = move || engine.has_live_folder(&vm, &wanted);
        let run = move || session.run(&folders, guest, &is_wanted);
        let end = tokio::task::spawn_blocking(run).await;
        match end {
            Ok(end) => view::ended(end, folder),
            Err(error) => Err(view::Problem::state(std::io::Error::other(error))),
        }
    }
}
