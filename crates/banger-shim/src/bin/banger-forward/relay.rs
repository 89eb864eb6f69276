//! Accepts clients and forwards their connections, in one thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use banger_shim::MAX_CONNECTIONS;
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::connection::{carry, prepare, reset};

/// Time limit for a guest to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept(2) for lack of descriptors or memory.
const SCARCITY_PAUSE: Duration = Duration::from_secs(1);

/// Forwards the clients of all listeners, each to its address, until the process ends.
///
/// # Errors
/// A listener cannot be registered, or its task ended.
pub async fn run(listeners: Vec<(std::net::TcpListener, SocketAddr)>) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut tasks = JoinSet::new();
    for (listener, to) in listeners {
        let listener = TcpListener::from_std(listener)?;
        tasks.spawn(accept(listener, to, slots.clone()));
    }
    match tasks.join_next().await {
        Some(Err(error)) => Err(io::Error::other(error)),
        Some(Ok(())) => Err(io::Error::other("a listener ended")),
        // No ports: the process waits for SIGTERM.
        None => std::future::pending().await,
    }
}

/// Accepts clients of one listener. While all slots are in use, one client waits here and further
/// ones in the accept queue.
async fn accept(listener: TcpListener, to: SocketAddr, slots: Arc<Semaphore>) {
    loop {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) if is_scarce(&error) => {
                tokio::time::sleep(SCARCITY_PAUSE).await;
                continue;
            }
            // The client disconnected, or its network failed: accept(2).
            Err(_) => continue,
        };
        // The semaphore is never closed.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        tokio::spawn(serve(client, to, slot));
    }
}

/// Whether the host lacks descriptors or memory.
fn is_scarce(error: &io::Error) -> bool {
    let known = Errno::from_io_error(error);
    matches!(known, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Connects to the guest and forwards one connection; frees its slot when both ends are closed.
async fn serve(mut client: TcpStream, to: SocketAddr, slot: OwnedSemaphorePermit) {
    match tokio::time::timeout(CONNECT_TIMEOUT, connect(&client, to)).await {
        Ok(Ok(mut guest)) => {
            if carry(&mut client, &mut guest).await.is_err() {
                reset(client);
                reset(guest);
            }
        }
        Ok(Err(_)) | Err(_) => reset(client),
    }
    drop(slot);
}

async fn connect(client: &TcpStream, to: SocketAddr) -> io::Result<TcpStream> {
    prepare(client)?;
    let guest = TcpStream::connect(to).await?;
    prepare(&guest)?;
    Ok(guest)
}
