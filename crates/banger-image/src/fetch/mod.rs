//! Shared by kernels and images: a store of immutable objects with names, external programs with
//! progress and cancellation, staging folders, compressed archives.
//!
//! An object is created in a staging folder, gets its id from its content, and is published by a
//! rename. All functions block; callers run them on a blocking thread.

mod digest;
mod durable;
mod error;
mod inflate;
mod members;
mod object_store;
mod output;
mod progress;
mod replaced;
mod single_flight;
mod space;
mod staging;
mod tool;
mod unpack;

pub use digest::{FileDigest, digest_of_blocks, digest_of_file, id_of};
pub use error::{FetchError, Kind, PathContext};
pub use inflate::{Inflate, read_full};
pub use object_store::{Broken, Deleted, InUse, Listing, ObjectStore, Record};
pub use progress::{Counted, NoProgress, Progress};
pub use single_flight::{Flight, SingleFlight};
pub use space::{free_bytes, need_space, used_bytes};
pub use staging::{Staging, clean, is_abandoned, make_folders};
pub use tool::{CA_INFO, Running, Tool, Tools};
pub use unpack::{Compression, Source, Unpacked};

/// Timestamp of a record: RFC 3339, UTC, whole seconds.
pub fn now() -> String {
    jiff::Timestamp::now()
        .round(jiff::Unit::Second)
        .map_or_else(|_| String::new(), |t| t.to_string())
}
