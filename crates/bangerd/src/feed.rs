//! The feed of VM changes, resumable: see [`banger_api::events`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use banger_api::VmId;
use banger_api::events::{VmEvent, VmEventKind, VmNow};
use banger_engine::Engine;
use tokio::sync::watch;

use crate::stopping::Stopping;

/// Number of events that can be resumed from.
const KEPT: usize = 4096;
/// Changes within this time are merged.
const PAUSE: Duration = Duration::from_millis(20);

/// A recent event.
struct Entry {
    number: u64,
    at_unix_ms: u64,
    what: VmEventKind,
}

/// Recent events, with notification of new ones.
pub struct Feed {
    /// Distinguishes this daemon's event ids from those of another daemon.
    instance: String,
    state: Mutex<State>,
    last: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// Number of the last event.
    last: u64,
    known: BTreeMap<VmId, VmNow>,
    log: VecDeque<Entry>,
}

impl Feed {
    /// An empty feed; `instance` must differ for each daemon.
    pub fn new(instance: String) -> Arc<Self> {
        Arc::new(Self { instance, state: Mutex::default(), last: watch::Sender::new(0) })
    }

    /// A feed that follows the engine until the daemon shuts down.
    pub fn start(engine: &Arc<Engine>, stopping: &Stopping) -> Arc<Self> {
        // Differs from the previous daemon's, whose event ids are not valid here.
        let instance = getrandom::u32().unwrap_or_else(|_| std::process::id());
        let feed = Self::new(format!("{instance:08x}"));
        tokio::spawn(feed.clone().run(engine.clone(), stopping.clone()));
        feed
    }

    async fn run(self: Arc<Self>, engine: Arc<Engine>, stopping: Stopping) {
        let mut changes = engine.changes();
        loop {
            changes.mark_unchanged();
            self.update(engine.states(), now_unix_ms());
            tokio::select! {
                () = stopping.requested() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn update(&self, now: Vec<VmNow>, at_unix_ms: u64) {
        let mut state = self.state();
        let mut gone = std::mem::take(&mut state.known);
        for vm in now {
            let before = gone.remove(&vm.id);
            if before.as_ref() != Some(&vm) {
                state.push(at_unix_ms, VmEventKind::Changed { vm: vm.clone() });
            }
            state.known.insert(vm.id.clone(), vm);
        }
        for vm in gone.into_keys() {
            state.push(at_unix_ms, VmEventKind::Gone { vm });
        }
        let last = state.last;
        drop(state);
        self.last.send_if_modified(|seen| std::mem::replace(seen, last) != last);
    }

    /// Waits for events after this id; an unknown id starts with all VMs.
    pub async fn after(&self, place: Option<&str>) -> Vec<VmEvent> {
        let mut news = self.last.subscribe();
        loop {
            let seen = place.and_then(|place| self.number(place));
            let events = self.since(seen);
            if !events.is_empty() || news.changed().await.is_err() {
                return events;
            }
        }
    }

    /// The id behind which the events since this time begin.
    pub fn place_before(&self, since_unix_ms: u64) -> String {
        let state = self.state();
        let first = state.log.iter().find(|entry| entry.at_unix_ms >= since_unix_ms);
        let number = first.map_or(state.last, |entry| entry.number - 1);
        format!("{}-{number}", self.instance)
    }

    /// The number in an event id, if this daemon issued it.
    fn number(&self, id: &str) -> Option<u64> {
        id.strip_prefix(self.instance.as_str())?.strip_prefix('-')?.parse().ok()
    }

    fn since(&self, seen: Option<u64>) -> Vec<VmEvent> {
        let state = self.state();
        let oldest = state.last - state.log.len() as u64;
        match seen.filter(|seen| (oldest..=state.last).contains(seen)) {
            Some(seen) => {
                let skip = usize::try_from(seen - oldest).unwrap_or(usize::MAX);
                let news = state.log.iter().skip(skip);
                news.map(|entry| self.event(entry.number, entry.at_unix_ms, entry.what.clone()))
                    .collect()
            }
            None => {
                let vms = state.known.values().cloned().collect();
                vec![self.event(state.last, now_unix_ms(), VmEventKind::All { vms })]
            }
        }
    }

    fn event(&self, number: u64, at_unix_ms: u64, what: VmEventKind) -> VmEvent {
        VmEvent { id: format!("{}-{number}", self.instance), at_unix_ms, what }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since 1970.
fn now_unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl State {
    fn push(&mut self, at_unix_ms: u64, what: VmEventKind) {
        self.last += 1;
        self.log.push_back(Entry { number: self.last, at_unix_ms, what });
        if self.log.len() > KEPT {
            self.log.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::vm::VmState;

    fn vm(number: u64, generation: u64) -> VmNow {
        let id = VmId::from_entropy(number);
        let name = format!("vm-{number}").parse().unwrap();
        VmNow { id, name, state: VmState::Running, generation, operation: None }
    }

    fn kinds(events: &[VmEvent]) -> Vec<VmEventKind> {
        events.iter().map(|event| event.what.clone()).collect()
    }

    #[tokio::test]
    async fn a_feed_is_resumed_after_the_last_event() {
        let feed = Feed::new("a".into());
        let (one, two) = (vm(1, 1), vm(2, 1));
        feed.update(vec![one.clone(), two.clone()], 10);
        let all = feed.after(None).await;
        assert_eq!(kinds(&all), [VmEventKind::All { vms: vec![one.clone(), two.clone()] }]);
        let changed = vm(1, 2);
        feed.update(vec![changed.clone(), two.clone()], 20);
        feed.update(vec![changed.clone()], 30);
        let news = feed.after(Some(&all[0].id)).await;
        let expected = [
            VmEventKind::Changed { vm: changed.clone() },
            VmEventKind::Gone { vm: two.id.clone() },
        ];
        assert_eq!(kinds(&news), expected);
        assert_eq!(kinds(&feed.after(Some(&news[0].id)).await), expected[1..]);
        for (since, count) in [(0, 4), (10, 4), (11, 2), (20, 2), (21, 1), (30, 1)] {
            let events = feed.after(Some(&feed.place_before(since))).await;
            assert_eq!(events.len(), count, "{since}");
            assert!(events.iter().all(|event| event.at_unix_ms >= since), "{since}");
        }
        assert_eq!(feed.place_before(31), news[1].id, "later events only");
        // An id of another daemon, a future id and an expired id start with all VMs.
        for place in ["b-1", "a-99", "a-x", ""] {
            let anew = feed.after(Some(place)).await;
            assert_eq!(kinds(&anew), [VmEventKind::All { vms: vec![changed.clone()] }], "{place}");
        }
        for generation in 0..KEPT as u64 + 1 {
            feed.update(vec![vm(1, generation + 3)], 40);
        }
        let anew = feed.after(Some(&all[0].id)).await;
        assert!(matches!(kinds(&anew)[..], [VmEventKind::All { .. }]));
        // No event: the call waits.
        let waiting =
            tokio::time::timeout(Duration::from_millis(10), feed.after(Some(&anew[0].id)));
        assert!(waiting.await.is_err());
    }
}
