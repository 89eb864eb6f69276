//! The state machine of a VM.
//!
//! ```text
//!            create                 start                booted
//!   (none) ──────────► Stopped ──────────────► Starting ──────────► Running ◄──► Paused
//!                       ▲   ▲                     │                    │            │
//!                       │   └──── all undone ─────┤ fails or cancelled │ stop, exit │
//!                       │                         │                    ▼            │
//!                       └──────── all undone ─────│──────────────── Stopping ◄──────┘
//!                                                 ▼                    │
//!   Stopped ── delete ──► Deleting ──► (gone)   Broken ◄── undo fails ─┘
//!   Broken ── repair ──► Stopped
//! ```
//!
//! The normal path is Stopped → Starting → Running → Stopping → Stopped. There are three failures:
//! a failed start is undone, and the VM is Stopped with that reason; after the death of its VMM the
//! VM goes through Stopping to Stopped with the exit story; after a failed undo it is Broken and
//! accepts only show, repair and forced delete. A reboot by the guest is an exit followed by a
//! start.

use banger_api::vm::VmState;

/// An event in the life of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VmEvent {
    /// A start was accepted and its plan stored.
    StartAccepted,
    /// The guest reported ready: the commit point of a start.
    Booted,
    /// The vCPUs were paused.
    Paused,
    /// The vCPUs were resumed.
    Resumed,
    /// A stop was accepted.
    StopAccepted,
    /// The VMM ended without a request.
    Exited,
    /// All steps of the start list are undone.
    AllUndone,
    /// The undo of a step failed.
    UndoFailed,
    /// A delete was accepted.
    DeleteAccepted,
    /// All steps of the create list are undone.
    Removed,
    /// Its record is contradictory: no step is applied or undone until a user requests it.
    RecordInvalid,
}

/// All events, for tests that go through every pair.
pub const ALL_EVENTS: [VmEvent; 11] = [
    VmEvent::StartAccepted,
    VmEvent::Booted,
    VmEvent::Paused,
    VmEvent::Resumed,
    VmEvent::StopAccepted,
    VmEvent::Exited,
    VmEvent::AllUndone,
    VmEvent::UndoFailed,
    VmEvent::DeleteAccepted,
    VmEvent::Removed,
    VmEvent::RecordInvalid,
];

/// The result of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The VM enters this state.
    To(VmState),
    /// The VM no longer exists.
    Removed,
    /// The event is not possible in this state: a bug, or a modified log.
    Illegal,
}

/// The next state: an exhaustive table of all pairs, without a default.
#[expect(clippy::too_many_lines, reason = "a table of all pairs is read best in one piece")]
pub fn next(state: VmState, event: VmEvent) -> Next {
    use Next::{Illegal, Removed, To};
    use VmEvent as E;
    use VmState as S;
    match (state, event) {
        (
            S::Stopped
            | S::Starting
            | S::Running
            | S::Paused
            | S::Stopping
            | S::Broken
            | S::Deleting,
            E::RecordInvalid,
        ) => To(S::Broken),

        (S::Stopped, E::StartAccepted) => To(S::Starting),
        (S::Stopped, E::DeleteAccepted) => To(S::Deleting),
        // A create that failed is undone while the VM is still Stopped.
        (S::Stopped, E::Removed) => Removed,
        (S::Stopped, E::UndoFailed) => To(S::Broken),
        (
            S::Stopped,
            E::Booted | E::Paused | E::Resumed | E::StopAccepted | E::Exited | E::AllUndone,
        ) => Illegal,

        (S::Starting, E::Booted) => To(S::Running),
        (S::Starting, E::AllUndone) => To(S::Stopped),
        (S::Starting, E::UndoFailed) => To(S::Broken),
        (
            S::Starting,
            E::StartAccepted
            | E::Paused
            | E::Resumed
            | E::StopAccepted
            | E::Exited
            | E::DeleteAccepted
            | E::Removed,
        ) => Illegal,

        (S::Running, E::Paused) => To(S::Paused),
        (S::Running, E::StopAccepted | E::Exited) => To(S::Stopping),
        (
            S::Running,
            E::StartAccepted
            | E::Booted
            | E::Resumed
            | E::AllUndone
            | E::UndoFailed
            | E::DeleteAccepted
            | E::Removed,
        ) => Illegal,

        (S::Paused, E::Resumed) => To(S::Running),
        (S::Paused, E::StopAccepted | E::Exited) => To(S::Stopping),
        (
            S::Paused,
            E::StartAccepted
            | E::Booted
            | E::Paused
            | E::AllUndone
            | E::UndoFailed
            | E::DeleteAccepted
            | E::Removed,
        ) => Illegal,

        (S::Stopping, E::AllUndone) => To(S::Stopped),
        (S::Stopping, E::UndoFailed) => To(S::Broken),
        (
            S::Stopping,
            E::StartAccepted
            | E::Booted
            | E::Paused
            | E::Resumed
            | E::StopAccepted
            | E::Exited
            | E::DeleteAccepted
            | E::Removed,
        ) => Illegal,

        (S::Broken, E::AllUndone) => To(S::Stopped),
        (S::Broken, E::UndoFailed) => To(S::Broken),
        (S::Broken, E::DeleteAccepted) => To(S::Deleting),
        (
            S::Broken,
            E::StartAccepted
            | E::Booted
            | E::Paused
            | E::Resumed
            | E::StopAccepted
            | E::Exited
            | E::Removed,
        ) => Illegal,

        (S::Deleting, E::Removed) => Removed,
        (S::Deleting, E::UndoFailed) => To(S::Broken),
        (
            S::Deleting,
            E::StartAccepted
            | E::Booted
            | E::Paused
            | E::Resumed
            | E::StopAccepted
            | E::Exited
            | E::AllUndone
            | E::DeleteAccepted,
        ) => Illegal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_can_be_left_and_reached() {
        for state in VmState::ALL {
            let leaves = ALL_EVENTS.iter().any(|event| match next(state, *event) {
                Next::To(other) => other != state,
                Next::Removed => true,
                Next::Illegal => false,
            });
            assert!(leaves, "{state:?} is a dead end");
            let reached = VmState::ALL
                .iter()
                .any(|from| ALL_EVENTS.iter().any(|event| next(*from, *event) == Next::To(state)));
            assert!(reached, "{state:?} is never reached");
        }
    }

    #[test]
    fn only_a_finished_removal_removes_a_vm() {
        for state in VmState::ALL {
            for event in ALL_EVENTS {
                if next(state, event) == Next::Removed {
                    assert_eq!(event, VmEvent::Removed);
                    assert!(matches!(state, VmState::Deleting | VmState::Stopped));
                }
            }
        }
    }

    #[test]
    fn a_failed_undo_never_looks_stopped() {
        for state in VmState::ALL {
            match next(state, VmEvent::UndoFailed) {
                Next::To(after) => assert_eq!(after, VmState::Broken),
                Next::Illegal => assert!(matches!(state, VmState::Running | VmState::Paused)),
                Next::Removed => panic!("{state:?} was removed"),
            }
        }
    }
}
