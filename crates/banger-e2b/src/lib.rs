//! `banger serve --e2b`: the API of E2B's sandboxes, for its unmodified SDKs.
//!
//! An SDK sends two kinds of requests: those of a REST API about sandboxes, and those for an agent
//! in a sandbox (Connect RPC with JSON, and files over HTTP), which it also sends here if
//! `E2B_SANDBOX_URL` is set. All are thin over the client of the API.
//!
//! - [`access`]: keys, tokens and versions. [`server`]: which part answers a request.
//! - [`rest`], [`listing`], [`sandboxes`]: sandboxes and their ends.
//! - [`process_rpc`], [`process`]: commands. [`filesystem`], [`transfer`], [`watch`]: files.
//! - [`ports`]: ports. [`wire`], [`failure`]: messages and errors as the SDKs expect them.

mod access;
mod failure;
mod filesystem;
mod guest;
mod listing;
mod ports;
mod process;
mod process_rpc;
mod rest;
mod sandboxes;
mod server;
mod transfer;
mod watch;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use banger_api::{ApiError, ErrorCode};
use banger_client::Client;
use tokio::net::TcpListener;

pub use access::supported;

use crate::server::Server;

/// What a server offers.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Image of the template `base`; absent: the daemon's default.
    pub image: Option<String>,
}

/// A server, listening.
pub struct Door {
    server: Arc<Server>,
    listener: TcpListener,
    address: SocketAddr,
}

impl Door {
    /// Listens on a loopback address; port 0 is any free port.
    ///
    /// # Errors
    /// An address of a network, or one that is in use.
    pub async fn bind(
        client: Client,
        listen: SocketAddr,
        options: Options,
    ) -> Result<Self, ApiError> {
        if !listen.ip().is_loopback() {
            let text = format!(
                "`{listen}` is not an address of this computer only: the connections are not \
                 encrypted, use 127.0.0.1 or [::1]; from another computer, forward the port: \
                 `ssh -L 3000:127.0.0.1:3000 HOST`"
            );
            return Err(ApiError::new(ErrorCode::BadRequest, text));
        }
        let failed = |error: io::Error| {
            let text = match error.kind() {
                io::ErrorKind::AddrInUse => format!("`{listen}` is in use: choose another port"),
                _ => format!("cannot listen on `{listen}`"),
            };
            ApiError::new(ErrorCode::HostNotReady, text).caused_by(&error)
        };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let server = Arc::new(Server::new(client, options, address.port())?);
        Ok(Self { server, listener, address })
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The key that clients need.
    pub fn key(&self) -> &str {
        self.server.key.text()
    }

    /// Serves clients until `end`; then deletes all sandboxes.
    ///
    /// # Errors
    /// Connections cannot be accepted any more; the daemon refuses a deletion.
    pub async fn serve(self, end: impl Future<Output = ()>) -> Result<(), ApiError> {
        let router = server::router(self.server.clone());
        let served = tokio::select! {
            served = axum::serve(self.listener, router) => served.map_err(|error| {
                ApiError::new(ErrorCode::Internal, "connections cannot be accepted")
                    .caused_by(&error)
            }),
            () = end => Ok(()),
        };
        let removed = self.server.sandboxes.end(&self.server.client).await;
        served.and(removed)
    }
}
