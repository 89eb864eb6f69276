//! Live folders: a folder of the host and a folder of a guest, kept alike both ways.
//!
//! The design is Mutagen's ("two-way-safe"). The state that both sides last agreed on, the *base*,
//! is compared with the present state of each:
//!
//! ```text
//! scan       lists what changed on either side, and digests files whose state (stat(2)) is new
//! reconcile  base, host and guest in, actions out; pure
//! transfer   carries the actions out, each refused where a program changed the file meanwhile
//! settle     what both sides have now is the new base; saved after it is on both disks
//! ```
//!
//! A conflict is an action like others: the guest's version gets a name of its own
//! ([`reconcile::conflict_name`]), and the host's version keeps the name. If a folder that had
//! content vanished or is empty as a whole, nothing is done ([`reconcile::halt`]).
//!
//! Whatever comes from the guest is checked here ([`admit`]) or by the host's side, which resolves
//! every path beneath the folder.

pub mod admit;
pub mod base;
mod ends;
mod flush;
pub mod peer;
pub mod reconcile;
pub mod rules;
mod scan;
pub mod scope;
pub mod session;
mod side_tree;
mod status;
mod transfer;
pub mod tree;

pub use ends::{Connection, End, Folders};
pub use session::Session;
pub use status::{Phase, Status};
pub use transfer::Problem;
