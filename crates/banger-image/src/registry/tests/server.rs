//! A server whose answers a test chooses.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A request: path, and headers in lower case.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub headers: Vec<String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub fn from(&self) -> usize {
        let range = self.header("range").and_then(|text| text.strip_prefix("bytes="));
        range.map_or(0, |text| text.trim_end_matches('-').parse().unwrap())
    }
}

type Handler = dyn Fn(&Request, &mut TcpStream) + Send + Sync;

/// A registry of a test.
pub struct Server {
    pub address: String,
    pub requests: Arc<Mutex<Vec<Request>>>,
    over: Arc<AtomicBool>,
}

impl Server {
    pub fn new(handler: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let (seen, stop, handler) = (requests.clone(), over.clone(), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (seen, handler) = (seen.clone(), handler.clone());
                std::thread::spawn(move || serve(stream, &seen, &*handler));
            }
        });
        Self { address, requests, over }
    }

    /// Requests for blobs since the last call.
    pub fn blobs(&self) -> Vec<Request> {
        let all = std::mem::take(&mut *self.requests.lock().unwrap());
        all.into_iter().filter(|request| request.path.contains("/blobs/")).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Request>>, handler: &Handler) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(path) = lines.next().and_then(|line| Some(line.split(' ').nth(1)?.to_owned())) else {
        return;
    };
    let headers = lines.take_while(|line| !line.is_empty());
    let headers = headers.map(|line| {
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        format!("{}: {}", name.to_lowercase(), value.trim())
    });
    let request = Request { path, headers: headers.collect() };
    seen.lock().unwrap().push(request.clone());
    handler(&request, &mut stream);
}

pub fn reply(stream: &mut TcpStream, status: &str, headers: &[String], body: &[u8]) {
    let mut head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n");
    for header in headers {
        head += &format!("{header}\r\n");
    }
    // The client may have left.
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    let _ = stream.write_all(body);
}

pub fn ok(stream: &mut TcpStream, body: &[u8]) {
    reply(stream, "200 OK", &[format!("content-length: {}", body.len())], body);
}

pub fn part(stream: &mut TcpStream, body: &[u8], from: usize) {
    let (end, all) = (body.len() - 1, body.len());
    let range = format!("content-range: bytes {from}-{end}/{all}");
    let length = format!("content-length: {}", all - from);
    reply(stream, "206 Partial Content", &[range, length], &body[from..]);
}
