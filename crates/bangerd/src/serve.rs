//! Connections to the API: HTTP/1.1 with limits on their number, on heads, and on patience.

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
pub const MAX_CONNECTIONS: usize = 512;
/// Longest time for a request's head to arrive, and for an idle connection to stay.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest head, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Pause after an accept failed, which is most often for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Accepts connections until the daemon is on its way out and hands each to `serve`.
pub async fn accept<F>(
    socket: Socket,
    stopping: Stopping,
    most: usize,
    serve: impl Fn(UnixStream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(most));
    loop {
        let next = async {
            // The semaphore is never closed.
            let permit = room.clone().acquire_owned().await.ok();
            (permit, socket.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = stopping.asked() => return,
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
