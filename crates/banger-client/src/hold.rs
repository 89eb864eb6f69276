//! Keeping a session-bound VM alive, across restarts of the daemon.

use banger_api::session::SessionRequest;
use banger_api::{ApiError, VmId};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::watch::FolderWatch;

/// Tries at a socket that has just appeared: it is bound a moment before it is listened on.
const FRESH_SOCKET_TRIES: u32 = 50;
/// Pause between these.
const FRESH_SOCKET_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// While this lives, the daemon does not end the VM's session. Ends when it is dropped.
#[derive(Debug)]
pub struct Hold(JoinHandle<()>);

impl Client {
    /// Holds a VM whose lifetime is a session.
    ///
    /// # Errors
    /// Not found, or the daemon's.
    pub async fn hold(&self, vm: &VmId) -> Result<Hold, ApiError> {
        let request = SessionRequest::Hold { vm: vm.to_string() };
        let (stream, _) = self.session(&request).await?;
        Ok(Hold(tokio::spawn(keep(self.clone(), request, stream))))
    }
}

impl Hold {
    /// Lets go; returns when the connection is closed.
    pub async fn release(mut self) {
        self.0.abort();
        // An aborted task ends with an error that says so.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Holds; when the daemon ends, waits for the next one and holds there.
///
/// It starts none itself: somebody may have stopped the daemon on purpose, and a VM without daemon
/// lives on. The next daemon waits a while for its holders before it ends their sessions.
async fn keep(client: Client, request: SessionRequest, mut stream: UnixStream) {
    loop {
        let mut byte = [0];
        // Nothing is ever said on it, so whatever comes is the end.
        let _ = stream.read(&mut byte).await;
        stream = match again(&client, &request).await {
            Some(stream) => stream,
            None => return,
        };
    }
}

async fn again(client: &Client, request: &SessionRequest) -> Option<UnixStream> {
    let watch = FolderWatch::new(&client.paths().run).ok()?;
    let mut tries = 0;
    loop {
        match client.session_once(request).await {
            Ok((stream, _)) => return Some(stream),
            Err(ended) if !ended.is_absent() => return None,
            Err(_) if tries > 0 => {
                tries -= 1;
                tokio::time::sleep(FRESH_SOCKET_PAUSE).await;
            }
            Err(_) => {
                watch.changed().await.ok()?;
                tries = FRESH_SOCKET_TRIES;
            }
        }
    }
}
