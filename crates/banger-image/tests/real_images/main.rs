//! Kernels and images for real: Debian's packages, archives of every kind, ext4 as e2fsprogs sees
//! it.
//!
//! The Debian image is kept in the folder `BANGER_TEST_CACHE` that all tests share, since it takes
//! a minute to make; a changed recipe makes it anew. Needed: the network, e2fsprogs, xz,
//! mmdebstrap.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod archives;
mod commits;
mod containers;
mod debian;
mod disks;
mod distributions;
mod full_disk;
mod gnu_tar;
mod hostile;
mod kernel;
mod kernel_build;
mod kernel_import;
mod listing;
mod own_kernel;
mod reference;
mod registered;
mod registry;
mod seeds;
mod signed;
mod sources;
mod support;
