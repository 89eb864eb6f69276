//! The one home of `unsafe` on the host: safe wrappers around system calls, each naming its page.

pub mod dm;
#[cfg(feature = "tokio")]
pub mod ended;
pub mod fs;
pub mod harden;
pub mod landlock;
pub mod lock;
pub mod loopdev;
pub mod peer;
pub mod proc;
pub mod programs;
pub mod readiness;
pub mod reflink;
pub mod scm;
pub mod signals;
pub mod sparse;
pub mod spawn;
pub mod tap;
pub mod tsc;
pub mod unix_path;
