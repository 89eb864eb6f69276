//! Valid and hostile requests over a stream in memory.

use proptest::prelude::*;

use super::*;

/// A client that has sent `input` and closed the connection.
struct Wire {
    input: io::Cursor<Vec<u8>>,
    output: Vec<u8>,
    /// Maximum number of bytes of one read.
    piece: usize,
}

impl Read for Wire {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = out.len().min(self.piece);
        self.input.read(&mut out[..length])
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wire(input: impl AsRef<[u8]>, piece: usize) -> Connection<Wire> {
    let input = io::Cursor::new(input.as_ref().to_vec());
    Connection::new(Wire { input, output: Vec::new(), piece })
}

fn request(input: &str) -> Request {
    wire(input, 7).next_request().unwrap().unwrap().unwrap()
}

fn refusal(input: &str) -> Refusal {
    wire(input, 4096).next_request().unwrap().unwrap().unwrap_err()
}

#[test]
fn heads() {
    let get = request("GET /files?path=/a%20b%2Fc&x HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((get.method.as_str(), get.path.as_str()), ("GET", "/files"));
    assert_eq!(get.parameter("path").unwrap(), b"/a b/c");
    assert_eq!(get.parameter("x").unwrap(), b"");
    assert_eq!(get.parameter("y"), None);
    assert_eq!(get.body, BodyKind::Sized(0));
    assert!(!get.close);
    let exec = request(
        "POST /exec HTTP/1.1\r\nUpgrade: banger-exec/1\r\nConnection: upgrade, Close\r\n\
         Content-Length: 12\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(exec.upgrade.as_deref(), Some("banger-exec/1"));
    assert_eq!(exec.body, BodyKind::Sized(12));
    assert!(exec.close && exec.expects_continue);
}

#[test]
fn percent_signs_that_are_no_escape_stay() {
    assert_eq!(decode("100%"), b"100%");
    assert_eq!(decode("%zz%4"), b"%zz%4");
    assert_eq!(decode("%C3%A4%00"), [0xc3, 0xa4, 0]);
}

#[test]
fn ambiguous_bodies_are_refused() {
    let head = "PUT /files HTTP/1.1\r\n";
    for headers in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length: \r\n",
    ] {
        assert_eq!(refusal(&format!("{head}{headers}\r\n")).status, 400, "{headers}");
    }
    assert_eq!(refusal(&format!("{head}Transfer-Encoding: gzip\r\n\r\n")).status, 501);
}

#[test]
fn endless_and_broken_heads_are_refused() {
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(2 * MAX_HTTP_HEAD));
    assert_eq!(refusal(&endless).status, 431);
    assert_eq!(refusal("\u{0} / HTTP/1.1\r\n\r\n").status, 400);
    let many = "A: b\r\n".repeat(MAX_HEADERS + 1);
    assert_eq!(refusal(&format!("GET / HTTP/1.1\r\n{many}\r\n")).status, 400);
    assert!(wire("GET / HT", 3).next_request().unwrap().is_none());
}

fn body(input: &str, piece: usize) -> io::Result<Vec<u8>> {
    let mut wire = wire(input, piece);
    let request = wire.next_request()?.unwrap().unwrap();
    let mut bytes = Vec::new();
    wire.body(&request)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

const CHUNKED: &str = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn bodies_end_where_they_say() {
    let two = "POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n\r\n";
    let mut wire = wire(two, 5);
    let first = wire.next_request().unwrap().unwrap().unwrap();
    let mut bytes = Vec::new();
    wire.body(&first).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"abc");
    assert_eq!(wire.next_request().unwrap().unwrap().unwrap().path, "/b");
    let chunked = format!("{CHUNKED}3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n");
    for piece in [1, 2, 3, 100] {
        assert_eq!(body(&chunked, piece).unwrap(), b"abc0123456789");
    }
}

#[test]
fn broken_bodies_are_errors() {
    let kind = |input: &str| body(&format!("{CHUNKED}{input}"), 50).unwrap_err().kind();
    assert_eq!(kind("3\r\nabcd\r\n"), io::ErrorKind::InvalidData);
    assert_eq!(kind("-3\r\n"), io::ErrorKind::InvalidData);
    assert_eq!(kind("\r\n"), io::ErrorKind::InvalidData);
    assert_eq!(kind("ffffffffffffffff\r\n"), io::ErrorKind::InvalidData);
    assert_eq!(kind(&"1".repeat(3000)), io::ErrorKind::InvalidData);
    assert_eq!(kind("3\r\nab"), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind("3\r\nabc\r\n"), io::ErrorKind::UnexpectedEof);
    let short = "PUT / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc";
    assert_eq!(body(short, 50).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn json_has_a_limit() {
    let post = |body: &str| {
        let length = body.len();
        let mut wire =
            wire(format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}"), 999);
        let request = wire.next_request().unwrap().unwrap().unwrap();
        wire.json::<Vec<u8>>(&request).unwrap()
    };
    assert_eq!(post("[1, 2]").unwrap(), [1, 2]);
    assert_eq!(post("[1, 2").unwrap_err().status, 400);
    assert_eq!(post(&format!("[1{}]", " ".repeat(MAX_JSON_BODY))).unwrap_err().status, 413);
}

#[test]
fn answers_are_delimited() {
    let mut wire = wire("", 1);
    wire.answer(200, &[1, 2]).unwrap();
    let mut chunks = wire.start_chunks("application/x-tar").unwrap();
    chunks.write_all(b"hello").unwrap();
    chunks.write_all(b"").unwrap();
    chunks.finish().unwrap();
    let (wire, _) = wire.into_parts();
    let text = String::from_utf8(wire.output).unwrap();
    assert!(text.contains("Content-Length: 5\r\n\r\n[1,2]HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{text}");
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut wire = wire(&bytes, 13);
        while let Ok(Some(Ok(request))) = wire.next_request() {
            let mut sink = Vec::new();
            if wire.body(&request).unwrap().take(1000).read_to_end(&mut sink).is_err() {
                break;
            }
        }
    }

    #[test]
    fn chunked_bodies_survive_any_cut(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..60), 0..6),
        piece in 1usize..30,
    ) {
        let mut message = CHUNKED.as_bytes().to_vec();
        for chunk in &chunks {
            message.extend(format!("{:X}\r\n", chunk.len()).bytes());
            message.extend(chunk);
            message.extend(b"\r\n");
        }
        message.extend(b"0\r\n\r\n");
        let mut wire = wire(&message, piece);
        let request = wire.next_request().unwrap().unwrap().unwrap();
        let mut bytes = Vec::new();
        wire.body(&request).unwrap().read_to_end(&mut bytes).unwrap();
        prop_assert_eq!(bytes, chunks.concat());
    }
}
