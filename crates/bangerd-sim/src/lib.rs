//! The daemon for tests: `bangerd` on a simulated host, or on this one with test switches.
//!
//! Two programs, neither of which is installed: `bangerd-sim` runs simulated VMs; `bangerd-test` is
//! `bangerd` with crash points and support for a fake Firecracker. Both contain the complete daemon
//! of the crate `bangerd`, which has neither the simulated host nor the switches.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod agent;
pub mod crash;
pub mod real;
pub mod world;

pub use bangerd::daemon;
