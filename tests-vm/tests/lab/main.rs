//! Tests that run inside the lab, real Firecracker on a real host: `cargo xtask lab test`.
//! `cargo nextest run` leaves them out.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod bench;
mod disks;
mod guests;
mod jail;
mod kill;
mod life;
mod network;
mod opencode;
mod qemu;
mod smoke;
mod support;
mod users;
mod verify;
