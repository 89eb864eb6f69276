//! Corrects the clocks of running guests: compares them with the host's clock periodically, when a
//! guest begins to run, and all at once after the host slept or its clock was set.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use banger_api::VmId;
use banger_api::vm::VmState;
use banger_engine::Engine;
use banger_engine::drivers::{ClockHistory, GuestClock};
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;

use crate::stopping::Stopping;

/// Interval of the checks of the host's clock (a tick).
const EVERY: Duration = Duration::from_secs(1);

/// Number of ticks in which each guest is compared once.
const ROUND: u64 = 30;

/// Number of ticks in which a guest is compared every time after its clock was wrong (under
/// emulation on a busy host, a guest may lose seconds per minute), or until it answers after the
/// host slept.
const WATCHED: u64 = 60;

/// Maximum number of concurrent comparisons.
const AT_ONCE: usize = 8;

/// Maximum drift between two clocks of the host per tick: NTP slews by 0.05 %.
const JUMP_NS: i128 = 50_000_000;

/// Maximum time in which one reading of the clocks is taken, and the number of attempts.
const READING_NS: i128 = 1_000_000;
const READINGS: usize = 10;

/// The host's clocks at one moment, in nanoseconds (clock_gettime(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// `CLOCK_REALTIME`.
    wall: i128,
    /// `CLOCK_MONOTONIC`, which stands still while the host sleeps.
    monotonic: i128,
    /// `CLOCK_BOOTTIME`, which does not.
    boot: i128,
}

impl Reading {
    /// The clocks now.
    pub fn now() -> Self {
        let mut reading = Self::once();
        for _ in 1..READINGS {
            if reading.1 <= READING_NS {
                break;
            }
            reading = Self::once();
        }
        reading.0
    }

    /// The clocks, and the time that it took to read them: this process may be preempted meanwhile.
    fn once() -> (Self, i128) {
        let nanos = |clock| {
            let time = clock_gettime(clock);
            i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
        };
        let monotonic = nanos(ClockId::Monotonic);
        let (wall, boot) = (nanos(ClockId::Realtime), nanos(ClockId::Boottime));
        (Self { wall, monotonic, boot }, nanos(ClockId::Monotonic) - monotonic)
    }

    /// Change of the host's clocks since an earlier reading.
    fn since(self, earlier: Self) -> HostChange {
        let elapsed = self.monotonic - earlier.monotonic;
        let slept = self.boot - earlier.boot - elapsed;
        let set = self.wall - earlier.wall - elapsed - slept;
        if slept > JUMP_NS {
            HostChange::Slept { ns: slept }
        } else if set.abs() > JUMP_NS {
            HostChange::Set { by_ns: set }
        } else {
            HostChange::None
        }
    }
}

/// Change of the host's clocks between two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HostChange {
    /// None.
    None,
    /// The host slept.
    Slept {
        /// For this long.
        ns: i128,
    },
    /// The wall clock was set.
    Set {
        /// By this much.
        by_ns: i128,
    },
}

/// Runs until the daemon shuts down. `read` reads the host's clocks.
pub async fn follow(engine: Arc<Engine>, stopping: Stopping, read: impl Fn() -> Reading) {
    let mut before = read();
    let mut watched = Watched::default();
    for tick in 0u64.. {
        tokio::select! {
            () = stopping.requested() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let now = read();
        let change = now.since(before);
        before = now;
        match change {
            HostChange::None => {}
            HostChange::Slept { ns } => tracing::info!(ms = ns / 1_000_000, "the host slept"),
            HostChange::Set { by_ns } => {
                tracing::info!(by_ms = by_ns / 1_000_000, "the host's clock was set");
            }
        }
        let guests = engine.states().into_iter().map(|vm| (vm.id, vm.state == VmState::Running));
        let due = watched.due(guests.collect(), tick, change);
        for (vm, compared) in correct(&engine, due).await {
            watched.compared(vm, compared, tick);
        }
    }
}

/// Guests that are compared more often than once in a round.
#[derive(Default)]
struct Watched {
    /// Guests whose clock was wrong, with the tick until which they are compared every time.
    wrong: HashMap<VmId, u64>,
    /// Guests that were not compared yet since the host slept, with the tick until which this is
    /// tried.
    interrupted: HashMap<VmId, u64>,
    /// Guests that ran at the last tick.
    running: HashSet<VmId>,
}

impl Watched {
    /// The guests to compare in this tick, among all VMs and whether they run.
    fn due(
        &mut self,
        vms: Vec<(VmId, bool)>,
        tick: u64,
        change: HostChange,
    ) -> Vec<(VmId, ClockHistory)> {
        self.wrong.retain(|_, until| *until > tick);
        self.interrupted.retain(|_, until| *until > tick);
        let running = vms.iter().filter(|(_, runs)| *runs).map(|(id, _)| id.clone()).collect();
        if matches!(change, HostChange::Slept { .. }) {
            let all = self.running.union(&running).cloned();
            self.interrupted.extend(all.map(|id| (id, tick + WATCHED)));
        }
        let before = std::mem::replace(&mut self.running, running);
        let mut due = Vec::new();
        for ((id, runs), place) in vms.into_iter().zip(0u64..) {
            let interrupted = self.interrupted.contains_key(&id);
            let is_new = !before.contains(&id);
            let has_turn = place % ROUND == tick % ROUND || self.wrong.contains_key(&id);
            if runs && (change != HostChange::None || interrupted || is_new || has_turn) {
                due.push((id, history(interrupted)));
            }
        }
        due
    }

    /// The result of a comparison; `None` if the agent did not answer.
    fn compared(&mut self, vm: VmId, result: Option<GuestClock>, tick: u64) {
        if result.is_some() {
            self.interrupted.remove(&vm);
        }
        if result == Some(GuestClock::Corrected) {
            self.wrong.insert(vm, tick + WATCHED);
        }
    }
}

fn history(interrupted: bool) -> ClockHistory {
    if interrupted { ClockHistory::Interrupted } else { ClockHistory::Continuous }
}

/// Corrects the clocks of these guests; returns the results, `None` for an agent that did not
/// answer.
async fn correct(
    engine: &Arc<Engine>,
    guests: Vec<(VmId, ClockHistory)>,
) -> Vec<(VmId, Option<GuestClock>)> {
    let mut comparisons = JoinSet::new();
    let mut results = Vec::new();
    for (id, history) in guests {
        // Stopped or paused meanwhile.
        let Ok(plan) = engine.running_plan(id.as_str()) else { continue };
        if comparisons.len() >= AT_ONCE {
            results.extend(comparisons.join_next().await.and_then(Result::ok));
        }
        let engine = engine.clone();
        comparisons.spawn(async move {
            let compared = engine.drivers().guest.correct_clock(&plan, history).await;
            if let Err(error) = &compared {
                tracing::debug!(vm = %plan.id, error = %error, "cannot read the clock");
            }
            (plan.id, compared.ok())
        });
    }
    while let Some(compared) = comparisons.join_next().await {
        results.extend(compared);
    }
    results
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use banger_api::limits::VmDefaults;
    use banger_api::vm::{CreateVm, VmAction};
    use banger_engine::sim::Sim;
    use banger_store::Store;

    use super::*;

    const SECOND: i128 = 1_000_000_000;
    const SLEPT: HostChange = HostChange::Slept { ns: 8 * 3600 * SECOND };

    fn running(count: u64) -> Vec<(VmId, bool)> {
        (0..count).map(|n| (VmId::from_entropy(n), true)).collect()
    }

    /// A daemon that has seen these guests before.
    fn watching(guests: &[(VmId, bool)]) -> Watched {
        let mut watched = Watched::default();
        watched.due(guests.to_vec(), 0, HostChange::None);
        watched
    }

    fn ids(due: Vec<(VmId, ClockHistory)>) -> Vec<VmId> {
        due.into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn sleep_and_a_set_clock_are_told_apart() {
        let at =
            Reading { wall: 1_700_000_000 * SECOND, monotonic: 50 * SECOND, boot: 50 * SECOND };
        let later = |wall: i128, monotonic: i128, boot: i128| Reading {
            wall: at.wall + wall,
            monotonic: at.monotonic + monotonic,
            boot: at.boot + boot,
        };
        const HOUR: i128 = 3600 * SECOND;
        for (now, change) in [
            (later(SECOND, SECOND, SECOND), HostChange::None),
            // NTP slews the wall clock.
            (later(SECOND + 500_000, SECOND, SECOND), HostChange::None),
            (later(HOUR, SECOND, HOUR), HostChange::Slept { ns: HOUR - SECOND }),
            // The wall clock was wrong after the sleep.
            (later(HOUR - 5 * SECOND, SECOND, HOUR), HostChange::Slept { ns: HOUR - SECOND }),
            (later(HOUR, SECOND, SECOND), HostChange::Set { by_ns: HOUR - SECOND }),
            (later(-HOUR, SECOND, SECOND), HostChange::Set { by_ns: -HOUR - SECOND }),
            // A tick that came late.
            (later(HOUR, HOUR, HOUR), HostChange::None),
        ] {
            assert_eq!(now.since(at), change, "{now:?}");
        }
        assert_eq!(Reading::now().since(Reading::now()), HostChange::None);
    }

    #[test]
    fn each_guest_is_compared_once_in_a_round() {
        let all = running(100);
        let mut watched = watching(&all);
        let ticks = 0..ROUND;
        let mut seen: Vec<VmId> =
            ticks.flat_map(|tick| ids(watched.due(all.clone(), tick, HostChange::None))).collect();
        seen.sort();
        let mut all: Vec<VmId> = all.into_iter().map(|(id, _)| id).collect();
        all.sort();
        assert_eq!(seen, all);
    }

    #[test]
    fn a_guest_that_begins_to_run_is_compared_at_once() {
        let mut guests = running(100);
        guests[50].1 = false;
        let mut watched = watching(&guests);
        let paused = watched.due(guests.clone(), 20, SLEPT);
        assert_eq!(paused.len(), 99, "only a running guest has a clock");
        let mut watched = watching(&guests);
        guests[50].1 = true;
        let due = ids(watched.due(guests.clone(), 1, HostChange::None));
        assert!(due.contains(&guests[50].0));
        let due = ids(watched.due(guests.clone(), 2, HostChange::None));
        assert!(!due.contains(&guests[50].0));
    }

    #[test]
    fn all_guests_are_compared_after_a_change_of_the_host() {
        let all = running(100);
        let set = HostChange::Set { by_ns: -SECOND };
        let due = watching(&all).due(all.clone(), 7, set);
        assert_eq!(due.len(), 100);
        assert!(due.iter().all(|(_, history)| *history == ClockHistory::Continuous));
        let due = watching(&all).due(all.clone(), 7, SLEPT);
        assert_eq!(due.len(), 100);
        assert!(due.iter().all(|(_, history)| *history == ClockHistory::Interrupted));
    }

    #[test]
    fn a_guest_that_does_not_answer_after_the_sleep_is_asked_again() {
        let all = running(2);
        let mut watched = watching(&all);
        watched.due(all.clone(), 7, SLEPT);
        watched.compared(all[0].0.clone(), None, 7);
        watched.compared(all[1].0.clone(), Some(GuestClock::Corrected), 7);
        let due = watched.due(all.clone(), 8, HostChange::None);
        let expected = [
            (all[0].0.clone(), ClockHistory::Interrupted),
            (all[1].0.clone(), ClockHistory::Continuous),
        ];
        assert_eq!(due, expected);
        assert!(watched.due(all.clone(), 7 + WATCHED, HostChange::None).is_empty());
    }

    #[test]
    fn a_corrected_guest_is_compared_every_tick_for_a_while() {
        let all = running(100);
        let mut watched = watching(&all);
        let vm = all[50].0.clone();
        watched.compared(vm.clone(), Some(GuestClock::Corrected), 0);
        let times = (0..2 * WATCHED)
            .filter(|tick| ids(watched.due(all.clone(), *tick, HostChange::None)).contains(&vm));
        assert_eq!(times.count() as u64, WATCHED + WATCHED / ROUND);
        assert!(watched.wrong.is_empty());
    }

    /// The whole path, with a host whose sleep is simulated.
    #[tokio::test(start_paused = true)]
    async fn guests_are_compared_after_the_host_slept() {
        let store = Store::open_in_memory().unwrap();
        let sim = Sim::empty();
        let drivers = sim.drivers(Arc::new(|_| ()));
        let defaults = VmDefaults::for_host(2, 4 << 30);
        let engine = Engine::open(Arc::new(store), drivers, defaults).await.unwrap();
        for name in ["web", "held"] {
            let vm = CreateVm { name: Some(name.into()), ..CreateVm::default() };
            let accepted = engine.create(vm).await.unwrap();
            engine.follow(&accepted.operation.unwrap()).unwrap().wait().await.unwrap();
        }
        let accepted = engine.request("held", VmAction::Pause {}).await.unwrap();
        engine.follow(&accepted.operation.unwrap()).unwrap().wait().await.unwrap();
        let (began, slept) = (tokio::time::Instant::now(), Cell::new(0));
        let read = || {
            let monotonic = began.elapsed().as_nanos() as i128;
            let boot = monotonic + slept.get();
            Reading { wall: boot + 1_700_000_000 * SECOND, monotonic, boot }
        };
        let sleep = async {
            tokio::time::sleep(Duration::from_secs(2 * ROUND)).await;
            let continuous = ("web".to_owned(), ClockHistory::Continuous);
            assert!(sim.take_compared().iter().all(|compared| *compared == continuous));
            slept.set(3600 * SECOND);
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let interrupted = ("web".to_owned(), ClockHistory::Interrupted);
            assert_eq!(sim.take_compared().first(), Some(&interrupted));
        };
        tokio::select! {
            () = follow(engine.clone(), Stopping::default(), read) => {}
            () = sleep => {}
        }
    }
}
