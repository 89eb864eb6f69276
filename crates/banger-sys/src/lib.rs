//! The one home of `unsafe` on the host: safe wrappers around system calls, each naming its page.

#[cfg(feature = "tokio")]
pub mod ended;
pub mod harden;
pub mod proc;
pub mod scm;
pub mod sparse;
pub mod tsc;
pub mod unix_path;
