//! Client of the daemon's API: typed calls, operations followed across lost connections, and
//! connections to guest agents that outlive the daemon.
//!
//! Runs on a current-thread tokio runtime. All errors are [`banger_api::ApiError`], those of the
//! daemon and those of the connection to it, so that callers show them alike.

pub mod agent;
mod all_events;
mod archive;
pub mod batch;
mod blocking;
mod build;
mod call;
mod client;
pub mod console;
mod copy;
mod copy_pieces;
mod daemon;
mod delete;
mod disk;
mod events;
mod exec;
pub mod follow;
mod forward;
mod handover;
mod hold;
mod http;
mod images;
mod launch;
mod logs;
mod messages;
mod pieces;
mod port;
mod raw;
mod session;
mod sse;
mod stats;
mod sys;
pub mod text;
mod trace;
mod transport;
mod unix;
mod upload;
pub mod watch;

pub use all_events::Events;
pub use archive::{ArchiveSource, ArchiveStream, ArchiveTarget, Pieces};
pub use banger_agent_proto::ByteString;
pub use banger_agent_proto::archive::Unpacked;
pub use banger_agent_proto::exec::{Detached, ExecRequest, ExitStatus, WindowSize};
pub use blocking::{BlockingEnd, BlockingExec, BlockingGuest, BlockingInput};
pub use client::Client;
pub use copy::{Copied, HostSource, HostTarget};
pub use copy_pieces::{Counter, PIECES, PieceWriter};
pub use daemon::Presence;
pub use delete::all_deleted;
pub use events::EventStream;
pub use exec::{Control, Exec, ExecInput, ExecOutput, Output};
pub use forward::Forward;
pub use handover::{Handover, take};
pub use hold::Hold;
pub use launch::Launcher;
pub use logs::{DaemonLogQuery, LogPiece, LogStream, VmLogQuery, VmLogSource};
pub use messages::keep_first;
pub use pieces::PieceReader;
pub use port::{MAX_PORT_WAIT, Port, PortStream};
pub use raw::{RawAnswer, RawRequest};
pub use session::AgentSession;
pub use stats::StatsSelection;
pub use trace::inherited_trace;
pub use transport::{Connecting, LocalSocket, Stream, Transport};
