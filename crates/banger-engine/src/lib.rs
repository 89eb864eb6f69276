//! Decides: states, requests, operations, plans, recovery. No operating-system calls.
//!
//! The engine knows what a VM is and what may happen to it. What it wants done to the host it asks
//! of the drivers (traits in [`drivers`]); what it must remember it gives to the [`store::Store`].
//! [`sim`] implements the drivers in memory, so that everything above the host is tested, and run
//! (`bangerd-sim`), without one.
//!
//! Read in this order: [`state`] (the diagram), [`queue`] (what may be asked when), [`lists`] (what
//! a create and a start consist of), [`capability`] (features that take part in them), [`runner`]
//! (how a list is carried out and undone), [`recovery`] (what a new daemon does with what it
//! finds), [`vm_task`] (the one owner of each VM), [`engine`].

mod boot_watch;
pub mod cancel;
pub mod capabilities;
pub mod capability;
pub mod choose;
pub mod create;
pub mod devices;
mod driver_set;
pub mod drivers;
pub mod engine;
pub mod fetches;
pub mod holds;
pub mod image_ops;
pub mod interrupt;
pub mod lists;
pub mod op_book;
pub mod operations;
pub mod oplog;
pub mod ops;
pub mod plan;
pub mod queue;
pub mod record;
pub mod recovery;
pub mod recovery_jobs;
pub mod refusals;
pub mod run_end;
pub mod runner;
pub mod shared;
pub mod sim;
pub mod state;
pub mod store;
pub mod undo;
pub mod unreadable;
pub mod view;
pub mod vm_jobs;
pub mod vm_removal;
pub mod vm_task;
pub mod work;

pub use engine::Engine;
