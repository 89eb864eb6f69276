//! Hermetic environments for tests: a temporary home for every daemon, and a check for leftovers.

mod catalog;
pub mod certificates;
mod connect_proxy;
pub mod guest;
mod home;
mod leftovers;
mod programs;
mod registry;
mod small_disk;
mod tmux;
pub mod tree;
mod usage;
mod web;

pub use catalog::Publisher;
pub use connect_proxy::ConnectProxy;
pub use home::{Home, Options, Run, kill, test_cache, wait_gone};
pub use leftovers::leftovers;
pub use programs::{fake_firecracker, fake_guest, program};
pub use registry::Registry;
pub use small_disk::SmallDisk;
pub use tmux::Tmux;
pub use usage::{descriptors, resident_kib};
pub use web::Web;
