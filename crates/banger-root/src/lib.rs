//! What only root can do, as a closed list of requests.
//!
//! The same code runs in the small program `banger-root`, which an ordinary user's daemon asks over
//! a socket, and within a daemon that is root itself. A request names a VM by its id and nothing
//! else of the host: paths, interfaces, devices and uids derive from the id here. No shell is run,
//! no configuration of a user is read, no link is followed. docs/threat-model.md lists them all.

mod admission;
pub mod disks;
pub mod error;
pub mod jail;
pub mod net;
pub mod owner;
pub mod places;
pub mod programs;
pub mod run;
pub mod server;
pub mod wire;
pub mod words;

pub use error::{Kind, RootError};
pub use places::Places;
pub use programs::Programs;
pub use words::Did;
