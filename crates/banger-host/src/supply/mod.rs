//! What kernels and images have in common: a store of immutable objects under names, programs run
//! with progress and cancellation, staging folders, archives of any compression.
//!
//! An object is made in a staging folder, given its id by its contents, and published by one
//! rename. Everything here blocks; callers run it on a thread that may.

mod digest;
mod error;
mod flight;
mod progress;
mod shelf;
mod space;
mod staging;
mod tool;
mod unpack;

pub use digest::{FileDigest, digest_of_blocks, digest_of_file, id_of};
pub use error::{Kind, Place, SupplyError};
pub use flight::{Flight, Turn};
pub use progress::{Counted, Progress, Silent};
pub use shelf::{Broken, Deleted, InUse, Listing, Record, Shelf};
pub use space::{free_bytes, need_space, used_bytes};
pub use staging::{Staging, clean};
pub use tool::{Running, Tool, Tools};
pub use unpack::{Compression, Source, Unpacked};

/// The time of a record: RFC 3339, UTC, whole seconds.
pub fn now() -> String {
    jiff::Timestamp::now()
        .round(jiff::Unit::Second)
        .map_or_else(|_| String::new(), |t| t.to_string())
}
