//! Daemons and helper for tests; none of these programs is installed.
//!
//! `bangerd-sim` keeps simulated VMs, and `bangerd-test` is `bangerd` that aborts at crash points
//! and accepts a fake Firecracker. Both are the whole daemon of the crate `bangerd`, which has
//! neither the simulated host nor the switches. `banger-root-test` is the helper that aborts at a
//! named point of a request; `banger-root` has no such switch.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod agent;
pub mod crash;
pub mod helper;
pub mod real;
pub mod worker;
pub mod world;

pub use bangerd::daemon;
