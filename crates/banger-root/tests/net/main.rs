//! Network tests with a real bridge, TAPs and rules in a network namespace per test, and fake
//! guests.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod guest;
mod lab;
mod life;
mod reach;
