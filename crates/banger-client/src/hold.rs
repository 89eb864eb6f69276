//! Leases of session-bound VMs, which survive restarts of the daemon.

use std::time::Duration;

use banger_api::session::SessionRequest;
use banger_api::{ApiError, ErrorCode, VmId, routes};
use hyper::StatusCode;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::call::Idempotency;
use crate::client::{Client, fill};
use crate::http::{self, Call};
use crate::watch::FolderWatch;

/// Number of attempts at a socket that was just created: bind(2) precedes listen(2).
const FRESH_SOCKET_TRIES: u32 = 50;
/// Pause between them.
const FRESH_SOCKET_PAUSE: Duration = Duration::from_millis(10);
/// Pause between attempts to reach the next daemon on another host, where no folder can be watched.
/// A daemon waits longer than this for the holders of its VMs.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// A lease: while it exists, the daemon does not end the VM's session.
#[derive(Debug)]
pub struct Hold(JoinHandle<()>);

impl Client {
    /// Holds a VM whose lifetime is a session.
    ///
    /// # Errors
    /// Not found, or the daemon's.
    pub async fn hold(&self, vm: &VmId) -> Result<Hold, ApiError> {
        if !self.is_local() {
            let stream = upgrade(self, vm).await?;
            return Ok(Hold(tokio::spawn(keep_remote(self.clone(), vm.clone(), stream))));
        }
        let request = SessionRequest::Hold { vm: vm.to_string() };
        let (stream, ..) = self.session(request.clone()).await?;
        Ok(Hold(tokio::spawn(keep(self.clone(), request, stream))))
    }
}

impl Hold {
    /// Ends the lease; returns when the connection is closed.
    pub async fn release(mut self) {
        self.0.abort();
        // An aborted task returns an error.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Holds the VM; when the daemon ends, waits for the next one and holds the VM there.
///
/// It starts no daemon: the user may have stopped it on purpose, and a VM without a daemon keeps
/// running. The next daemon waits for its holders before it ends their sessions.
async fn keep(client: Client, request: SessionRequest, mut stream: UnixStream) {
    loop {
        wait_for_end(&mut stream).await;
        stream = match reconnect(&client, &request).await {
            Some(stream) => stream,
            None => return,
        };
    }
}

/// As [`keep`], over upgraded connections.
async fn keep_remote(client: Client, vm: VmId, mut stream: Box<dyn AsyncRead + Send + Unpin>) {
    loop {
        wait_for_end(&mut stream).await;
        stream = loop {
            match upgrade(&client, &vm).await {
                Ok(stream) => break stream,
                Err(error) if error.code != ErrorCode::DaemonUnavailable => return,
                Err(_) => tokio::time::sleep(RECONNECT_PAUSE).await,
            }
        };
    }
}

/// Returns when the connection ends: the daemon sends no data on it.
async fn wait_for_end(stream: &mut (impl AsyncRead + Unpin)) {
    let mut byte = [0];
    let _ = stream.read(&mut byte).await;
}

/// Holds a VM over an upgraded HTTP connection ([`routes::VM_HOLD`]).
async fn upgrade(
    client: &Client,
    vm: &VmId,
) -> Result<Box<dyn AsyncRead + Send + Unpin>, ApiError> {
    let call = Call::post(&fill(routes::VM_HOLD, "vm", vm.as_str())?, &())?
        .with_header("connection", "upgrade")
        .with_header("upgrade", routes::HOLD_PROTOCOL);
    let answer = client.answer(call, Idempotency::NotIdempotent).await?;
    let unavailable = |text: &str| ApiError::new(ErrorCode::DaemonUnavailable, text);
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        http::accept(answer).await?;
        return Err(unavailable("the daemon did not hold the VM"));
    }
    let upgraded = hyper::upgrade::on(answer).await;
    let upgraded =
        upgraded.map_err(|error| unavailable("the connection ended").caused_by(&error))?;
    Ok(Box::new(TokioIo::new(upgraded)))
}

async fn reconnect(client: &Client, request: &SessionRequest) -> Option<UnixStream> {
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
    use banger_api::paths::Paths;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::UnixListener;

    use crate::launch::Launcher;

    /// Accepts the next holder.
    async fn holder(listener: &UnixListener, answer: &str) -> BufReader<UnixStream> {
        let wait = tokio::time::timeout(Duration::from_secs(10), listener.accept());
        let mut stream = BufReader::new(wait.await.unwrap().unwrap().0);
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert_eq!(line, "{\"want\":\"hold\",\"vm\":\"aaaa00000001\"}\n");
        stream.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
        stream
    }

    async fn assert_closed(mut stream: BufReader<UnixStream>) {
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest);
        // The connection is reset if the answer was not read.
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
        // A killed daemon leaves its socket file.
        drop((listener, first));
        tokio::time::sleep(Duration::from_millis(20)).await;
        std::fs::remove_file(&socket).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let second = holder(&listener, held).await;
        hold.release().await;
        assert_closed(second).await;

        // After a refusal the client does not ask again.
        let (hold, first) = tokio::join!(client.hold(&vm), holder(&listener, held));
        let _hold = hold.unwrap();
        drop(first);
        let refused =
            "{\"answer\":\"refused\",\"error\":{\"code\":\"not_found\",\"message\":\"x\"}}";
        holder(&listener, refused).await;
        let again = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
        assert!(again.is_err(), "a second request");
    }
}
