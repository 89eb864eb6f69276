//! The daemon: configuration, folders, log, HTTP API, session socket, signals.
//!
//! It decides nothing about VMs: that is the engine's. Read [`daemon`] first: it is the way from an
//! empty process to one that serves, and back.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod agent_log;
pub mod api;
mod clocks;
pub mod config;
pub mod daemon;
pub mod daemon_log;
pub mod dns;
pub mod doctor;
pub mod failure;
pub mod feed;
pub mod folders;
pub mod keeper;
pub mod leftovers;
pub mod limits;
mod lock;
pub mod log;
pub mod logs;
pub mod real;
pub mod serve;
pub mod session;
pub mod slots;
pub mod socket;
pub mod stdio;
pub mod stopping;
