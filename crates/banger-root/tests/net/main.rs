//! The network of VMs on a host made for it: real bridge, TAPs and rules in a network namespace of
//! each test's own, guests that are the test.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod guest;
mod lab;
mod life;
mod reach;
