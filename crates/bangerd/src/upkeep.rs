//! Periodic maintenance while VMs are running: of shared host state, since other programs may flush
//! the firewall or restart the DNS resolver, and of disks that the host could not write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use banger_engine::Engine;
use banger_engine::capability::Usage;
use tokio::sync::watch;

use crate::dns::Listening;
use crate::stopping::Stopping;

/// Interval. A start restores the state that it needs itself.
const EVERY: Duration = Duration::from_secs(5);

/// The daemon's DNS server, and the variable from which network drivers read its port.
pub struct DnsPort {
    /// State of the DNS server.
    pub listening: watch::Receiver<Listening>,
    /// Its port; 0 if it is not running.
    pub port: Arc<AtomicU16>,
}

/// Runs until the daemon stops. If no VM uses a network, and at the end, it releases the daemon's
/// shared state, which another daemon may usage.
pub async fn run(engine: Arc<Engine>, dns: DnsPort, stopping: Stopping) {
    loop {
        dns.port.store(dns.listening.borrow().port(), Ordering::Relaxed);
        let leased = engine.any_leased();
        // A start in progress may hold a lease that is not recorded yet.
        let idle = !leased && engine.live_operations() == 0;
        let usage = match (leased, idle) {
            (true, _) => Some(Usage::InUse),
            (false, true) => Some(Usage::Idle),
            (false, false) => None,
        };
        if let Some(usage) = usage {
            run_upkeep(&engine, usage).await;
        }
        engine.repair_disks().await;
        tokio::select! {
            () = stopping.requested() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    run_upkeep(&engine, Usage::Idle).await;
}

async fn run_upkeep(engine: &Engine, usage: Usage) {
    for upkeep in engine.drivers().upkeep() {
        upkeep.maintain(usage).await;
    }
}
