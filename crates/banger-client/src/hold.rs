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
        let (stream, ..) = self.session(request.clone()).await?;
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
            Ok((stream, ..)) => return Some(stream),
            Err(ended) if !ended.is_daemon_absent() => return None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use banger_api::paths::Paths;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::UnixListener;

    use crate::launch::Launcher;

    /// The next holder that comes to a socket.
    async fn holder(listener: &UnixListener, answer: &str) -> BufReader<UnixStream> {
        let wait = tokio::time::timeout(Duration::from_secs(10), listener.accept());
        let mut stream = BufReader::new(wait.await.unwrap().unwrap().0);
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert_eq!(line, "{\"want\":\"hold\",\"vm\":\"aaaa00000001\"}\n");
        stream.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
        stream
    }

    async fn hears_the_end(mut stream: BufReader<UnixStream>) {
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest);
        // A reset is an end too: the answer may not have been read yet.
        let _ = tokio::time::timeout(Duration::from_secs(10), read).await.unwrap();
        assert_eq!(rest, b"");
    }

    #[tokio::test]
    async fn a_hold_moves_to_the_next_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let env = |name: &str| (name == "BANGER_HOME").then(|| folder.path().to_owned());
        let paths = Paths::resolve(env, 1).unwrap();
        std::fs::create_dir_all(&paths.run).unwrap();
        let socket = paths.session_socket();
        let launcher = Launcher { program: "/nonexistent".into(), build_id: "x".into() };
        let client = Client::new(paths, launcher);
        let vm: VmId = "aaaa00000001".parse().unwrap();
        let held = "{\"answer\":\"held\"}";

        let listener = UnixListener::bind(&socket).unwrap();
        let (hold, first) = tokio::join!(client.hold(&vm), holder(&listener, held));
        let hold = hold.unwrap();
        // Killed: the socket's file stays, nobody listens.
        drop((listener, first));
        tokio::time::sleep(Duration::from_millis(20)).await;
        std::fs::remove_file(&socket).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let second = holder(&listener, held).await;
        hold.release().await;
        hears_the_end(second).await;

        // One that does not want to be held is not asked again and again.
        let (hold, first) = tokio::join!(client.hold(&vm), holder(&listener, held));
        let _hold = hold.unwrap();
        drop(first);
        let refused =
            "{\"answer\":\"refused\",\"error\":{\"code\":\"not_found\",\"message\":\"x\"}}";
        holder(&listener, refused).await;
        let again = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
        assert!(again.is_err(), "asked again");
    }
}
