//! Transports to a daemon.
//!
//! [`Client`](crate::Client) uses HTTP/1.1 on the streams that a transport opens. A transport to a
//! daemon on this host also has the path of the session socket. Without it, commands in guests and
//! leases use upgraded HTTP connections, and the client does not start or replace a daemon.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::unix;

/// A connected byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The future of a connection.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// Opens connections to a daemon.
pub trait Transport: Send + Sync {
    /// Opens a connection for HTTP/1.1.
    fn connect(&self) -> Connecting<'_>;

    /// The session socket (see [`banger_api::session`]) of a daemon on this host.
    fn session_socket(&self) -> Option<&Path>;
}

/// Unix sockets on this host, at paths of any length.
#[derive(Debug, Clone)]
pub struct LocalSocket {
    /// Socket of the API.
    pub api: PathBuf,
    /// The session socket.
    pub sessions: PathBuf,
}

impl Transport for LocalSocket {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(async { Ok(Box::new(unix::connect(&self.api).await?) as Box<dyn Stream>) })
    }

    fn session_socket(&self) -> Option<&Path> {
        Some(&self.sessions)
    }
}
