//! Hermetic environments for tests: a temporary home for every daemon, and a check for leftovers.

pub mod certificates;
pub mod guest;
mod home;
mod leftovers;
mod programs;
mod registry;
pub mod tree;

pub use home::{Home, Options, Run, kill, test_cache, wait_gone};
pub use leftovers::leftovers;
pub use programs::{fake_firecracker, fake_guest, program};
pub use registry::Registry;
