//! Which requests a VM accepts: a pure function of its state and of its queue.
//!
//! A request has one of three answers: do it, already so (a success without an operation, so that
//! clients may retry), or refused with the reason. The answer depends on the state that the VM will
//! have after all accepted requests, not on its present state.

use std::collections::VecDeque;

use banger_api::OpId;
use banger_api::vm::{VmAction, VmState};

/// Maximum number of queued requests of one VM.
pub const MAX_QUEUED: usize = 16;

/// When an accepted request runs, relative to the operation in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduling {
    /// After the operation in progress and the queued ones.
    AfterCurrent,
    /// The operation in progress is cancelled and undoes itself: the request makes it pointless.
    InterruptCurrent,
}

/// Answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The request is accepted.
    Do(Scheduling),
    /// The VM has the requested state, or will have it after this operation.
    AlreadySo(Option<OpId>),
    /// The request is refused.
    Refused(Refusal),
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The present or next state of the VM does not allow it.
    State(VmState),
    /// A delete without force of a VM that is not stopped.
    NeedsForce(VmState),
    /// The queue is full.
    QueueFull,
}

/// An accepted request whose operation has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// Its operation.
    pub op: OpId,
    /// The action.
    pub action: VmAction,
}

/// Requests of one VM: the running one and the queued ones.
#[derive(Debug, Default)]
pub struct RequestQueue {
    running: Option<Queued>,
    waiting: VecDeque<Queued>,
}

/// The state of a VM after `action` succeeded in `state`; `None` if it is deleted.
pub fn after(state: VmState, action: &VmAction) -> Option<VmState> {
    match action {
        VmAction::Start {} | VmAction::Restart { .. } => match state {
            VmState::Broken | VmState::Deleting => Some(state),
            VmState::Stopped
            | VmState::Starting
            | VmState::Running
            | VmState::Paused
            | VmState::Stopping => Some(VmState::Running),
        },
        VmAction::Stop { .. } | VmAction::Kill {} => match state {
            VmState::Broken | VmState::Deleting => Some(state),
            VmState::Stopped
            | VmState::Starting
            | VmState::Running
            | VmState::Paused
            | VmState::Stopping => Some(VmState::Stopped),
        },
        VmAction::Pause {} | VmAction::Resume {} => match state {
            VmState::Starting | VmState::Running | VmState::Paused => {
                let pauses = matches!(action, VmAction::Pause {});
                Some(if pauses { VmState::Paused } else { VmState::Running })
            }
            VmState::Stopped | VmState::Stopping | VmState::Broken | VmState::Deleting => {
                Some(state)
            }
        },
        VmAction::Repair {} => match state {
            VmState::Broken => Some(VmState::Stopped),
            other => Some(other),
        },
        VmAction::Set(_) | VmAction::Rename { .. } | VmAction::Reset {} => Some(state),
        VmAction::Delete { .. } => None,
    }
}

/// The answer for a VM in `state` without an operation in progress.
pub fn settle(state: VmState, action: &VmAction) -> Answer {
    decide(Some(state), action)
}

/// The answer for a VM that will be in `state` after all accepted requests; `None` if deleted.
fn decide(state: Option<VmState>, action: &VmAction) -> Answer {
    use VmAction as A;
    use VmState as S;
    let Some(state) = state else {
        return match action {
            A::Delete { .. } => Answer::AlreadySo(None),
            _ => Answer::Refused(Refusal::State(S::Deleting)),
        };
    };
    match (action, state) {
        (A::Start {}, S::Stopped) => Answer::Do(Scheduling::AfterCurrent),
        (A::Start {}, S::Starting | S::Running) => Answer::AlreadySo(None),
        (A::Restart { .. }, S::Stopped | S::Starting | S::Running | S::Paused) => {
            Answer::Do(Scheduling::AfterCurrent)
        }
        (A::Stop { .. } | A::Kill {}, S::Stopped | S::Stopping) => Answer::AlreadySo(None),
        (A::Stop { .. } | A::Kill {}, S::Starting) => Answer::Do(Scheduling::InterruptCurrent),
        (A::Stop { .. }, S::Running | S::Paused) => Answer::Do(Scheduling::AfterCurrent),
        (A::Kill {}, S::Running | S::Paused) => Answer::Do(Scheduling::InterruptCurrent),
        (A::Pause {}, S::Starting | S::Running) => Answer::Do(Scheduling::AfterCurrent),
        (A::Resume {}, S::Paused) => Answer::Do(Scheduling::AfterCurrent),
        (A::Pause {}, S::Paused) | (A::Resume {}, S::Starting | S::Running) => {
            Answer::AlreadySo(None)
        }
        (A::Start {} | A::Restart { .. }, S::Stopping) => Answer::Do(Scheduling::AfterCurrent),
        (A::Repair {}, S::Broken) => Answer::Do(Scheduling::AfterCurrent),
        (A::Repair {}, S::Stopped) => Answer::AlreadySo(None),
        (A::Delete { .. }, S::Stopped) => Answer::Do(Scheduling::AfterCurrent),
        (A::Delete { .. }, S::Deleting) => Answer::AlreadySo(None),
        (A::Delete { force }, S::Starting | S::Running | S::Paused | S::Stopping | S::Broken) => {
            if *force {
                Answer::Do(Scheduling::InterruptCurrent)
            } else {
                Answer::Refused(Refusal::NeedsForce(state))
            }
        }
        // Whether a change is possible, and when it takes effect, is decided when its turn comes.
        (
            A::Set(_) | A::Rename { .. },
            S::Stopped | S::Starting | S::Running | S::Paused | S::Stopping,
        ) => Answer::Do(Scheduling::AfterCurrent),
        (A::Reset {}, S::Stopped) => Answer::Do(Scheduling::AfterCurrent),
        (A::Start {}, S::Paused | S::Broken | S::Deleting)
        | (A::Set(_) | A::Rename { .. }, S::Broken | S::Deleting)
        | (A::Pause {} | A::Resume {}, S::Stopped | S::Stopping | S::Broken | S::Deleting)
        | (
            A::Reset {},
            S::Starting | S::Running | S::Paused | S::Stopping | S::Broken | S::Deleting,
        )
        | (A::Restart { .. } | A::Stop { .. } | A::Kill {}, S::Broken | S::Deleting)
        | (A::Repair {}, S::Starting | S::Running | S::Paused | S::Stopping | S::Deleting) => {
            Answer::Refused(Refusal::State(state))
        }
    }
}

impl RequestQueue {
    /// The answer to `action` for a VM that is in `state` now. Changes nothing.
    pub fn answer(&self, state: VmState, action: &VmAction) -> Answer {
        // The final state of the running operation counts, not its transitional state.
        let settled = match &self.running {
            Some(running) => after(settled_before(state), &running.action),
            None => Some(state),
        };
        let projected = self
            .waiting
            .iter()
            .fold(settled, |state, queued| state.and_then(|s| after(s, &queued.action)));
        match decide(projected, action) {
            Answer::Do(_) if self.waiting.len() >= MAX_QUEUED => {
                Answer::Refused(Refusal::QueueFull)
            }
            // A kill, stop or forced delete makes a start in progress pointless.
            Answer::Do(_) if self.interrupts(action) => Answer::Do(Scheduling::InterruptCurrent),
            Answer::Do(_) => Answer::Do(Scheduling::AfterCurrent),
            Answer::AlreadySo(_) => self.already_so(action),
            refused @ Answer::Refused(_) => refused,
        }
    }

    fn interrupts(&self, action: &VmAction) -> bool {
        let Some(running) = &self.running else { return false };
        let pointless = matches!(running.action, VmAction::Start {} | VmAction::Restart { .. });
        match action {
            VmAction::Stop { .. } => pointless,
            VmAction::Kill {} => pointless || self.waits_for_guest(),
            VmAction::Delete { force } => *force && (pointless || self.waits_for_guest()),
            VmAction::Start {}
            | VmAction::Pause {}
            | VmAction::Resume {}
            | VmAction::Restart { .. }
            | VmAction::Repair {}
            | VmAction::Set(_)
            | VmAction::Rename { .. }
            | VmAction::Reset {} => false,
        }
    }

    /// Whether the running operation may wait for its guest, and does not undo itself: a stop for
    /// the shutdown, a resume for the clock.
    fn waits_for_guest(&self) -> bool {
        let action = self.running.as_ref().map(|running| &running.action);
        action.is_some_and(|it| matches!(it, VmAction::Stop { .. } | VmAction::Resume {}))
    }

    /// A kill ends the grace period of a stop in progress, although both lead to the same state.
    fn already_so(&self, action: &VmAction) -> Answer {
        // These lead to no state.
        let changes = |action: &VmAction| {
            matches!(action, VmAction::Set(_) | VmAction::Rename { .. } | VmAction::Reset {})
        };
        let leads = |queued: &&Queued| !changes(&queued.action);
        let last = self.waiting.iter().rev().chain(self.running.as_ref()).find(leads);
        match (action, last) {
            (VmAction::Kill {}, Some(last)) if matches!(last.action, VmAction::Stop { .. }) => {
                Answer::Do(Scheduling::InterruptCurrent)
            }
            (_, last) => Answer::AlreadySo(last.map(|queued| queued.op.clone())),
        }
    }

    /// Sets the running request of an operation that was not queued, such as a create.
    pub fn begin(&mut self, queued: Queued) {
        self.running = Some(queued);
    }

    /// Appends a request for which [`Self::answer`] was [`Answer::Do`].
    pub fn push(&mut self, queued: Queued) {
        self.waiting.push_back(queued);
    }

    /// Starts the next request; `None` while one runs.
    pub fn take_next(&mut self) -> Option<Queued> {
        if self.running.is_some() {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.running = Some(next.clone());
        Some(next)
    }

    /// The running request has ended.
    pub fn finish(&mut self) -> Option<Queued> {
        self.running.take()
    }

    /// The request that runs.
    pub fn running(&self) -> Option<&Queued> {
        self.running.as_ref()
    }

    /// Removes all queued requests.
    pub fn drain(&mut self) -> impl Iterator<Item = Queued> + '_ {
        self.waiting.drain(..)
    }

    /// Removes one queued request, if it exists.
    pub fn remove(&mut self, op: &OpId) -> Option<Queued> {
        let place = self.waiting.iter().position(|queued| &queued.op == op)?;
        self.waiting.remove(place)
    }

    /// Whether no request runs or is queued.
    pub fn is_idle(&self) -> bool {
        self.running.is_none() && self.waiting.is_empty()
    }
}

/// The state to which the action of a running operation applies.
fn settled_before(state: VmState) -> VmState {
    match state {
        VmState::Deleting | VmState::Starting | VmState::Stopping => VmState::Stopped,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::labels::Labels;
    use banger_api::set::SetVm;
    use proptest::prelude::*;

    fn op(n: u64) -> OpId {
        OpId::from_entropy(n)
    }

    fn queued(n: u64, action: VmAction) -> Queued {
        Queued { op: op(n), action }
    }

    const SET: SetVm = SetVm {
        kernel: None,
        vcpus: Some(2),
        memory_mib: None,
        root_bytes: None,
        work_bytes: None,
        nat: None,
        autostart: None,
        publish: Vec::new(),
        unpublish: Vec::new(),
        sync: Vec::new(),
        unsync: Vec::new(),
        labels: Labels::new(),
        unlabel: Vec::new(),
    };

    /// Number of actions of [`actions`].
    const ACTIONS: usize = 12;

    fn actions() -> [VmAction; ACTIONS] {
        [
            VmAction::Start {},
            VmAction::STOP,
            VmAction::Restart { grace_ms: 0 },
            VmAction::Kill {},
            VmAction::Pause {},
            VmAction::Resume {},
            VmAction::Delete { force: false },
            VmAction::Delete { force: true },
            VmAction::Repair {},
            VmAction::Set(Box::new(SET)),
            VmAction::Rename { name: "db".parse().unwrap() },
            VmAction::Reset {},
        ]
    }

    /// The model: carries out all accepted actions in order.
    fn model_state(initial: VmState, accepted: &[VmAction]) -> Option<VmState> {
        let mut state = Some(initial);
        for action in accepted {
            state = match (state, action) {
                (None, _) | (_, VmAction::Delete { .. }) => None,
                (Some(VmState::Broken), VmAction::Repair {}) => Some(VmState::Stopped),
                (Some(VmState::Broken), _) => Some(VmState::Broken),
                (Some(_), VmAction::Start {} | VmAction::Restart { .. }) => Some(VmState::Running),
                (Some(_), VmAction::Stop { .. } | VmAction::Kill {}) => Some(VmState::Stopped),
                (Some(VmState::Running), VmAction::Pause {}) => Some(VmState::Paused),
                (Some(VmState::Paused), VmAction::Resume {}) => Some(VmState::Running),
                (Some(other), VmAction::Pause {} | VmAction::Resume {}) => Some(other),
                (
                    Some(other),
                    VmAction::Repair {}
                    | VmAction::Set(_)
                    | VmAction::Rename { .. }
                    | VmAction::Reset {},
                ) => Some(other),
            };
        }
        state
    }

    fn check_against_model(initial: VmState, steps: &[(usize, bool)]) {
        let mut queue = RequestQueue::default();
        let mut present = initial;
        let mut unfinished: Vec<VmAction> = Vec::new();
        for (n, (which, finish)) in steps.iter().enumerate() {
            let action = actions()[which % ACTIONS].clone();
            let expected = model_state(present, &unfinished);
            match queue.answer(present, &action) {
                Answer::Do(_) => {
                    let wanted = model_state(
                        present,
                        &[&unfinished[..], std::slice::from_ref(&action)].concat(),
                    );
                    let is_kill = action == VmAction::Kill {};
                    let restarts = matches!(
                        action,
                        VmAction::Restart { .. }
                            | VmAction::Set(_)
                            | VmAction::Rename { .. }
                            | VmAction::Reset {}
                    );
                    assert!(
                        wanted != expected || is_kill || restarts,
                        "{action:?} changes nothing"
                    );
                    assert!(
                        expected.is_some(),
                        "{action:?} accepted for a VM that will be deleted"
                    );
                    queue.push(queued(n as u64, action.clone()));
                    unfinished.push(action);
                }
                Answer::AlreadySo(_) => {
                    let wanted = model_state(
                        present,
                        &[&unfinished[..], std::slice::from_ref(&action)].concat(),
                    );
                    assert_eq!(wanted, expected, "{action:?} is not so already");
                }
                Answer::Refused(Refusal::QueueFull) => assert!(unfinished.len() >= MAX_QUEUED),
                Answer::Refused(Refusal::NeedsForce(state)) => {
                    assert_eq!(action, VmAction::Delete { force: false });
                    assert_ne!(state, VmState::Stopped);
                }
                Answer::Refused(Refusal::State(state)) => {
                    let stuck = expected.is_none() || expected == Some(VmState::Broken);
                    let live = matches!(state, VmState::Running | VmState::Paused);
                    let stopped_only = [VmAction::Repair {}, VmAction::Reset {}].contains(&action);
                    let paused = action == VmAction::Start {} && state == VmState::Paused;
                    let pausing = matches!(action, VmAction::Pause {} | VmAction::Resume {});
                    let unpausable = pausing && state == VmState::Stopped;
                    assert!(
                        stuck || (stopped_only && live) || paused || unpausable,
                        "{action:?} refused in {expected:?}"
                    );
                }
            }
            if *finish && queue.take_next().is_some() {
                let done = unfinished.remove(0);
                queue.finish();
                match model_state(present, &[done]) {
                    Some(state) => present = state,
                    None => return,
                }
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_model(
            initial in prop_oneof![
                Just(VmState::Stopped), Just(VmState::Running), Just(VmState::Paused),
                Just(VmState::Broken)],
            steps in proptest::collection::vec((0usize..ACTIONS, any::<bool>()), 0..60),
        ) {
            check_against_model(initial, &steps);
        }
    }

    #[test]
    fn a_stop_interrupts_a_start_in_progress() {
        let mut queue = RequestQueue::default();
        queue.push(queued(1, VmAction::Start {}));
        queue.take_next();
        let answer = queue.answer(VmState::Starting, &VmAction::STOP);
        assert_eq!(answer, Answer::Do(Scheduling::InterruptCurrent));
        let again = queue.answer(VmState::Starting, &VmAction::Start {});
        assert_eq!(again, Answer::AlreadySo(Some(op(1))), "joins the start in progress");
    }

    #[test]
    fn requests_after_a_delete_are_refused() {
        let mut queue = RequestQueue::default();
        queue.push(queued(1, VmAction::Delete { force: false }));
        for action in actions() {
            match queue.answer(VmState::Stopped, &action) {
                Answer::AlreadySo(_) => assert!(matches!(action, VmAction::Delete { .. })),
                Answer::Refused(Refusal::State(VmState::Deleting)) => {}
                other => panic!("{action:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_kill_interrupts_a_stop() {
        let mut queue = RequestQueue::default();
        queue.push(queued(1, VmAction::STOP));
        queue.take_next();
        assert_eq!(
            queue.answer(VmState::Stopping, &VmAction::Kill {}),
            Answer::Do(Scheduling::InterruptCurrent)
        );
        assert_eq!(
            queue.answer(VmState::Stopping, &VmAction::STOP),
            Answer::AlreadySo(Some(op(1)))
        );
    }

    #[test]
    fn a_running_vm_is_deleted_only_by_force() {
        let queue = RequestQueue::default();
        assert_eq!(
            queue.answer(VmState::Running, &VmAction::Delete { force: false }),
            Answer::Refused(Refusal::NeedsForce(VmState::Running))
        );
        assert_eq!(
            queue.answer(VmState::Running, &VmAction::Delete { force: true }),
            Answer::Do(Scheduling::AfterCurrent)
        );
    }
}
