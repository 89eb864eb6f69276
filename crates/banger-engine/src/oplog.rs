//! The write-ahead log of an operation: intent and outcome of each step.
//!
//! The intent is committed before the effect, the outcome after it. [`check`] is the table of legal
//! orders, applied when an event is written and when a log is loaded, so that a log that this
//! program cannot have written is detected and not acted on.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Id of a recorded step, such as `root_disk`.
///
/// A text and not an enum, so that logs and plans of a build with other steps can be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(Cow<'static, str>);

impl StepId {
    /// The id of a step of this build: letters, digits and underscores.
    pub const fn new(id: &'static str) -> Self {
        Self(Cow::Borrowed(id))
    }

    /// The id in logs and crash points.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Kind of event of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepEventKind {
    /// About to be applied.
    Started,
    /// Applied.
    Succeeded,
    /// Not applied, or only in part.
    Failed,
    /// About to be undone.
    UndoStarted,
    /// Undone completely.
    Undone,
    /// The undo failed; objects of the step may be left.
    UndoFailed,
}

/// One line of an operation's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepEvent {
    /// The step.
    pub step: StepId,
    /// The kind.
    pub kind: StepEventKind,
    /// The result of the apply or undo, or the error.
    pub detail: String,
    /// Wall clock, milliseconds since 1970.
    pub at_unix_ms: u64,
}

/// An event that cannot follow the events in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step `{}` cannot be {new:?} after {last:?}", .step.as_str())]
pub struct IllegalOrder {
    step: StepId,
    last: Option<StepEventKind>,
    new: StepEventKind,
}

/// Whether `new` may follow `last` for one step within one operation (`None` = nothing so far).
fn may_follow(last: Option<StepEventKind>, new: StepEventKind) -> bool {
    use StepEventKind as K;
    match (last, new) {
        // An operation can undo steps that an earlier one applied.
        (None, K::Started | K::UndoStarted) => true,
        (Some(K::Started), K::Succeeded | K::Failed | K::UndoStarted) => true,
        (Some(K::Succeeded | K::Failed), K::UndoStarted) => true,
        // Interrupted during an undo, or repeated after a failure.
        (Some(K::UndoStarted), K::Undone | K::UndoFailed | K::UndoStarted) => true,
        (Some(K::UndoFailed), K::UndoStarted) => true,
        // A restart applies steps again after their undo; recovery may repeat an undo.
        (Some(K::Undone), K::Started | K::UndoStarted) => true,
        (None, K::Succeeded | K::Failed | K::Undone | K::UndoFailed)
        | (Some(K::Started), K::Started | K::Undone | K::UndoFailed)
        | (
            Some(K::Succeeded | K::Failed),
            K::Started | K::Succeeded | K::Failed | K::Undone | K::UndoFailed,
        )
        | (Some(K::UndoStarted), K::Started | K::Succeeded | K::Failed)
        | (Some(K::UndoFailed | K::Undone), K::Succeeded | K::Failed | K::Undone | K::UndoFailed)
        | (Some(K::UndoFailed), K::Started) => false,
    }
}

/// Checks that `new` may be appended to `log`.
///
/// # Errors
/// The order that is not legal.
pub fn check(log: &[StepEvent], step: &StepId, new: StepEventKind) -> Result<(), IllegalOrder> {
    let last = log.iter().rev().find(|event| &event.step == step).map(|event| event.kind);
    if may_follow(last, new) { Ok(()) } else { Err(IllegalOrder { step: step.clone(), last, new }) }
}

/// Checks a whole log, as loaded.
///
/// # Errors
/// The first order that is not legal.
pub fn check_all(log: &[StepEvent]) -> Result<(), IllegalOrder> {
    for (place, event) in log.iter().enumerate() {
        check(&log[..place], &event.step, event.kind)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use StepEventKind as K;

    fn log(kinds: &[K]) -> Vec<StepEvent> {
        kinds
            .iter()
            .map(|kind| StepEvent {
                step: StepId::new("root_disk"),
                kind: *kind,
                detail: String::new(),
                at_unix_ms: 0,
            })
            .collect()
    }

    #[test]
    fn legal_orders() {
        for kinds in [
            &[K::Started, K::Succeeded][..],
            &[K::Started, K::Failed, K::UndoStarted, K::Undone],
            &[K::Started, K::UndoStarted, K::UndoStarted, K::Undone],
            &[K::UndoStarted, K::UndoFailed, K::UndoStarted, K::Undone],
            &[K::UndoStarted, K::Undone, K::Started, K::Succeeded, K::UndoStarted],
        ] {
            assert_eq!(check_all(&log(kinds)), Ok(()), "{kinds:?}");
        }
    }

    #[test]
    fn illegal_orders() {
        for kinds in [
            &[K::Succeeded][..],
            &[K::Undone],
            &[K::Started, K::Started],
            &[K::Started, K::Succeeded, K::Succeeded],
            &[K::Started, K::Succeeded, K::Undone],
            &[K::UndoStarted, K::Undone, K::Succeeded],
            &[K::UndoStarted, K::UndoFailed, K::Started],
        ] {
            assert!(check_all(&log(kinds)).is_err(), "{kinds:?}");
        }
    }

    #[test]
    fn the_order_is_checked_per_step() {
        let mut mixed = log(&[K::Started]);
        mixed.push(StepEvent { step: StepId::new("work_disk"), ..mixed[0].clone() });
        assert_eq!(check_all(&mixed), Ok(()));
        assert!(check(&mixed, &StepId::new("identity"), K::Undone).is_err());
    }
}
