//! Repositories of the host in machines: what is sent of a git repository, and how it becomes a
//! repository in the guest.
//!
//! git's own program does git's work on either side ([`git`]). [`repository`] finds the repository,
//! [`snapshot`] lists what is sent, [`submodules`] adds those that are checked out, [`pack`] turns
//! it into streams, and [`import`] has the commands that make a repository of them in the guest.

pub mod git;
pub mod import;
pub mod pack;
pub mod repository;
pub mod snapshot;
pub mod submodules;

pub use repository::Repository;
pub use snapshot::{Options, Snapshot};
