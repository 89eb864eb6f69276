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
//! The happy path is Stopped → Starting → Running → Stopping → Stopped. It fails in three ways: a
//! start that does not get through is undone and the VM is Stopped with that story; a VMM that dies
//! takes the VM through Stopping to Stopped with its story; an undo that does not get through
//! leaves it Broken, which accepts only show, repair and forced delete. A reboot from inside is an
//! exit followed by a start.

use banger_api::vm::VmState;

/// Something that happened to a VM, or was decided about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VmEvent {
    /// A start was accepted and its plan stored.
    StartAccepted,
    /// The guest reported ready: the commit point of a start.
    Booted,
    /// The vCPUs were held.
    Held,
    /// The vCPUs were let go.
    Released,
    /// A stop was accepted.
    StopAccepted,
    /// The VMM ended by itself.
    Exited,
    /// Everything the start list did is undone.
    AllUndone,
    /// Something could not be undone.
    UndoFailed,
    /// A delete was accepted.
    DeleteAccepted,
    /// Everything the create list did is undone.
    Removed,
    /// What is remembered of it cannot be true: nothing may be touched until somebody looked.
    Distrusted,
}

/// All events, for tests that go through every pair.
pub const ALL_EVENTS: [VmEvent; 11] = [
    VmEvent::StartAccepted,
    VmEvent::Booted,
    VmEvent::Held,
    VmEvent::Released,
    VmEvent::StopAccepted,
    VmEvent::Exited,
    VmEvent::AllUndone,
    VmEvent::UndoFailed,
    VmEvent::DeleteAccepted,
    VmEvent::Removed,
    VmEvent::Distrusted,
];

/// All states, for tests that go through every pair.
pub const ALL_STATES: [VmState; 7] = [
    VmState::Stopped,
    VmState::Starting,
    VmState::Running,
    VmState::Paused,
    VmState::Stopping,
    VmState::Broken,
    VmState::Deleting,
];

/// What an event makes of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The VM is in this state now.
    To(VmState),
    /// The VM does not exist any more.
    Gone,
    /// The event cannot happen in this state: a bug, or a log that was tampered with.
    Illegal,
}

/// The next state. Every pair is decided here; a new variant does not compile until it is.
#[expect(clippy::too_many_lines, reason = "a table of all pairs is read best in one piece")]
pub fn next(state: VmState, event: VmEvent) -> Next {
    use Next::{Gone, Illegal, To};
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
            E::Distrusted,
        ) => To(S::Broken),

        (S::Stopped, E::StartAccepted) => To(S::Starting),
        (S::Stopped, E::DeleteAccepted) => To(S::Deleting),
        // A create that failed is undone while the VM is still Stopped.
        (S::Stopped, E::Removed) => Gone,
        (S::Stopped, E::UndoFailed) => To(S::Broken),
        (
            S::Stopped,
            E::Booted | E::Held | E::Released | E::StopAccepted | E::Exited | E::AllUndone,
        ) => Illegal,

        (S::Starting, E::Booted) => To(S::Running),
        (S::Starting, E::AllUndone) => To(S::Stopped),
        (S::Starting, E::UndoFailed) => To(S::Broken),
        (
            S::Starting,
            E::StartAccepted
            | E::Held
            | E::Released
            | E::StopAccepted
            | E::Exited
            | E::DeleteAccepted
            | E::Removed,
        ) => Illegal,

        (S::Running, E::Held) => To(S::Paused),
        (S::Running, E::StopAccepted | E::Exited) => To(S::Stopping),
        (
            S::Running,
            E::StartAccepted
            | E::Booted
            | E::Released
            | E::AllUndone
            | E::UndoFailed
            | E::DeleteAccepted
            | E::Removed,
        ) => Illegal,

        (S::Paused, E::Released) => To(S::Running),
        (S::Paused, E::StopAccepted | E::Exited) => To(S::Stopping),
        (
            S::Paused,
            E::StartAccepted
            | E::Booted
            | E::Held
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
            | E::Held
            | E::Released
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
            | E::Held
            | E::Released
            | E::StopAccepted
            | E::Exited
            | E::Removed,
        ) => Illegal,

        (S::Deleting, E::Removed) => Gone,
        (S::Deleting, E::UndoFailed) => To(S::Broken),
        (
            S::Deleting,
            E::StartAccepted
            | E::Booted
            | E::Held
            | E::Released
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
        for state in ALL_STATES {
            let leaves = ALL_EVENTS.iter().any(|event| match next(state, *event) {
                Next::To(other) => other != state,
                Next::Gone => true,
                Next::Illegal => false,
            });
            assert!(leaves, "{state:?} is a dead end");
            let reached = ALL_STATES
                .iter()
                .any(|from| ALL_EVENTS.iter().any(|event| next(*from, *event) == Next::To(state)));
            assert!(reached, "{state:?} is never reached");
        }
    }

    #[test]
    fn only_a_finished_removal_makes_a_vm_vanish() {
        for state in ALL_STATES {
            for event in ALL_EVENTS {
                if next(state, event) == Next::Gone {
                    assert_eq!(event, VmEvent::Removed);
                    assert!(matches!(state, VmState::Deleting | VmState::Stopped));
                }
            }
        }
    }

    #[test]
    fn a_failed_undo_never_looks_stopped() {
        for state in ALL_STATES {
            match next(state, VmEvent::UndoFailed) {
                Next::To(after) => assert_eq!(after, VmState::Broken),
                Next::Illegal => assert!(matches!(state, VmState::Running | VmState::Paused)),
                Next::Gone => panic!("{state:?} vanished"),
            }
        }
    }
}
