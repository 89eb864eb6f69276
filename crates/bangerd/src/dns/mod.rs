//! The DNS server of the zone `vm`: `NAME.vm` resolves to the address of the running VM of that
//! name.
//!
//! Three parts: [`query`] parses, [`answer()`] decides and encodes, both without I/O, and
//! [`server`] sends and receives. Records are not cached: each query reads the present VMs, so
//! names are correct immediately after changes and restarts.

pub mod answer;
pub mod query;
pub mod server;

use std::net::Ipv4Addr;

use banger_engine::Engine;

pub use answer::{Transport, answer};
pub use server::{Dns, Listening};

/// Default port of the server.
pub const DEFAULT_PORT: u16 = 42069;

/// The names below `vm`.
pub trait Zone: Send + Sync {
    /// Address of `label.vm`; the label is in lower case.
    fn address(&self, label: &str) -> Option<Ipv4Addr>;
}

impl Zone for Engine {
    fn address(&self, label: &str) -> Option<Ipv4Addr> {
        self.address_of(label)
    }
}
