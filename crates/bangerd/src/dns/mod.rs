//! The DNS server of the zone `vm`: `NAME.vm` is the address of the VM of that name while it runs.
//!
//! Three parts: [`query`] reads what was sent, [`answer()`] decides and writes, both without I/O,
//! and [`server`] moves bytes. No record is kept anywhere: the zone is asked for each query, so
//! names follow the VMs and are right after a restart.

pub mod answer;
pub mod query;
pub mod server;

use std::net::Ipv4Addr;

use banger_engine::Engine;

pub use answer::{Transport, answer};
pub use server::{Dns, Listening};

/// Where the server listens unless configured otherwise.
pub const DEFAULT_PORT: u16 = 42069;

/// What the names below `vm` stand for.
pub trait Zone: Send + Sync {
    /// Address of `label.vm`; the label is in lower case.
    fn address(&self, label: &str) -> Option<Ipv4Addr>;
}

impl Zone for Engine {
    fn address(&self, label: &str) -> Option<Ipv4Addr> {
        self.address_of(label)
    }
}
