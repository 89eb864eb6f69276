//! Operations that require root, as a closed list of requests.
//!
//! The same code runs in the program `banger-root`, which an ordinary user's daemon calls over a
//! socket, and within a daemon that runs as root. A request identifies a VM by its id and names no
//! other object of the host: paths, interfaces, devices and uids derive from the id. No shell is
//! run, no user's configuration is read, no link is followed. docs/threat-model.md lists all
//! requests.

mod admission;
pub mod disks;
pub mod error;
pub mod jail;
pub mod net;
pub mod owner;
pub mod places;
pub mod program;
pub mod programs;
pub mod protocol;
pub mod run;
pub mod server;
pub mod traces;
pub mod wire;

pub use error::{Kind, RootError};
pub use places::Places;
pub use programs::Programs;
pub use protocol::Did;
