//! Real sockets on the loopback address, and misbehaving clients.

use tokio::time::timeout;

use super::*;

struct Everything;

impl Zone for Everything {
    fn address(&self, _label: &str) -> Option<Ipv4Addr> {
        Some(Ipv4Addr::new(10, 0, 0, 1))
    }
}

const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03web\x02vm\0\0\x01\0\x01";

async fn started(port: u16) -> (Dns, Stopping) {
    let stopping = Stopping::default();
    (Dns::start(port, Arc::new(Everything), stopping.clone()).await, stopping)
}

fn address(dns: &Dns) -> SocketAddr {
    match &*dns.listening().borrow() {
        Listening::At(address) => *address,
        other => panic!("{other:?}"),
    }
}

async fn udp(address: SocketAddr, message: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(message, address).await.unwrap();
    let mut buffer = vec![0; 2000];
    let wait = Duration::from_secs(10);
    let length = timeout(wait, socket.recv(&mut buffer)).await.unwrap().unwrap();
    buffer.truncate(length);
    buffer
}

async fn tcp(stream: &mut TcpStream) -> Vec<u8> {
    // In one write, or Nagle's algorithm waits for an acknowledgement.
    let framed = [&u16::try_from(QUERY.len()).unwrap().to_be_bytes()[..], QUERY].concat();
    stream.write_all(&framed).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn both_protocols_answer_and_end() {
    let (dns, stopping) = started(0).await;
    let address = address(&dns);
    assert!(address.ip().is_loopback() && address.port() != 0);
    let answer = udp(address, QUERY).await;
    assert!(answer.ends_with(&[10, 0, 0, 1]));
    // A fragment gets no answer; the query after it does.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for message in [b"".as_slice(), b"x", &[0x80; 20], &[0; 9000]] {
        socket.send_to(message, address).await.unwrap();
    }
    assert_eq!(udp(address, QUERY).await, answer);
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..3 {
        assert_eq!(tcp(&mut stream).await, answer);
    }
    stopping.request();
    dns.ended().await;
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    // The port is free immediately for the next daemon.
    let (again, _stopping) = started(address.port()).await;
    assert_eq!(self::address(&again), address);
}

#[tokio::test]
async fn a_port_in_use_is_reported_and_retried() {
    let holder = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let wanted = holder.local_addr().unwrap();
    let (dns, _stopping) = started(wanted.port()).await;
    let mut listening = dns.listening();
    let status = listening.borrow().status();
    assert_eq!(status.listen, wanted.to_string());
    assert!(status.problem.unwrap().contains("in use"));
    let check = listening.borrow().check();
    assert_eq!((check.code.as_str(), check.verdict), ("dns.listen", Verdict::Warning));
    assert!(check.seen.contains(&wanted.to_string()), "{}", check.seen);
    assert!(check.hint().unwrap().contains(&format!("port {}", wanted.port())));
    drop(holder);
    tokio::time::pause();
    listening.changed().await.unwrap();
    assert_eq!(*listening.borrow(), Listening::At(wanted));
    assert_eq!(listening.borrow().check().verdict, Verdict::Ok);
    assert_eq!(listening.borrow().status().problem, None);
    tokio::time::resume();
    assert!(!udp(wanted, QUERY).await.is_empty());
}

#[tokio::test]
async fn misbehaving_connections_are_closed() {
    let (dns, _stopping) = started(0).await;
    // A fragment, a response, and an oversized query.
    for message in [b"\0\x01x".as_slice(), b"\0\x0c\0\0\x80\0\0\0\0\0\0\0\0\0", b"\xff\xff"] {
        let mut stream = TcpStream::connect(address(&dns)).await.unwrap();
        stream.write_all(message).await.unwrap();
        let mut rest = Vec::new();
        // A reset counts too.
        let _ = timeout(Duration::from_secs(3), stream.read_to_end(&mut rest)).await.unwrap();
        assert!(rest.is_empty(), "{message:?}");
    }
    let mut stream = TcpStream::connect(address(&dns)).await.unwrap();
    for _ in 0..MAX_QUERIES {
        tcp(&mut stream).await;
    }
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let (dns, _stopping) = started(0).await;
    let mut idle = Vec::new();
    for number in 0..MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(address(&dns)).await.unwrap();
        // Some send nothing, some stop in the middle.
        stream.write_all(&b"\0\x1d\x12"[..number % 4]).await.unwrap();
        idle.push(stream);
    }
    let mut next = TcpStream::connect(address(&dns)).await.unwrap();
    assert!(
        timeout(Duration::from_millis(200), tcp(&mut next)).await.is_err(),
        "all slots are in use"
    );
    // UDP is not affected.
    assert!(!udp(address(&dns), QUERY).await.is_empty());
    let mut first = [0; 2];
    timeout(4 * TCP_TIMEOUT, next.read_exact(&mut first)).await.unwrap().unwrap();
}
