//! Looks after what all VMs share on the host while one of them runs: somebody may flush the
//! firewall, or restart the resolver.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use banger_engine::Engine;
use banger_engine::capability::Need;
use tokio::sync::watch;

use crate::dns::Listening;
use crate::stopping::Stopping;

/// How often it looks. What a start needs is put right by the start itself.
const EVERY: Duration = Duration::from_secs(5);

/// The daemon's resolver, and where network drivers read its port.
pub struct Names {
    /// How it is.
    pub listening: watch::Receiver<Listening>,
    /// Its port, 0 while there is none.
    pub port: Arc<AtomicU16>,
}

/// Looks until the daemon is on its way out. Where no VM is on a network, and in the end, it lets
/// go of what is the daemon's: others may want it.
pub async fn keep(engine: Arc<Engine>, names: Names, stopping: Stopping) {
    loop {
        names.port.store(names.listening.borrow().port(), Ordering::Relaxed);
        let leased = engine.any_leased();
        // A start that is under way may have been given its place, which is not on record yet.
        let idle = !leased && engine.live_operations() == 0;
        let need = match (leased, idle) {
            (true, _) => Some(Need::InUse),
            (false, true) => Some(Need::Idle),
            (false, false) => None,
        };
        if let Some(need) = need {
            tend(&engine, need).await;
        }
        tokio::select! {
            () = stopping.asked() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    tend(&engine, Need::Idle).await;
}

async fn tend(engine: &Engine, need: Need) {
    for upkeep in engine.drivers().upkeep() {
        upkeep.tend(need).await;
    }
}
