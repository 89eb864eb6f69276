//! The stream of events of all VMs and operations, resumable: see [`banger_api::events`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use banger_api::events::{Event, EventKind, OperationNow, VmNow};
use banger_api::{OpId, VmId};
use banger_engine::Engine;
use banger_engine::op_news::Waiting;
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
    what: EventKind,
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
    /// Operations in progress.
    operations: BTreeMap<OpId, OperationNow>,
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
        let (mut changes, news) = (engine.changes(), engine.operation_news());
        let mut operations = news.changes();
        loop {
            changes.mark_unchanged();
            operations.mark_unchanged();
            // Read before the states and added after them: a VM changes before its operation ends.
            let waiting = news.take();
            self.update(engine.states(), now_unix_ms());
            self.operations(waiting, || engine.operations_now(), now_unix_ms());
            tokio::select! {
                () = stopping.requested() => return,
                changed = changes.changed() => if changed.is_err() { return },
                changed = operations.changed() => if changed.is_err() { return },
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
                state.push(at_unix_ms, EventKind::Changed { vm: vm.clone() });
            }
            state.known.insert(vm.id.clone(), vm);
        }
        for vm in gone.into_keys() {
            state.push(at_unix_ms, EventKind::Gone { vm });
        }
        let last = state.last;
        drop(state);
        self.last.send_if_modified(|seen| std::mem::replace(seen, last) != last);
    }

    /// Adds events of operations. If some are missing, nothing before can be resumed from, and the
    /// operations in progress are those of `all`.
    fn operations(
        &self,
        waiting: Waiting,
        all: impl FnOnce() -> Vec<OperationNow>,
        at_unix_ms: u64,
    ) {
        let mut state = self.state();
        if waiting.missed {
            state.log.clear();
            state.last += 1;
            state.operations = all().into_iter().map(|op| (op.id.clone(), op)).collect();
        }
        for operation in waiting.events {
            if operation.latest.what.is_last() {
                state.operations.remove(&operation.id);
            } else {
                state.operations.insert(operation.id.clone(), operation.clone());
            }
            state.push(at_unix_ms, EventKind::Operation { operation });
        }
        let last = state.last;
        drop(state);
        self.last.send_if_modified(|seen| std::mem::replace(seen, last) != last);
    }

    /// Waits for events after this id; an unknown id starts with all VMs and operations.
    pub async fn after(&self, place: Option<&str>) -> Vec<Event> {
        let mut news = self.last.subscribe();
        loop {
            let seen = place.map(|place| self.number(place));
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

    /// The events after a number. `Some(None)` is an id that this daemon did not issue.
    fn since(&self, seen: Option<Option<u64>>) -> Vec<Event> {
        let state = self.state();
        let oldest = state.last - state.log.len() as u64;
        let known = seen.flatten().filter(|seen| (oldest..=state.last).contains(seen));
        match known {
            Some(seen) => {
                let skip = usize::try_from(seen - oldest).unwrap_or(usize::MAX);
                let news = state.log.iter().skip(skip);
                news.map(|entry| self.event(entry.number, entry.at_unix_ms, entry.what.clone()))
                    .collect()
            }
            None => {
                let vms = state.known.values().cloned().collect();
                let operations = state.operations.values().cloned().collect();
                let all = EventKind::All { missed: seen.is_some(), vms, operations };
                vec![self.event(state.last, now_unix_ms(), all)]
            }
        }
    }

    fn event(&self, number: u64, at_unix_ms: u64, what: EventKind) -> Event {
        Event { id: format!("{}-{number}", self.instance), at_unix_ms, what }
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
    fn push(&mut self, at_unix_ms: u64, what: EventKind) {
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
    use banger_api::operation::{OpEvent, OpEventKind, Subject};
    use banger_api::vm::VmState;

    fn vm(number: u64, generation: u64) -> VmNow {
        let id = VmId::from_entropy(number);
        let name = format!("vm-{number}").parse().unwrap();
        VmNow { id, name, state: VmState::Running, generation, operation: None }
    }

    fn kinds(events: &[Event]) -> Vec<EventKind> {
        events.iter().map(|event| event.what.clone()).collect()
    }

    fn everything(missed: bool, vms: &[VmNow], operations: &[OperationNow]) -> EventKind {
        EventKind::All { missed, vms: vms.to_vec(), operations: operations.to_vec() }
    }

    fn operation(number: u64, what: OpEventKind) -> OperationNow {
        OperationNow {
            id: OpId::from_entropy(number),
            kind: "start".into(),
            subject: Subject::Host,
            latest: OpEvent { seq: 1, at_ms: 0, what },
        }
    }

    #[tokio::test]
    async fn operations_are_in_the_same_stream() {
        let feed = Feed::new("a".into());
        let add = |events: &[OperationNow], missed| {
            let waiting = Waiting { events: events.to_vec(), missed };
            feed.operations(waiting, || vec![operation(3, started())], 10);
        };
        fn started() -> OpEventKind {
            OpEventKind::StageStarted { stage: "boot".into() }
        }
        let (one, two) = (operation(1, started()), operation(2, started()));
        add(&[one.clone(), two.clone()], false);
        let all = feed.after(None).await;
        assert_eq!(kinds(&all), [everything(false, &[], &[one.clone(), two.clone()])]);
        let ended = operation(1, OpEventKind::Succeeded { made: None });
        add(std::slice::from_ref(&ended), false);
        feed.update(vec![vm(1, 1)], 20);
        let news = feed.after(Some(&all[0].id)).await;
        let expected =
            [EventKind::Operation { operation: ended }, EventKind::Changed { vm: vm(1, 1) }];
        assert_eq!(kinds(&news), expected);
        assert_eq!(kinds(&feed.after(None).await), [everything(false, &[vm(1, 1)], &[two])]);
        // Events that the daemon itself missed: each client is told, at whatever place.
        add(&[], true);
        for place in [&all[0].id, &news[1].id] {
            let anew = feed.after(Some(place)).await;
            let expected = everything(true, &[vm(1, 1)], &[operation(3, started())]);
            assert_eq!(kinds(&anew), [expected]);
        }
    }

    #[tokio::test]
    async fn a_feed_is_resumed_after_the_last_event() {
        let feed = Feed::new("a".into());
        let (one, two) = (vm(1, 1), vm(2, 1));
        feed.update(vec![one.clone(), two.clone()], 10);
        let all = feed.after(None).await;
        assert_eq!(kinds(&all), [everything(false, &[one.clone(), two.clone()], &[])]);
        let changed = vm(1, 2);
        feed.update(vec![changed.clone(), two.clone()], 20);
        feed.update(vec![changed.clone()], 30);
        let news = feed.after(Some(&all[0].id)).await;
        let expected =
            [EventKind::Changed { vm: changed.clone() }, EventKind::Gone { vm: two.id.clone() }];
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
            assert_eq!(
                kinds(&anew),
                [everything(true, std::slice::from_ref(&changed), &[])],
                "{place}"
            );
        }
        for generation in 0..KEPT as u64 + 1 {
            feed.update(vec![vm(1, generation + 3)], 40);
        }
        let anew = feed.after(Some(&all[0].id)).await;
        assert!(matches!(kinds(&anew)[..], [EventKind::All { .. }]));
        // No event: the call waits.
        let waiting =
            tokio::time::timeout(Duration::from_millis(10), feed.after(Some(&anew[0].id)));
        assert!(waiting.await.is_err());
    }
}
