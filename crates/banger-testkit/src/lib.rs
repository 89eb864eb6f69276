//! Hermetic environments for tests: a home of its own for every daemon, and a check that nothing of
//! it is left.

pub mod guest;
mod home;
mod leftovers;
mod programs;

pub use home::{Home, Options, Run, kill, wait_gone};
pub use leftovers::leftovers;
pub use programs::{fake_firecracker, fake_guest, program};
