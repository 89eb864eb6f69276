//! Images and kernels: fetches them, reads hostile archives in a process of its own, writes ext4
//! file systems, and stores the results.
//!
//! ```text
//! fetch/      the store of immutable objects, external programs, compressed archives
//! ext4/       tar archives and folders to ext4 file systems, without root
//! images/     root file systems of VMs: recipes, imports, the worker
//! kernels/    kernels with their modules
//! registry/   images from registries: their protocol, logins, the cache of layers
//! trust/      signatures of catalogs and of images of registries
//! initramfs   the boot initramfs: the agent and the modules it loads
//! ca/ proxy   the way out of a corporate network, for downloads and for guests
//! ```

pub mod advice;
pub mod ca;
pub mod ext4;
pub mod fetch;
pub mod images;
pub mod initramfs;
pub mod kernels;
mod privilege;
pub mod proxy;
pub mod registry;
pub mod trust;

pub use privilege::Privilege;
