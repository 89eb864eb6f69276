//! Safe wrappers around system calls: the only crate of the host with `unsafe` code. Each function
//! names its manual page.

pub mod dm;
#[cfg(feature = "tokio")]
pub mod ended;
pub mod fs;
pub mod harden;
pub mod landlock;
pub mod loopdev;
pub mod peer;
pub mod proc;
pub mod programs;
pub mod readiness;
pub mod reflink;
pub mod scm;
pub mod seccomp;
pub mod signals;
pub mod sparse;
pub mod spawn;
pub mod stdio;
pub mod tap;
pub mod tsc;
pub mod unix_path;
pub mod usage;
