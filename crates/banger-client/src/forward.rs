//! Sockets of a guest that this host serves, such as the user's ssh agent.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use banger_agent_proto::archive::encode;
use banger_agent_proto::forward::{MAX_LINE, MAX_WAITING, UPGRADE};
use banger_api::{ApiError, ErrorCode};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Chain,
};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::http::Call;
use crate::port::{self, PortStream};

/// Bytes copied at once.
const PIECE: usize = 16 * 1024;

/// What the agent tells about a socket.
type Told = BufReader<Chain<Cursor<Bytes>, UnixStream>>;

/// A socket of a guest. It is removed when this is dropped.
pub struct Forward {
    client: Client,
    vm: String,
    /// Its path in the guest.
    pub path: String,
    told: Told,
}

impl Client {
    /// Makes a socket in a guest to which only `user` can connect.
    ///
    /// # Errors
    /// As [`Client::connect_port`]; an unknown user.
    pub async fn forward(&self, vm: &str, user: Option<&str>) -> Result<Forward, ApiError> {
        let user = user.unwrap_or("root");
        let path = format!("/forward?user={}", encode(user.as_bytes()));
        let stream = self.agent_upgrade(vm, &path, UPGRADE).await?;
        let (early, stream) = stream.into_parts();
        let mut told: Told = BufReader::new(Cursor::new(early).chain(stream));
        let path = line(&mut told).await.map_err(|error| {
            let text = format!("the agent of `{vm}` did not make a socket");
            ApiError::new(ErrorCode::GuestFailed, text).caused_by(&error)
        })?;
        Ok(Forward { client: self.clone(), vm: vm.to_owned(), path, told })
    }

    /// A connection to a folder of a guest in the protocol of live folders, which `protocol` names.
    /// `user` is a user of the guest, the superuser if absent.
    ///
    /// # Errors
    /// As [`Client::connect_port`]; no folder, no permission.
    pub async fn live_folder(
        &self,
        vm: &str,
        folder: &[u8],
        user: Option<&str>,
        protocol: &str,
    ) -> Result<PortStream, ApiError> {
        let user = user.map(|user| format!("&user={}", encode(user.as_bytes())));
        let path = format!("/sync?path={}{}", encode(folder), user.unwrap_or_default());
        self.agent_upgrade(vm, &path, protocol).await
    }

    async fn agent_upgrade(
        &self,
        vm: &str,
        path: &str,
        protocol: &str,
    ) -> Result<PortStream, ApiError> {
        let mut call = Call::get(path);
        call.method = Method::POST;
        let call = call.with_header("connection", "upgrade").with_header("upgrade", protocol);
        let answer = self.agent_answer(vm, call).await?;
        match answer.status() {
            StatusCode::SWITCHING_PROTOCOLS => port::upgraded(vm, answer).await,
            _ => Err(port::refusal(vm, answer).await),
        }
    }
}

impl Forward {
    /// Passes connections to the socket `to` of this host, until the guest ends. At most
    /// [`MAX_WAITING`] are open at once.
    pub async fn serve(mut self, to: PathBuf) {
        let mut open = JoinSet::new();
        while let Ok(number) = line(&mut self.told).await {
            while open.try_join_next().is_some() {}
            let Ok(number) = number.parse::<u64>() else { return };
            if open.len() >= MAX_WAITING {
                // Taken and closed, else it would wait for ever.
                drop(take(&self.client, &self.vm, number).await);
                continue;
            }
            let (client, vm, to) = (self.client.clone(), self.vm.clone(), to.clone());
            open.spawn(async move {
                if let Ok(guest) = take(&client, &vm, number).await {
                    pass(guest, &to).await;
                }
            });
        }
    }
}

async fn take(client: &Client, vm: &str, number: u64) -> Result<PortStream, ApiError> {
    client.agent_upgrade(vm, &format!("/forward/take?number={number}"), UPGRADE).await
}

/// Passes bytes both ways until either side ends. Without a server on this host the guest's
/// connection is closed.
async fn pass(guest: PortStream, to: &Path) {
    let Ok(server) = UnixStream::connect(to).await else { return };
    let (early, guest) = guest.into_parts();
    let (from_guest, to_guest) = guest.into_split();
    let (from_server, to_server) = server.into_split();
    let from_guest = Cursor::new(early).chain(from_guest);
    tokio::select! {
        () = copy(from_guest, to_server) => {}
        () = copy(from_server, to_guest) => {}
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl tokio::io::AsyncWrite + Unpin) {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                if to.write_all(piece.get(..length).unwrap_or_default()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The next line, without its end.
async fn line(from: &mut Told) -> std::io::Result<String> {
    let mut text = String::new();
    let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    from.take(limit).read_line(&mut text).await?;
    match text.strip_suffix('\n') {
        Some(line) => Ok(line.to_owned()),
        None => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}
