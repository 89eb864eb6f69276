//! Events of all operations, for the one stream of events.

use std::sync::{Mutex, PoisonError};

use banger_api::events::OperationNow;
use banger_api::operation::OpEventKind;
use tokio::sync::watch;

use crate::timings::Timings;

/// Maximum number of events that wait for the reader.
const MAX_WAITING: usize = 4096;

/// Events of all operations that wait for their one reader. Operations never wait for it: what it
/// does not take in time is dropped, and it is told.
#[derive(Default)]
pub struct OpNews {
    /// Durations of stages and operations.
    pub timings: Timings,
    waiting: Mutex<Waiting>,
    count: watch::Sender<u64>,
}

/// Events that waited for the reader.
#[derive(Debug, Default)]
pub struct Waiting {
    /// The events, in their order.
    pub events: Vec<OperationNow>,
    /// Whether earlier ones were dropped.
    pub missed: bool,
}

impl OpNews {
    /// Adds an event. Progress replaces waiting progress of the same stage, and notes are left out:
    /// a build has thousands of them.
    pub(crate) fn push(&self, now: OperationNow) {
        self.timings.count(&now);
        if matches!(now.latest.what, OpEventKind::Note { .. }) {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |before: &&mut OperationNow| {
            before.id == now.id && same_progress(&before.latest.what, &now.latest.what)
        };
        if let Some(before) = waiting.events.last_mut().filter(same) {
            *before = now;
        } else if waiting.events.len() < MAX_WAITING {
            waiting.events.push(now);
        } else {
            waiting.events = vec![now];
            waiting.missed = true;
        }
        self.count.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Takes the waiting events.
    pub fn take(&self) -> Waiting {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes with each event.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }
}

fn same_progress(before: &OpEventKind, now: &OpEventKind) -> bool {
    match (before, now) {
        (OpEventKind::Progress { stage: before, .. }, OpEventKind::Progress { stage: now, .. }) => {
            before == now
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::OpId;
    use banger_api::operation::{OpEvent, Subject};

    fn event(op: u64, what: OpEventKind) -> OperationNow {
        OperationNow {
            id: OpId::from_entropy(op),
            kind: "start".into(),
            subject: Subject::Host,
            latest: OpEvent { seq: 1, at_ms: 0, what },
        }
    }

    fn progress(done: u64) -> OpEventKind {
        OpEventKind::Progress { stage: "pull".into(), done, total: None, unit: None }
    }

    fn warning(text: String) -> OpEventKind {
        OpEventKind::Warning { text }
    }

    #[test]
    fn progress_is_merged_and_notes_are_left_out() {
        let news = OpNews::default();
        for what in [progress(1), OpEventKind::Note { text: "a".into() }, progress(2)] {
            news.push(event(1, what));
        }
        news.push(event(2, progress(3)));
        news.push(event(2, warning("b".into())));
        news.push(event(2, progress(4)));
        let expected =
            [(1, progress(2)), (2, progress(3)), (2, warning("b".into())), (2, progress(4))]
                .map(|(op, what)| event(op, what));
        let waiting = news.take();
        assert_eq!(waiting.events, expected);
        assert!(!waiting.missed && news.take().events.is_empty());
    }

    #[test]
    fn a_slow_reader_is_told_that_events_were_dropped() {
        let news = OpNews::default();
        for number in 0..=MAX_WAITING {
            news.push(event(1, warning(number.to_string())));
        }
        let waiting = news.take();
        assert!(waiting.missed);
        assert_eq!(waiting.events, [event(1, warning(MAX_WAITING.to_string()))]);
        news.push(event(1, progress(1)));
        assert!(!news.take().missed);
    }
}
