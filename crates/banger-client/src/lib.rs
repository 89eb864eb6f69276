//! The daemon's API over its Unix socket: typed calls, operations followed across interruptions,
//! and connections to a guest's agent that outlive the daemon.
//!
//! Everything runs on a current-thread tokio runtime. Errors are [`banger_api::ApiError`] whether
//! they come from the daemon or from the way to it, so that a caller shows them all alike.

pub mod agent;
pub mod batch;
mod call;
mod client;
mod daemon;
mod events;
mod exec;
pub mod follow;
mod hold;
mod http;
mod launch;
mod logs;
mod session;
mod sse;
mod sys;
mod transport;
mod unix;
mod upload;
pub mod watch;

pub use banger_agent_proto::bytes::ByteString;
pub use banger_agent_proto::exec::{Detached, ExecRequest, ExitStatus, WindowSize};
pub use client::Client;
pub use daemon::Presence;
pub use events::Follow;
pub use exec::{Control, Exec, ExecInput, ExecOutput, Output};
pub use hold::Hold;
pub use launch::Launcher;
pub use logs::{DaemonLogQuery, LogStream, VmLogQuery, VmLogSource};
pub use session::AgentSession;
pub use transport::{Connecting, LocalSocket, Stream, Transport};
