//! Corrects the clocks of running guests: compares them with the host's clock periodically, and all
//! at once after the host's clock has jumped, for example after a suspend.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use banger_api::VmId;
use banger_engine::Engine;
use banger_engine::drivers::GuestClock;
use tokio::task::JoinSet;

use crate::stopping::Stopping;

/// Interval of the checks of the host's clock (a tick).
const EVERY: Duration = Duration::from_secs(1);

/// Number of ticks in which each guest is compared once.
const ROUND: u64 = 30;

/// Number of ticks in which a guest is compared every time after its clock was wrong: under
/// emulation on a busy host, a guest may lose seconds per minute.
const WATCHED: u64 = 60;

/// Maximum number of concurrent comparisons.
const AT_ONCE: usize = 8;

/// Maximum drift between the host's wall clock and its monotonic clock per tick: NTP slews by 0.05
/// %.
const JUMP_NS: i128 = 50_000_000;

/// Runs until the daemon shuts down.
pub async fn follow(engine: Arc<Engine>, stopping: Stopping) {
    let mut before = wall_against_monotonic();
    let mut watched = Watched::default();
    for tick in 0u64.. {
        tokio::select! {
            () = stopping.requested() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let now = wall_against_monotonic();
        let has_jumped = (now - before).abs() > JUMP_NS;
        if has_jumped {
            tracing::info!(by_ms = (now - before) / 1_000_000, "the host's clock has jumped");
        }
        before = now;
        let due = watched.due(engine.ids(), tick, has_jumped);
        for vm in correct(&engine, due).await {
            watched.until.insert(vm, tick + WATCHED);
        }
    }
}

/// Guests whose clock was wrong, with the tick until which they are compared every time.
#[derive(Default)]
struct Watched {
    until: HashMap<VmId, u64>,
}

impl Watched {
    /// The guests to compare in this tick.
    fn due(&mut self, ids: Vec<VmId>, tick: u64, all: bool) -> Vec<VmId> {
        self.until.retain(|_, until| *until > tick);
        let places = ids.into_iter().zip(0u64..);
        let due = places.filter(|(id, place)| {
            all || place % ROUND == tick % ROUND || self.until.contains_key(id)
        });
        due.map(|(id, _)| id).collect()
    }
}

/// Corrects the clocks of these guests; returns the guests whose clock was wrong.
async fn correct(engine: &Arc<Engine>, ids: Vec<VmId>) -> Vec<VmId> {
    let mut running = JoinSet::new();
    let mut wrong = Vec::new();
    for id in ids {
        // Only a running guest has a clock.
        let Ok(plan) = engine.running_plan(id.as_str()) else { continue };
        if running.len() >= AT_ONCE {
            wrong.extend(running.join_next().await.and_then(Result::ok).flatten());
        }
        let engine = engine.clone();
        running.spawn(async move {
            match engine.drivers().guest.correct_clock(&plan).await {
                Ok(GuestClock::Right) => None,
                Ok(GuestClock::Corrected) => Some(plan.id),
                Err(error) => {
                    tracing::debug!(vm = %plan.id, error = %error, "cannot read the clock");
                    None
                }
            }
        });
    }
    while let Some(compared) = running.join_next().await {
        wrong.extend(compared.ok().flatten());
    }
    wrong
}

/// `CLOCK_REALTIME` minus `CLOCK_MONOTONIC` in nanoseconds; the latter stops during suspend.
fn wall_against_monotonic() -> i128 {
    let nanos = |clock| {
        let time = rustix::time::clock_gettime(clock);
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    };
    nanos(rustix::time::ClockId::Realtime) - nanos(rustix::time::ClockId::Monotonic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: u64) -> Vec<VmId> {
        (0..count).map(VmId::from_entropy).collect()
    }

    #[test]
    fn each_guest_is_compared_once_in_a_round() {
        let mut watched = Watched::default();
        let mut seen: Vec<VmId> =
            (0..ROUND).flat_map(|tick| watched.due(ids(100), tick, false)).collect();
        seen.sort();
        let mut all = ids(100);
        all.sort();
        assert_eq!(seen, all);
    }

    #[test]
    fn after_a_jump_all_guests_are_compared() {
        assert_eq!(Watched::default().due(ids(100), 7, true).len(), 100);
    }

    #[test]
    fn a_corrected_guest_is_compared_every_tick_for_a_while() {
        let mut watched = Watched::default();
        let vm = ids(100).remove(50);
        watched.until.insert(vm.clone(), WATCHED);
        let times =
            (0..2 * WATCHED).filter(|tick| watched.due(ids(100), *tick, false).contains(&vm));
        assert_eq!(times.count() as u64, WATCHED + WATCHED / ROUND);
        assert!(watched.until.is_empty());
    }

    #[test]
    fn a_running_clock_does_not_jump() {
        let before = wall_against_monotonic();
        assert!((wall_against_monotonic() - before).abs() <= JUMP_NS);
    }
}
