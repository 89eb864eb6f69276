//! The words of banger: types, ids, names, sizes, events, errors, exit codes and routes. No I/O.
//!
//! Everything that the daemon, the CLI and other clients say to each other is here, and is parsed
//! here, so that both sides refuse the same bad input with the same words.

pub mod action;
pub mod boot;
pub mod daemon;
pub mod doctor;
pub mod error;
pub mod events;
pub mod exit;
pub mod ids;
pub mod images;
pub mod limits;
pub mod names;
pub mod operation;
pub mod paths;
pub mod publish;
pub mod reference;
pub mod routes;
pub mod session;
pub mod size;
pub mod vm;

pub use banger_base::VmId;
pub use error::{ApiError, ErrorCode};
pub use ids::{ImageId, KernelId, OpId};
pub use names::VmName;
