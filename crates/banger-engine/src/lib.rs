//! Decisions: states, requests, operations, plans, recovery. No operating-system calls.
//!
//! The engine changes the host through drivers (traits in [`drivers`]) and keeps its records in the
//! [`store::Store`]. [`sim`] implements the drivers in memory, so that everything above the host is
//! tested, and runs (`bangerd-sim`), without one.
//!
//! Read in this order: [`state`] (the diagram), [`queue`] (which requests are accepted), [`lists`]
//! (the steps of a create and a start), [`capability`] (features with steps of their own),
//! [`runner`] (applies and undoes a list), [`recovery`] (decisions of a new daemon), [`vm_task`]
//! (the task that owns a VM), [`engine`]. The path of a request: [`engine`] or [`create`],
//! [`vm_task`], [`work`], [`vm_jobs`], [`runner`], [`lists`], [`drivers`].

pub mod autostart;
mod boot_watch;
pub mod build;
pub mod build_log;
pub mod builds;
pub mod cancel;
pub mod capabilities;
pub mod capability;
pub mod change;
pub mod choose;
mod commit;
pub mod create;
pub mod devices;
mod disk_repair;
mod disk_use;
mod driver_set;
pub mod drivers;
pub mod engine;
pub mod fetches;
pub mod holds;
mod host_view;
mod image_facts;
pub mod image_ops;
mod images_driver;
pub mod interrupt;
pub mod leftovers;
pub mod lists;
pub mod meter;
pub mod once;
pub mod op_book;
pub mod op_counts;
pub mod op_news;
mod op_stages;
pub mod operations;
pub mod oplog;
pub mod ops;
mod own_kernels;
mod pause;
pub mod plan;
pub mod program;
mod progress;
pub mod queue;
mod recipes;
pub mod record;
pub mod recovery;
pub mod recovery_jobs;
pub mod refusals;
pub mod rename;
pub mod reset;
pub mod run_end;
pub mod runner;
mod secrets;
pub mod shared;
pub mod sim;
pub mod state;
pub mod stats;
pub mod store;
pub mod timings;
pub mod trace;
pub mod undo;
pub mod unreadable;
pub mod view;
pub mod vm_jobs;
pub mod vm_removal;
mod vm_stop;
pub mod vm_task;
pub mod work;

pub use engine::Engine;
