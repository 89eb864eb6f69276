//! Tests that boot real VMs, or drive the real daemon and shim with guests that behave badly.

pub mod archive;
pub mod container;
pub mod crash;
pub mod handover;
pub mod package;
pub mod port;
pub mod source;
