//! The vocabulary that the daemon, the privileged helper and the shim share: VM ids and the names
//! derived from them, process references, leases, ends of runs, hints about the host, byte strings,
//! and the framing of messages.
//!
//! No I/O, no async runtime, no policy: each program that runs with privileges can depend on it.

mod bytes;
mod drive;
mod exit;
pub mod hint;
mod lease;
pub mod line;
mod process;
mod status;
mod text;
mod vm_id;

pub use bytes::ByteString;
pub use drive::DriveRole;
pub use exit::{ExitCause, ExitStory, GuestEnd, Outcome, PROGRAM_ENDED, RunFacts};
pub use hint::HostHint;
pub use lease::Lease;
pub use process::ProcRef;
pub use status::{DiskTrouble, ShimStatus, VcpuState};
pub use text::{excerpt, printable};
pub use vm_id::{BadId, MacAddress, POOL_TAP_PREFIX, TAP_PREFIX, VmId};
