//! The log of an operation: what was intended and what happened, step by step.
//!
//! The intention is committed before the effect, the outcome after it. [`check`] holds the table of
//! legal orders; it is applied when an event is written and again when a log is loaded, so a log
//! that could not have been written by this program is noticed instead of being acted on.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Id of a recorded step, such as `root_disk`.
///
/// It is text and not an enum, so that logs and plans that were written by a build with other steps
/// can still be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(Cow<'static, str>);

impl StepId {
    /// The id of a step of this build: letters, digits and underscores.
    pub const fn new(id: &'static str) -> Self {
        Self(Cow::Borrowed(id))
    }

    /// The word used in logs and crash points.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What happened to a step.
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
    /// Undone; nothing of it is left.
    Undone,
    /// Something of it may be left.
    UndoFailed,
}

/// One line of an operation's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepEvent {
    /// Which step.
    pub step: StepId,
    /// What happened.
    pub kind: StepEventKind,
    /// What was created or removed, or the error.
    pub detail: String,
    /// Wall clock, milliseconds since 1970.
    pub at_unix_ms: u64,
}

/// An event that cannot follow what the log holds.
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
        // The effects of an earlier operation are undone without having been applied by this one.
        (None, K::Started | K::UndoStarted) => true,
        (Some(K::Started), K::Succeeded | K::Failed | K::UndoStarted) => true,
        (Some(K::Succeeded | K::Failed), K::UndoStarted) => true,
        // Interrupted while undoing, or tried again after a failure.
        (Some(K::UndoStarted), K::Undone | K::UndoFailed | K::UndoStarted) => true,
        (Some(K::UndoFailed), K::UndoStarted) => true,
        // A restart applies what it has just undone; recovery may undo once more.
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

/// Checks that `new` may be written behind `log`.
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
    fn steps_do_not_disturb_each_other() {
        let mut mixed = log(&[K::Started]);
        mixed.push(StepEvent { step: StepId::new("work_disk"), ..mixed[0].clone() });
        assert_eq!(check_all(&mixed), Ok(()));
        assert!(check(&mixed, &StepId::new("identity"), K::Undone).is_err());
    }
}
