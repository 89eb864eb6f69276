//! `banger mcp`: the API as tools of the Model Context Protocol, on standard input and output.
//!
//! A server belongs to one client. Machines that it creates live as long as the session: the daemon
//! deletes them when the connection that holds them closes, so also if this process is killed.
//! Text from a guest contains no characters that control a terminal ([`text`]).

mod answer;
mod arguments;
mod command;
mod copies;
mod files;
mod folders;
mod machines;
mod operation;
mod progress;
mod server;
mod session;
mod text;
mod tools;
mod workspace;

use banger_api::{ApiError, ErrorCode};
use banger_client::Client;
use rmcp::ServiceExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub use folders::Folders;
pub use tools::{Access, Tool};

use crate::server::Server;

/// What a client may do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Tools that it may call.
    pub tools: Vec<Tool>,
    /// Folders of this host that it may copy from and to.
    pub folders: Folders,
    /// Version of this program.
    pub version: &'static str,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The client closed the connection.
    Closed,
    /// This signal ended it.
    Signal(u8),
}

/// Serves one client on standard input and output until it closes them or a signal ends this
/// process; then deletes the machines of the session that are not to be kept.
///
/// # Errors
/// The client does not begin with the handshake; the daemon refuses the deletion of a machine.
pub async fn serve(client: Client, options: Options) -> Result<Ended, ApiError> {
    let mut signals = Signals::listen().map_err(|error| {
        ApiError::new(ErrorCode::Internal, "signal handlers cannot be installed").caused_by(&error)
    })?;
    let server = Server::new(client, options)?;
    let serving = async {
        match server.clone().serve(rmcp::transport::stdio()).await {
            Ok(service) => service.waiting().await.map(drop).map_err(|error| {
                ApiError::new(ErrorCode::Internal, "the server failed").caused_by(&error)
            }),
            // Standard input ended before the handshake, as with `banger mcp </dev/null`.
            Err(rmcp::service::ServerInitializeError::ConnectionClosed(_)) => Ok(()),
            Err(error) => {
                let text = "the client does not speak the Model Context Protocol";
                Err(ApiError::new(ErrorCode::BadRequest, text).caused_by(&error))
            }
        }
    };
    let ended = tokio::select! {
        served = serving => served.map(|()| Ended::Closed),
        number = signals.next() => Ok(Ended::Signal(number)),
    };
    // The machines are deleted whatever the reason of the end is.
    let removed = server.end().await;
    ended.and_then(|ended| removed.map(|()| ended))
}

/// Signals that end the session.
struct Signals(Vec<(u8, Signal)>);

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let kinds = [
            (1, SignalKind::hangup()),
            (2, SignalKind::interrupt()),
            (15, SignalKind::terminate()),
        ];
        let listen = |(number, kind)| Ok((number, signal(kind)?));
        kinds.into_iter().map(listen).collect::<std::io::Result<_>>().map(Self)
    }

    async fn next(&mut self) -> u8 {
        std::future::poll_fn(|cx| {
            for (number, signal) in &mut self.0 {
                if signal.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(*number);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}
