//! The real shim with shell scripts as VMM and companion: every way to start and to end.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod endings;
mod gate;
mod hostile;
mod jailed;
mod support;
