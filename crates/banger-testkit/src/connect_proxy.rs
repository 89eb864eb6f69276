//! A proxy on this host that connects clients to servers of the test (CONNECT, RFC 9110, 9.3.6).

#![expect(clippy::unwrap_used, reason = "only tests use it, and a test may panic")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A running proxy; its threads end with the test.
pub struct ConnectProxy {
    /// Its address: `http://127.0.0.1:PORT`.
    pub url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// Connects clients that ask for one of these hosts with their ports to an address of this
    /// host, and refuses others.
    pub fn start(servers: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let owned = |(host, address): &(&str, &str)| ((*host).to_owned(), (*address).to_owned());
        let servers: HashMap<String, String> = servers.iter().map(owned).collect();
        let (servers, record) = (Arc::new(servers), seen.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (servers, record) = (servers.clone(), record.clone());
                std::thread::spawn(move || serve(client, &servers, &record));
            }
        });
        Self { url, seen }
    }

    /// The hosts that clients have asked for, in order.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(mut client: TcpStream, servers: &HashMap<String, String>, seen: &Mutex<Vec<String>>) {
    // Without a buffer beyond the head: what follows is the server's.
    let mut head = BufReader::with_capacity(1, client.try_clone().unwrap()).lines();
    let Some(Ok(first)) = head.next() else { return };
    while head.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let mut words = first.split(' ');
    let (method, host) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    seen.lock().unwrap().push(host.to_owned());
    let server = servers.get(host).filter(|_| method == "CONNECT");
    let Some(server) = server.and_then(|address| TcpStream::connect(address).ok()) else {
        let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n");
        return;
    };
    let _ = client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n");
    let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let other = std::thread::spawn(move || relay(back.0, back.1));
    relay(client, server);
    let _ = other.join();
}

fn relay(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
