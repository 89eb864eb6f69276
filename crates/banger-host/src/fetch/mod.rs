//! What kernels and images have in common: a store of immutable objects under names, programs run
//! with progress and cancellation, staging folders, archives of any compression.
//!
//! An object is made in a staging folder, given its id by its contents, and published by one
//! rename. Everything here blocks; callers run it on a thread that may.

mod digest;
mod error;
mod members;
mod object_store;
mod progress;
mod single_flight;
mod space;
mod staging;
mod tool;
mod unpack;

pub use digest::{FileDigest, digest_of_blocks, digest_of_file, id_of};
pub use error::{FetchError, Kind, Place};
pub use object_store::{Broken, Deleted, InUse, Listing, ObjectStore, Record};
pub use progress::{Counted, Progress, Silent};
pub use single_flight::{Flight, SingleFlight};
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
