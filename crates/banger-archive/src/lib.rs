//! Trees of files as tar streams, read and written within limits, on both sides of the border
//! between host and guest: each side treats the other's stream as hostile.
//!
//! The format is pax (POSIX.1-2008 `pax`, GNU's "PAX Format, Version 1.0" for sparse files);
//! archives of GNU tar, old sparse ones included, can be read as well. [`pack`] follows no symlink
//! below its source, [`place`](mod@place) finds the folder to unpack into, [`unpack`](mod@unpack)
//! writes nothing outside of its folder and through no symlink.

pub mod beneath;
mod entry;
mod failure;
mod git_folder;
mod new_file;
pub mod pack;
pub mod place;
mod read;
pub mod unpack;
mod write;

pub use entry::{Entry, Kind, MAX_FILE_BYTES, Segment};
pub use failure::{Cause, Failure};
pub use git_folder::is_git_folder;
pub use new_file::{is_temporary, remove_leftovers, temporary_name};
pub use read::Reader;
pub use write::Writer;
