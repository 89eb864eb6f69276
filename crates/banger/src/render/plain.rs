//! Escapes control characters in untrusted text for output on a terminal.

pub use banger_client::text::{block, json, line};
