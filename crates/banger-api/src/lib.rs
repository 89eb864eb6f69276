//! The vocabulary of banger's API: types, ids, names, sizes, events, errors, exit codes and routes.
//! No I/O.
//!
//! The daemon, the CLI and other clients share these types and their parsers, so that both sides
//! reject the same input with the same message.

pub mod action;
pub mod agent;
pub mod boot;
pub mod build;
pub mod container_ref;
pub mod daemon;
pub mod disk;
pub mod doctor;
pub mod error;
pub mod events;
pub mod exit;
pub mod filter;
pub mod handover;
pub mod hint;
pub mod host;
pub mod idempotency;
pub mod ids;
pub mod images;
pub mod labels;
pub mod limits;
pub mod names;
pub mod opencode;
pub mod operation;
pub mod paths;
pub mod program;
pub mod publish;
pub mod reference;
pub mod routes;
pub mod session;
pub mod set;
mod signature;
pub mod size;
mod state;
pub mod stats;
pub mod sync;
pub mod trace;
pub mod vm;

pub use banger_base::{ByteString, VmId, excerpt};
pub use error::{ApiError, ErrorCode};
pub use hint::Hint;
pub use ids::{ImageId, KernelId, OpId};
pub use names::VmName;
