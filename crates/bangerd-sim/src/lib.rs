//! The daemon for tests: `bangerd` on a simulated host, or on this one with test switches.
//!
//! Two programs, none of which is installed: `bangerd-sim` keeps simulated VMs, and `bangerd-test`
//! is `bangerd` that aborts at crash points and takes a fake Firecracker. Both are the whole daemon
//! of the crate `bangerd`, which has neither the simulated host nor the switches.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod agent;
pub mod crash;
pub mod real;
pub mod world;

pub use bangerd::daemon;
