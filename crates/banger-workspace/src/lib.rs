//! Repositories of the host in machines: what is sent of a git repository, and how it becomes a
//! repository in the guest.
//!
//! git's own program does git's work on either side ([`git`]). [`repository`] finds the repository,
//! [`snapshot`] lists what is sent, [`submodules`] adds those that are checked out, [`pack`] turns
//! it into streams, and [`import`] has the commands that make a repository of them in the guest.
//!
//! [`store`] has the record of what was sent, and [`workspace`] finds what changed since then on
//! either side, from the answers of [`guest`]. [`fetch`] receives objects of a guest, [`pull`] and
//! [`place`] bring its changes into the work tree, [`branch`] onto a branch, and [`push`] sends
//! those of the host. [`summary`] is the form in which programs get a status.

pub mod branch;
pub mod compare;
pub mod fetch;
pub mod git;
pub mod guest;
pub mod import;
mod journal;
pub mod manifest;
pub mod names;
pub mod origin;
pub mod pack;
pub mod place;
pub mod pull;
pub mod push;
pub mod repository;
pub mod snapshot;
pub mod store;
pub mod submodules;
pub mod summary;
pub mod workspace;

pub use repository::Repository;
pub use snapshot::{Options, Snapshot};
pub use workspace::Workspace;
