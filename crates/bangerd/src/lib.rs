//! The daemon: configuration, folders, log, HTTP API, session socket, signals.
//!
//! The engine makes all decisions about VMs. [`daemon`] is the entry point: startup and shutdown.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod agent_log;
pub mod api;
pub mod autostart;
mod clocks;
pub mod config;
pub mod daemon;
pub mod daemon_log;
pub mod dns;
pub mod doctor;
pub mod failure;
pub mod feed;
pub mod folders;
pub mod leftovers;
pub mod limits;
pub mod live_folders;
mod lock;
pub mod log;
pub mod logs;
mod otlp;
pub mod real;
pub mod serve;
pub mod session;
pub mod slots;
pub mod socket;
mod spares;
pub mod stdio;
pub mod stopping;
pub mod upkeep;
