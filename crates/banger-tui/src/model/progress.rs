//! Stages of an operation, from its events.

use banger_api::ApiError;
use banger_api::operation::{OpEvent, OpEventKind};
use banger_api::vm::{StartReport, Timing};

/// Maximum number of stages.
const MAX_STAGES: usize = 64;

/// A stage on a time line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// When it started, in milliseconds since the start of the operation.
    pub from_ms: u64,
    /// When it ended; none while it is in progress.
    pub until_ms: Option<u64>,
}

/// Progress of a transfer within a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Units completed.
    pub done: u64,
    /// All units, if known.
    pub total: Option<u64>,
    /// The unit; none for bytes.
    pub unit: Option<String>,
}

/// An operation as its events tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What it is about, such as `create web`.
    pub label: String,
    /// Time of its first event here, in milliseconds since 1970.
    pub since_ms: u64,
    /// Its stages.
    pub stages: Vec<Stage>,
    /// Progress in the present stage.
    pub transfer: Option<Transfer>,
    /// The last line of information.
    pub note: Option<String>,
    /// Number of the last event: an operation may be followed twice.
    pub seen: u64,
    /// Its result with the time since its start, in milliseconds.
    pub ended: Option<(u64, Result<(), ApiError>)>,
}

impl Progress {
    /// An operation without events.
    pub fn new(label: String, now_ms: u64) -> Self {
        Self {
            label,
            since_ms: now_ms,
            stages: Vec::new(),
            transfer: None,
            note: None,
            seen: 0,
            ended: None,
        }
    }

    /// Adds an event.
    pub fn add(&mut self, event: &OpEvent, now_ms: u64) {
        if event.seq <= self.seen {
            return;
        }
        self.seen = event.seq;
        self.since_ms = now_ms.saturating_sub(event.at_ms);
        match &event.what {
            OpEventKind::Subject { .. } => {}
            OpEventKind::StageStarted { stage } => {
                self.close(event.at_ms);
                let (name, from_ms) = (stage.clone(), event.at_ms);
                self.append(Stage { name, from_ms, until_ms: None });
            }
            OpEventKind::StageDone { stage, ms } => {
                self.transfer = None;
                let open = |one: &Stage| one.name == *stage && one.until_ms.is_none();
                let position = self.stages.iter().rposition(open);
                let until_ms = Some(event.at_ms);
                match position.and_then(|at| self.stages.get_mut(at)) {
                    Some(stage) => stage.until_ms = until_ms,
                    // It began before the first event here.
                    None => {
                        let (name, from_ms) = (stage.clone(), event.at_ms.saturating_sub(*ms));
                        self.append(Stage { name, from_ms, until_ms });
                    }
                }
            }
            OpEventKind::Progress { done, total, unit, .. } => {
                self.transfer = Some(Transfer { done: *done, total: *total, unit: unit.clone() });
            }
            OpEventKind::Note { text } | OpEventKind::Warning { text } => {
                self.note = Some(text.clone());
            }
            OpEventKind::Succeeded { .. } => self.end(event.at_ms, Ok(())),
            OpEventKind::Failed { error } => self.end(event.at_ms, Err(error.clone())),
        }
    }

    fn append(&mut self, stage: Stage) {
        if self.stages.len() < MAX_STAGES {
            self.stages.push(stage);
        }
    }

    fn end(&mut self, at_ms: u64, result: Result<(), ApiError>) {
        // After a restart of the daemon the time of the end is unknown.
        let last = self.stages.iter().filter_map(|one| one.until_ms).max().unwrap_or_default();
        let at_ms = at_ms.max(last);
        self.close(at_ms);
        self.ended = Some((at_ms, result));
    }

    /// Ends the stages that are open: a failure does not report their ends.
    fn close(&mut self, at_ms: u64) {
        self.transfer = None;
        for stage in &mut self.stages {
            stage.until_ms.get_or_insert(at_ms.max(stage.from_ms));
        }
    }

    /// The stage in progress.
    pub fn current(&self) -> Option<&Stage> {
        self.stages.last().filter(|stage| stage.until_ms.is_none())
    }

    /// Milliseconds since the start, or until the end.
    pub fn elapsed_ms(&self, now_ms: u64) -> u64 {
        match &self.ended {
            Some((at_ms, _)) => *at_ms,
            None => now_ms.saturating_sub(self.since_ms),
        }
    }
}

/// Stages that follow one another, from a report of durations.
pub fn in_sequence(timings: &[Timing]) -> Vec<Stage> {
    let mut from_ms = 0_u64;
    let stage = |timing: &Timing| {
        let until = from_ms.saturating_add(timing.ms);
        let stage = Stage { name: timing.name.clone(), from_ms, until_ms: Some(until) };
        from_ms = until;
        stage
    };
    timings.iter().map(stage).collect()
}

/// The stages of a start on the host, and those in the guest below them.
pub fn of_start(report: &StartReport) -> (Vec<Stage>, Vec<Stage>) {
    (in_sequence(&report.stages), in_sequence(&report.guest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::ErrorCode;

    /// The time serves as the number, too.
    fn event(at_ms: u64, what: OpEventKind) -> OpEvent {
        OpEvent {
            seq: at_ms + u64::from(!matches!(what, OpEventKind::StageStarted { .. })),
            at_ms,
            what,
        }
    }

    fn started(at_ms: u64, stage: &str) -> OpEvent {
        event(at_ms, OpEventKind::StageStarted { stage: stage.into() })
    }

    #[test]
    fn stages_have_a_beginning_and_an_end() {
        let mut progress = Progress::new("start web".into(), 1_000);
        progress.add(&started(5, "preflight"), 1_005);
        assert_eq!(progress.current().map(|stage| stage.name.as_str()), Some("preflight"));
        progress.add(&event(9, OpEventKind::StageDone { stage: "preflight".into(), ms: 4 }), 1_009);
        progress.add(&started(11, "boot"), 1_011);
        assert_eq!(progress.elapsed_ms(1_209), 209);
        let failed = ApiError::new(ErrorCode::Timeout, "no answer");
        progress.add(&event(300, OpEventKind::Failed { error: failed.clone() }), 1_300);
        let ends: Vec<(u64, Option<u64>)> =
            progress.stages.iter().map(|stage| (stage.from_ms, stage.until_ms)).collect();
        assert_eq!(ends, [(5, Some(9)), (11, Some(300))]);
        assert_eq!(progress.ended, Some((300, Err(failed))));
        assert_eq!(progress.elapsed_ms(9_999), 300);
    }

    #[test]
    fn a_stage_that_is_only_known_at_its_end_is_shown() {
        let mut progress = Progress::new("start web".into(), 0);
        progress.add(&event(50, OpEventKind::StageDone { stage: "boot".into(), ms: 20 }), 50);
        assert_eq!(progress.stages[0].from_ms, 30);
        for number in 0..1000 {
            progress.add(&started(60 + number, "again"), 60);
        }
        assert_eq!(progress.stages.len(), MAX_STAGES);
    }
}
