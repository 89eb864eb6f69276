//! `banger serve --e2b` on the simulated host: the unmodified SDK, which scripts/setup.sh installs,
//! and requests that are refused.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod refused;
mod sdk;
mod support;
