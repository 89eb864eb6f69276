//! The real program on a daemon with a simulated host, or on a daemon that does as told.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod bad_input;
mod batch;
mod daemon;
mod fake_daemon;
mod interrupt;
mod other_host;
mod sessions;
mod support;
mod terminal;
mod words;
