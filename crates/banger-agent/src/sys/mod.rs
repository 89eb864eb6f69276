//! The only place with `unsafe`: what neither std nor rustix wraps safely.

pub mod clock;
pub mod clone;
pub mod entropy;
pub mod ext4;
pub mod process;
pub mod signal;
pub mod socket;
pub mod vsock;
