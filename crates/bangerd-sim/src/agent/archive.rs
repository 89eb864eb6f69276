//! Files of a simulated guest: a folder in the state folder, created by the first copy. No path of
//! the guest leaves it, but for tests of a hostile guest: the content of `/hostile/NAME.KIND` is
//! sent as it is, as the archive of a `file`, a `folder` or `contents`.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_agent_proto::archive::{
    ERROR_TRAILER, LEFT_OUT_TRAILER, SOURCE_HEADER, Unpacked, decode, encode,
};
use banger_archive::Failure;
use banger_archive::beneath::Folder;
use banger_archive::pack::{self, Devices, pack};
use banger_archive::place::{self, LastLink, Source};
use banger_archive::unpack::{self, MAX_ENTRIES, Owners, Rules, SetId, Special, Top, unpack};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{HeaderName, HeaderValue, TRAILER};
use hyper::{HeaderMap, Request, Response, StatusCode};
use tokio::sync::mpsc;

use super::{Answer, json, refused};

/// Pieces in a channel.
const QUEUE: usize = 4;
/// How long the rest of a refused archive is read.
const LINGER: Duration = Duration::from_secs(20);
/// Folders of a new guest.
const FOLDERS: [&str; 4] = ["etc", "root", "srv", "tmp"];

/// The folder of a guest.
#[derive(Clone)]
pub struct Files(PathBuf);

impl Files {
    /// The files of a guest in the folder `path`, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The root folder of the guest.
    pub fn open(&self) -> Result<Folder, Failure> {
        let failed = |error| Failure::file("cannot make the folders of the guest", error);
        for folder in FOLDERS {
            std::fs::create_dir_all(self.0.join(folder)).map_err(failed)?;
        }
        Folder::open(Path::new(&self.0)).map_err(failed)
    }

    /// The file that is sent as it is for this path of the guest, and its kind of source.
    fn hostile(&self, path: &[u8]) -> Option<(PathBuf, Source)> {
        let name = std::str::from_utf8(path).ok()?.strip_prefix("/hostile/")?;
        let (_, kind) = name.rsplit_once('.')?;
        let source = Source::named(kind.as_bytes())?;
        (!name.contains('/')).then(|| (self.0.join("hostile").join(name), source))
    }

    /// `GET /archive`.
    pub async fn send(&self, request: Request<Incoming>) -> Answer {
        let (files, query) = (self.clone(), Query::of(&request));
        if let Some((path, source)) = query.get("path").and_then(|path| self.hostile(&path)) {
            return hostile(path, source);
        }
        let (to, from) = mpsc::channel(QUEUE);
        let (opened, source) = tokio::sync::oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let found = files.open().and_then(|root| {
                let last = match query.get("link") {
                    Some(_) => LastLink::Follow,
                    None => LastLink::Keep,
                };
                place::source(Some(&root), &query.path()?, last)
            });
            let (file, source) = match found {
                Ok(found) => found,
                Err(failure) => return drop(opened.send(Err(failure))),
            };
            if opened.send(Ok(source)).is_err() {
                return;
            }
            let name = query.get("name").unwrap_or_else(|| b".".to_vec());
            let path = query.path().unwrap_or_default();
            let top = pack::Top { name: &name, path: &path };
            let packed = pack(&file, top, Devices::LeaveOut, Pieces(to.clone()));
            let (name, value) = match packed {
                Ok(packed) => (LEFT_OUT_TRAILER, packed.left_out.to_string()),
                Err(failure) => (ERROR_TRAILER, encode(failure.chain().as_bytes())),
            };
            let mut trailers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_str(&value) {
                trailers.insert(HeaderName::from_static(name), value);
            }
            // An error means that the client has disconnected.
            let _ = to.blocking_send(Frame::trailers(trailers));
        });
        match source.await {
            Ok(Ok(source)) => stream(source, from),
            Ok(Err(failure)) => refusal(&failure),
            Err(_) => refused(StatusCode::INTERNAL_SERVER_ERROR, "the copy failed".into()),
        }
    }

    /// `PUT /archive`.
    pub async fn receive(&self, request: Request<Incoming>) -> Answer {
        let (files, query) = (self.clone(), Query::of(&request));
        let (to, from) = mpsc::channel(QUEUE);
        let unpacking = tokio::task::spawn_blocking(move || files.unpack(&query, from));
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            let piece = frame.map(|frame| frame.into_data().unwrap_or_default());
            let broken = piece.is_err();
            let piece = piece.map_err(|_| io::ErrorKind::UnexpectedEof.into());
            if to.send(piece).await.is_err() {
                // As the real agent: a client that still sends may not read the answer otherwise.
                tokio::spawn(tokio::time::timeout(LINGER, discard(body)));
                break;
            }
            if broken {
                break;
            }
        }
        drop(to);
        match unpacking.await {
            Ok(Ok(done)) => json(StatusCode::OK, &done),
            Ok(Err(failure)) => refusal(&failure),
            Err(_) => refused(StatusCode::INTERNAL_SERVER_ERROR, "the copy failed".into()),
        }
    }

    fn unpack(
        &self,
        query: &Query,
        from: mpsc::Receiver<io::Result<Bytes>>,
    ) -> Result<Unpacked, Failure> {
        let source = query.get("source").and_then(|name| Source::named(&name));
        let source = source.ok_or_else(|| Failure::archive("`source` is missing"))?;
        let name = query.get("name").unwrap_or_else(|| b".".to_vec());
        let place = place::target(Some(&self.open()?), &query.path()?, source, &name)?;
        let rules = Rules {
            owners: Owners::Caller,
            set_id: SetId::Drop,
            special: Special::LeaveOut,
            top: place.name.as_deref().map_or(Top::AsIs, Top::Named),
            max_entries: MAX_ENTRIES,
            reserve_bytes: 0,
        };
        let mut done = unpack::Unpacked::default();
        unpack(&place.folder, Body { from, present: Bytes::new() }, &rules, &mut done)?;
        Ok(Unpacked { entries: done.entries, bytes: done.bytes, left_out: done.left_out })
    }
}

/// Sends a file as it is. The trailer says that it is complete.
fn hostile(path: PathBuf, source: Source) -> Answer {
    let (to, from) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces(to.clone());
        let sent = std::fs::File::open(path).and_then(|mut file| io::copy(&mut file, &mut pieces));
        let mut trailers = HeaderMap::new();
        if sent.is_ok() {
            let name = HeaderName::from_static(LEFT_OUT_TRAILER);
            trailers.insert(name, HeaderValue::from_static("0"));
        }
        // An error means that the client has disconnected.
        let _ = to.blocking_send(Frame::trailers(trailers));
    });
    stream(source, from)
}

async fn discard(mut body: Incoming) {
    while let Some(Ok(_)) = body.frame().await {}
}

fn stream(source: Source, from: mpsc::Receiver<Frame<Bytes>>) -> Answer {
    let frames = futures_util::stream::unfold(from, |mut from| async {
        from.recv().await.map(|frame| (Ok(frame), from))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed());
    let headers = response.headers_mut();
    headers.insert(SOURCE_HEADER, HeaderValue::from_static(source.as_str()));
    let trailers = format!("{ERROR_TRAILER}, {LEFT_OUT_TRAILER}");
    headers.extend(HeaderValue::from_str(&trailers).map(|names| (TRAILER, names)));
    response
}

fn refusal(failure: &Failure) -> Answer {
    let status = StatusCode::from_u16(failure.cause.http_status())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    refused(status, failure.chain())
}

/// The parameters of a request.
pub struct Query(Vec<(String, Vec<u8>)>);

impl Query {
    /// Those of a request.
    pub fn of(request: &Request<Incoming>) -> Self {
        let pairs = request.uri().query().unwrap_or_default().split('&');
        let pairs = pairs.filter_map(|pair| pair.split_once('='));
        Self(pairs.map(|(name, value)| (name.to_owned(), decode(value))).collect())
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    /// The absolute path; the only user is the superuser.
    pub fn path(&self) -> Result<Vec<u8>, Failure> {
        if let Some(user) = self.get("user").filter(|user| user != b"root" && user != b"0") {
            let user = String::from_utf8_lossy(&user).into_owned();
            return Err(Failure::archive(format!("the guest has no user `{user}`")));
        }
        let path = self.get("path").ok_or_else(|| Failure::archive("`path` is missing"))?;
        Ok(match path.as_slice() {
            [b'/', ..] => path,
            [b'~', b'/', rest @ ..] => [b"/root/", rest].concat(),
            rest => [b"/root/", rest].concat(),
        })
    }
}

/// An archive on its way to the client.
struct Pieces(mpsc::Sender<Frame<Bytes>>);

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let frame = Frame::data(Bytes::copy_from_slice(bytes));
        self.0.blocking_send(frame).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The body of a request.
struct Body {
    from: mpsc::Receiver<io::Result<Bytes>>,
    present: Bytes,
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.present.is_empty() {
            match self.from.blocking_recv() {
                Some(piece) => self.present = piece?,
                None => return Ok(0),
            }
        }
        let piece = self.present.split_to(self.present.len().min(out.len()));
        out.get_mut(..piece.len()).unwrap_or_default().copy_from_slice(&piece);
        Ok(piece.len())
    }
}
