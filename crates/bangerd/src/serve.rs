//! Connections to the API: HTTP/1.1 with limits on their number, on heads, and on waited.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use crate::socket::Socket;
use crate::stopping::Stopping;

/// Connections served at the same time; more wait in the socket's queue.
pub const MAX_CONNECTIONS: u32 = 512;
/// Longest time for a request's head to arrive, and for an idle connection to stay.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest head, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Pause after an accept failed, which is most often for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Connections that were accepted and are still served.
pub struct Open {
    room: Arc<Semaphore>,
    most: u32,
}

impl Open {
    /// Resolves when all of them have ended.
    pub async fn ended(&self) {
        // The semaphore is never closed.
        let _ = self.room.acquire_many(self.most).await;
    }
}

/// Accepts connections until the daemon is on its way out and hands each to `serve`; returns those
/// that are open then.
pub async fn accept<F>(
    socket: Socket,
    stopping: Stopping,
    most: u32,
    serve: impl Fn(UnixStream) -> F,
) -> Open
where
    F: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(most as usize));
    loop {
        let next = async {
            // The semaphore is never closed.
            let permit = room.clone().acquire_owned().await.ok();
            (permit, socket.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = stopping.asked() => return Open { room, most },
            next = next => next,
        };
        match accepted {
            Ok(stream) => {
                let work = serve(stream);
                tokio::spawn(async move {
                    work.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::error!(error = %error, "accept");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Speaks HTTP on one connection. On the way out, the request under way is still answered.
pub async fn http(stream: UnixStream, router: Router, stopping: Stopping) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.asked() => {
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    /// Sends what a slow client gets out and tells how long it is waited for.
    async fn waited(sent: &[u8]) -> Duration {
        let (mut client, server) = UnixStream::pair().unwrap();
        tokio::spawn(http(server, Router::new(), Stopping::default()));
        client.write_all(sent).await.unwrap();
        let begun = Instant::now();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn slow_clients_are_hung_up_on() {
        for sent in [&b""[..], b"GET /v1/vms HTTP/1.1\r\nhost: "] {
            let waited = waited(sent).await;
            assert!(waited >= HEAD_TIMEOUT && waited < 2 * HEAD_TIMEOUT, "{waited:?}");
        }
    }

    #[tokio::test]
    async fn connections_are_counted_and_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let socket = Socket::bind(&path).unwrap();
        let stopping = Stopping::default();
        let (sender, mut served) = tokio::sync::mpsc::unbounded_channel();
        let accepting = tokio::spawn(accept(socket, stopping.clone(), 1, move |mut stream| {
            let sender = sender.clone();
            async move {
                sender.send(()).unwrap();
                let _ = stream.read_u8().await;
            }
        }));
        let first = UnixStream::connect(&path).await.unwrap();
        let second = UnixStream::connect(&path).await.unwrap();
        served.recv().await.unwrap();
        assert!(served.try_recv().is_err(), "the second waits in the queue");
        drop(first);
        served.recv().await.unwrap();
        stopping.ask();
        let open = accepting.await.unwrap();
        assert!(!path.exists());
        let mut ended = std::pin::pin!(open.ended());
        let early = tokio::time::timeout(Duration::from_millis(20), ended.as_mut()).await;
        assert!(early.is_err(), "the second is still served");
        drop(second);
        ended.await;
    }
}
