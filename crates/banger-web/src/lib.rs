//! The web page of banger: a face of the API for people, served on the loopback address.
//!
//! Pages are rendered here and sent as HTML; small scripts of this crate keep them current by
//! server-sent events, and the terminal in the browser is a WebSocket. Everything that a page loads
//! is embedded in the program.
//!
//! - [`guard`]: which requests are admitted (names of this host, the own origin).
//! - [`login`]: one-time tokens, sessions, tokens of forms.
//! - [`hub`]: the list of VMs, followed once for all open pages.
//! - [`vms`], [`vm`], [`images`], [`operations`], [`page`]: pages and their forms, thin over the
//!   client of the API: all decisions and checks of values are the daemon's.

mod assets;
mod entry;
mod form;
pub mod guard;
mod history;
mod host;
mod hub;
mod images;
mod live;
pub mod login;
mod operations;
mod page;
mod plain;
mod routes;
mod row;
mod site;
mod terminal;
mod vm;
mod vms;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use banger_api::{ApiError, ErrorCode};
use banger_client::Client;
use tokio::net::TcpListener;

use crate::site::Site;

pub use site::paths;

/// Default address and port of the page.
pub const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7777);

/// The page, listening.
pub struct WebPage {
    site: Arc<Site>,
    listener: TcpListener,
    address: SocketAddr,
}

/// Makes one-time links to the page.
#[derive(Clone)]
pub struct Links {
    site: Arc<Site>,
    address: SocketAddr,
}

impl WebPage {
    /// Listens on a loopback address; port 0 is any free port.
    ///
    /// # Errors
    /// An address of a network, or one that is in use.
    pub async fn bind(client: Client, listen: SocketAddr) -> Result<Self, ApiError> {
        if !listen.ip().is_loopback() {
            let text = format!(
                "the web page does not listen on `{listen}`: it has no encryption, and listens on \
                 127.0.0.1 or [::1] only; from another computer, forward the port: \
                 `ssh -L 7777:127.0.0.1:7777 HOST`"
            );
            return Err(ApiError::new(ErrorCode::BadRequest, text));
        }
        let failed = |error: io::Error| {
            let text = match error.kind() {
                io::ErrorKind::AddrInUse => format!(
                    "`{listen}` is in use: choose another port with --listen, or press Enter where \
                     `banger web` runs already for a link to it"
                ),
                _ => format!("the web page cannot listen on `{listen}`"),
            };
            ApiError::new(ErrorCode::HostNotReady, text).caused_by(&error)
        };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { site: Site::new(client, address.port()), listener, address })
    }

    /// The address that the page listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes links while the page is served.
    pub fn links(&self) -> Links {
        Links { site: self.site.clone(), address: self.address }
    }

    /// Serves the page until it fails or the future is dropped.
    ///
    /// # Errors
    /// Connections cannot be accepted any more.
    pub async fn serve(self) -> io::Result<()> {
        let router = site::router(self.site.clone());
        tokio::select! {
            served = axum::serve(self.listener, router) => served,
            () = hub::run(self.site) => Ok(()),
        }
    }
}

impl Links {
    /// A link that opens one session.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new_link(&self) -> io::Result<String> {
        Ok(format!("http://{}/enter?token={}", self.address, self.site.new_token()?))
    }
}
