//! DNS over UDP and TCP on the loopback address, with limits.
//!
//! A port in use does not prevent the daemon from starting: the log, `doctor` and `daemon status`
//! report it, and the server retries until the port is free. Another daemon may use it, or an
//! outgoing connection of any program, because the default is within the ephemeral range.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use banger_api::Hint;
use banger_api::daemon::DnsStatus;
use banger_api::doctor::{Check, Verdict};
use banger_api::hint::SetupAdvice;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::answer::UDP_BYTES;
use super::{Transport, Zone, answer};
use crate::stopping::Stopping;

/// Maximum number of TCP connections; more wait in the accept queue.
const MAX_CONNECTIONS: usize = 64;
/// Time limit for the next query of a connection to arrive, and for an answer to be sent.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of queries per connection.
const MAX_QUERIES: u32 = 256;
/// Maximum size of a query in bytes; typical queries have a few dozen.
const MAX_QUERY: u16 = 4096;
/// Interval between attempts to bind a port in use.
const BIND_RETRY: Duration = Duration::from_secs(5);
/// Pause after a socket error, usually caused by a lack of memory or descriptors.
const ERROR_PAUSE: Duration = Duration::from_millis(100);
/// Number of attempts to find a port that is free for both protocols.
const PORTS: u32 = 16;

/// Whether the server is listening, and on which address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listening {
    /// Listening on this address.
    At(SocketAddr),
    /// Not listening.
    Not {
        /// The wanted address.
        wanted: SocketAddr,
        /// The system's error.
        problem: String,
    },
}

impl Listening {
    /// For `daemon status`.
    pub fn status(&self) -> DnsStatus {
        match self {
            Self::At(address) => DnsStatus { listen: address.to_string(), problem: None },
            Self::Not { wanted, problem } => {
                DnsStatus { listen: wanted.to_string(), problem: Some(problem.clone()) }
            }
        }
    }

    /// The port; 0 if the server is not listening.
    pub fn port(&self) -> u16 {
        match self {
            Self::At(address) => address.port(),
            Self::Not { .. } => 0,
        }
    }

    /// For `doctor`.
    pub fn check(&self) -> Check {
        let (verdict, seen, hints) = match self {
            Self::At(address) => {
                (Verdict::Ok, format!("names of VMs are served at `{address}`"), Vec::new())
            }
            Self::Not { wanted, problem } => {
                let port = wanted.port();
                let hints = vec![
                    SetupAdvice::FreeDnsPort { port }.into(),
                    Hint::Configure { key: "dns_port".into(), value: None },
                ];
                (Verdict::Warning, format!("cannot listen on `{wanted}`: {problem}"), hints)
            }
        };
        Check { code: "dns.listen".into(), verdict, seen, hints, needed_for: vec!["dns".into()] }
    }
}

/// A running server.
pub struct Dns {
    listening: watch::Receiver<Listening>,
    task: JoinHandle<()>,
}

impl Dns {
    /// Starts a server on this port, 0 = any free port. Returns after the first attempt, which may
    /// have failed.
    pub async fn start(port: u16, zone: Arc<dyn Zone>, stopping: Stopping) -> Self {
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let sockets = bind(wanted).await;
        let (sender, listening) = watch::channel(seen(wanted, &sockets));
        let task = tokio::spawn(async move {
            tokio::select! {
                () = stopping.requested() => {}
                () = run(wanted, sockets, zone, sender) => {}
            }
        });
        Self { listening, task }
    }

    /// The present state and its changes.
    pub fn listening(&self) -> watch::Receiver<Listening> {
        self.listening.clone()
    }

    /// Resolves when the sockets are closed, after the shutdown request.
    pub async fn ended(self) {
        if let Err(error) = self.task.await {
            tracing::error!(error = %error, "dns");
        }
    }
}

struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddr,
}

/// Binds UDP and TCP sockets with the same port.
async fn bind(wanted: SocketAddr) -> io::Result<Sockets> {
    let mut attempts = PORTS;
    loop {
        let tcp = TcpListener::bind(wanted).await?;
        let address = tcp.local_addr()?;
        match UdpSocket::bind(address).await {
            Ok(udp) => return Ok(Sockets { udp, tcp, address }),
            Err(error) if wanted.port() != 0 || attempts == 0 => return Err(error),
            Err(_) => attempts -= 1,
        }
    }
}

fn seen(wanted: SocketAddr, sockets: &io::Result<Sockets>) -> Listening {
    match sockets {
        Ok(sockets) => {
            tracing::info!(address = %sockets.address, "dns");
            Listening::At(sockets.address)
        }
        Err(error) => {
            tracing::warn!(address = %wanted, error = %error, "names of VMs are not served");
            Listening::Not { wanted, problem: error.to_string() }
        }
    }
}

async fn run(
    wanted: SocketAddr,
    mut sockets: io::Result<Sockets>,
    zone: Arc<dyn Zone>,
    listening: watch::Sender<Listening>,
) {
    loop {
        match sockets {
            Ok(Sockets { udp, tcp, .. }) => {
                tokio::join!(datagrams(&udp, &*zone), connections(&tcp, &zone));
            }
            Err(_) => tokio::time::sleep(BIND_RETRY).await,
        }
        sockets = bind(wanted).await;
        // Log a repeated error once.
        if sockets.is_ok() {
            listening.send_replace(seen(wanted, &sockets));
        }
    }
}

async fn datagrams(socket: &UdpSocket, zone: &dyn Zone) {
    let mut buffer = [0; MAX_QUERY as usize];
    loop {
        let served = async {
            let (length, client) = socket.recv_from(&mut buffer).await?;
            let message = buffer.get(..length).unwrap_or_default();
            match answer(message, zone, Transport::Udp { max: UDP_BYTES }) {
                Some(answer) => socket.send_to(&answer, client).await,
                None => Ok(0),
            }
        };
        if let Err(error) = served.await {
            tracing::debug!(error = %error, "dns over UDP");
            tokio::time::sleep(ERROR_PAUSE).await;
        }
    }
}

async fn connections(listener: &TcpListener, zone: &Arc<dyn Zone>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Dropping this future ends all connections.
    let mut open = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let permit = room.clone().acquire_owned().await.ok();
        while open.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let zone = zone.clone();
                open.spawn(async move {
                    if let Err(error) = connection(stream, &*zone).await {
                        tracing::debug!(error = %error, "dns over TCP");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::error!(error = %error, "dns over TCP");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// Serves one connection (RFC 7766): each message is preceded by its length.
async fn connection(mut stream: TcpStream, zone: &dyn Zone) -> io::Result<()> {
    for _ in 0..MAX_QUERIES {
        let query = async {
            let length = match stream.read_u16().await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                length => length?,
            };
            if length > MAX_QUERY {
                return Err(io::Error::other("query too large"));
            }
            let mut query = vec![0; usize::from(length)];
            stream.read_exact(&mut query).await?;
            Ok(Some(query))
        };
        let Some(query) = tokio::time::timeout(TCP_TIMEOUT, query).await?? else {
            return Ok(());
        };
        let Some(answer) = answer(&query, zone, Transport::Tcp) else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        tokio::time::timeout(TCP_TIMEOUT, stream.write_all(&framed)).await??;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
