//! Connections to the API: HTTP/1.1 with limits on their number, on heads, and on every wait.

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::io::Errno;
use tokio::net::UnixStream;

use crate::limits;
use crate::slots::{Slot, Slots};
use crate::socket::Socket;
use crate::stopping::Stopping;

/// Maximum number of API connections.
pub const MAX_CONNECTIONS: u32 = 512;
/// Time limit for the head of a request to arrive, and for an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum size of a head in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Pause after a failed accept(2), and between log lines about it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const LOG_PAUSE: Duration = Duration::from_secs(10);

/// Accepts connections until the daemon shuts down, and passes each to `serve`; returns the slots
/// of the open connections.
pub async fn accept<F>(
    socket: Socket,
    stopping: Stopping,
    slots: Arc<Slots>,
    serve: impl Fn(UnixStream, Slot) -> F,
) -> Arc<Slots>
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut logged: Option<tokio::time::Instant> = None;
    loop {
        let next = async {
            slots.wait().await;
            let accepted = socket.accept().await?;
            Ok((accepted, slots.take().await))
        };
        let next: std::io::Result<_> = tokio::select! {
            () = stopping.requested() => return slots,
            next = next => next,
        };
        match next {
            Ok((stream, slot)) => {
                tokio::spawn(serve(stream, slot));
            }
            Err(error) => {
                if logged.is_none_or(|logged| logged.elapsed() >= LOG_PAUSE) {
                    logged = Some(tokio::time::Instant::now());
                    let limit = limits::descriptors();
                    tracing::error!(error = %error, descriptor_limit = limit, "accept");
                }
                let full = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
                if full.contains(&error.raw_os_error()) {
                    slots.close_idlest();
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves HTTP on one connection. On shutdown, the request in progress is still answered. Changes
/// run in separate tasks, so a connection may close at any time.
pub async fn http(stream: UnixStream, slot: Slot, router: Router, stopping: Stopping) {
    let slot = Arc::new(slot);
    let stream = TokioIo::new(slot.watch(stream));
    let router = router.layer(Extension(slot.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(stream, TowerToHyperService::new(router))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = slot.closed() => return,
        () = stopping.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "a connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::WhenFull;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    /// Sends part of a request; returns the time until the server closed the connection.
    async fn waited(sent: &[u8]) -> Duration {
        let (mut client, server) = UnixStream::pair().unwrap();
        let slot = Slots::new(1, WhenFull::Wait).take().await;
        tokio::spawn(http(server, slot, Router::new(), Stopping::default()));
        client.write_all(sent).await.unwrap();
        let begun = Instant::now();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn slow_clients_are_disconnected() {
        for sent in [&b""[..], b"GET /v1/vms HTTP/1.1\r\nhost: "] {
            let waited = waited(sent).await;
            assert!(waited >= HEAD_TIMEOUT && waited < 2 * HEAD_TIMEOUT, "{waited:?}");
        }
    }

    #[tokio::test]
    async fn connections_are_limited_and_awaited() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let socket = Socket::bind(&path).unwrap();
        let stopping = Stopping::default();
        let (sender, mut served) = tokio::sync::mpsc::unbounded_channel();
        let slots = Slots::new(1, WhenFull::Wait);
        let serve = move |mut stream: UnixStream, slot| {
            let sender = sender.clone();
            async move {
                sender.send(()).unwrap();
                let _ = stream.read_u8().await;
                drop(slot);
            }
        };
        let accepting = tokio::spawn(accept(socket, stopping.clone(), slots, serve));
        let first = UnixStream::connect(&path).await.unwrap();
        let second = UnixStream::connect(&path).await.unwrap();
        served.recv().await.unwrap();
        assert!(served.try_recv().is_err(), "the second waits in the queue");
        drop(first);
        served.recv().await.unwrap();
        stopping.request();
        let open = accepting.await.unwrap();
        assert!(!path.exists());
        let mut ended = std::pin::pin!(open.all_free());
        let early = tokio::time::timeout(Duration::from_millis(20), ended.as_mut()).await;
        assert!(early.is_err(), "the second is still served");
        drop(second);
        ended.await;
    }
}
