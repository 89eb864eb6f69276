//! The guest side of banger: [`boot`] turns a bare kernel into the configured machine and hands
//! over to the image's init, [`agent`] then answers the host over vsock until the guest ends.
//!
//! Static binary rules (`docs/guest.md`): no resolver, no NSS, no `dlopen`; `/etc/passwd` and
//! `/etc/group` are parsed here. Threads and blocking sockets only.

pub mod agent;
pub mod boot;
pub mod fault;
mod inside;
pub mod sys;
pub mod users;

pub use banger_archive::beneath;

/// Build id reported in hello and healthz.
pub const BUILD: &str = match option_env!("BANGER_BUILD_ID") {
    Some(id) => id,
    None => env!("CARGO_PKG_VERSION"),
};
