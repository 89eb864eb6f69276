//! The real program on a daemon with a simulated host, or on a scripted daemon.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod agents;
mod api;
mod autostart;
mod bad_input;
mod batch;
mod clients;
mod completion;
mod copy;
mod daemon;
mod events;
mod fake_daemon;
mod help;
mod images;
mod interrupt;
mod live_folders;
mod man;
mod mcp;
mod mcp_clients;
mod opencode;
mod operations;
mod other_host;
mod output;
mod pause;
mod ports;
mod program;
mod prune;
mod repositories;
mod sessions;
mod snapshots;
mod ssh;
mod stats;
mod support;
mod terminal;
mod traces;
mod tui;
