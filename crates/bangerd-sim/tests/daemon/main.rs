//! Tests of the real program on its simulated host, each in a home of its own.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails may panic")]

mod api;
mod bad_input;
mod confined_worker;
mod contract;
mod dns;
mod doors;
mod full_disk;
mod kill;
mod kill_sessions;
mod limits;
mod memory;
mod operations;
mod random;
mod session;
mod start;
mod support;
