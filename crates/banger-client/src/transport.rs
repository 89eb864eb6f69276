//! How requests reach a daemon.
//!
//! [`Client`](crate::Client) speaks HTTP on whatever stream a transport opens. There is one
//! transport now, the daemon's Unix socket on this host; what needs this host besides (starting the
//! daemon, sessions on descriptors of their own) asks for its paths elsewhere.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::unix;

/// A connected byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The future of a connection.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// A way to a daemon.
pub trait Transport: Send + Sync {
    /// Opens a connection on which the daemon speaks HTTP/1.1.
    fn connect(&self) -> Connecting<'_>;
}

/// A Unix socket on this host, at a path of any length.
#[derive(Debug, Clone)]
pub struct LocalSocket(pub PathBuf);

impl Transport for LocalSocket {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(async { Ok(Box::new(unix::connect(&self.0).await?) as Box<dyn Stream>) })
    }
}
