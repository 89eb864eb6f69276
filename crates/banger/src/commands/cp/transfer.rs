//! Copies between the ends. Files of this host are read and written in a blocking thread.

use std::convert::Infallible;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;

use banger_api::{ApiError, ErrorCode};
use banger_archive::pack::{self, Devices, Packed, pack};
use banger_archive::place::{self, LastLink, Place, Source};
use banger_archive::unpack::{
    self, MAX_ENTRIES, Owners, Rules, SetId, Special, Top, reserve, unpack,
};
use banger_archive::{Cause, Failure as ArchiveFailure};
use banger_client::{ArchiveSource, ArchiveStream, ArchiveTarget, Client, PieceReader, Unpacked};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};

use super::ends::End;
use super::pieces::{Counter, PieceWriter, QUEUE};
use crate::errors::Failure;

/// Bytes read from standard input at once.
const PIECE: usize = 256 * 1024;
/// Bytes that may follow the end of an archive from a guest.
const MAX_PADDING: usize = 1024 * 1024;

/// Options of a copy.
pub struct Options {
    /// Whether owners and set-id bits are kept.
    pub keep_owners: bool,
    /// Whether a symlink as the source is followed.
    pub link: LastLink,
    /// User of the guest.
    pub user: Option<String>,
    /// Held by each thread that writes files; the channel closes when all have ended.
    pub writing: mpsc::Sender<Infallible>,
}

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bytes of content; of the archive if that is the result.
    pub bytes: u64,
    /// Sockets and devices that were not copied.
    pub left_out: u64,
}

/// Copies. If the future is dropped, the copy ends; what was written before stays.
pub async fn copy(
    client: &Client,
    from: End,
    to: End,
    options: &Options,
    report: &mut dyn FnMut(u64),
) -> Result<Copied, Failure> {
    let counter = Counter::new();
    match (from, to) {
        (End::Host(path), End::Guest { vm, path: to }) => {
            let (file, source) = place::source(None, &path, options.link).map_err(of_host)?;
            let name = place::name(&path).to_vec();
            let target = target(options, to, source, name.clone());
            let work = upload(client, &vm, &target, (file, path), &counter);
            counter.reported(report, work).await
        }
        (End::Stream, End::Guest { vm, path: to }) => {
            let target = target(options, to, Source::Contents, b".".to_vec());
            let work = upload_stream(client, &vm, &target, &counter);
            counter.reported(report, work).await
        }
        (End::Guest { vm, path }, to) => {
            let name = place::name(&path).to_vec();
            let user = options.user.clone();
            let from = ArchiveSource { path, name: name.clone(), link: options.link, user };
            let stream = client.archive(&vm, &from).await?;
            match to {
                End::Host(path) => {
                    let work = download(stream, path, name, options, &counter);
                    counter.reported(report, work).await
                }
                End::Stream => counter.reported(report, download_stream(stream, &counter)).await,
                End::Guest { vm, path } => {
                    let target = target(options, path, stream.source, name);
                    let work = pass(client, stream, &vm, &target, &counter);
                    counter.reported(report, work).await
                }
            }
        }
        // Refused before.
        (End::Host(_) | End::Stream, End::Host(_) | End::Stream) => Ok(Copied::default()),
    }
}

fn target(options: &Options, path: Vec<u8>, source: Source, name: Vec<u8>) -> ArchiveTarget {
    let user = options.user.clone();
    ArchiveTarget { path, source, name, keep_owners: options.keep_owners, user }
}

/// Packs a file or folder of this host and unpacks it in the guest.
async fn upload(
    client: &Client,
    vm: &str,
    target: &ArchiveTarget,
    (file, path): (OwnedFd, Vec<u8>),
    counter: &Counter,
) -> Result<Copied, Failure> {
    let (to, pieces) = mpsc::channel(QUEUE);
    let (name, counter) = (target.name.clone(), counter.clone());
    let packing = tokio::task::spawn_blocking(move || {
        let writer = PieceWriter { to: to.clone(), counter };
        let top = pack::Top { name: &name, path: &path };
        let packed = pack(&file, top, Devices::LeaveOut, writer);
        if packed.is_err() {
            // The body of the request must not look complete.
            let _ = to.blocking_send(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        packed
    });
    let unpacked = client.unarchive(vm, target, pieces).await;
    let packed: Result<Packed, _> = packing.await.map_err(panicked)?;
    match (packed, unpacked) {
        (Ok(packed), Ok(unpacked)) => {
            Ok(Copied { bytes: unpacked.bytes, left_out: packed.left_out + unpacked.left_out })
        }
        // The file that cannot be read is the reason for the other error.
        (Err(failure), _) if failure.cause != Cause::Stream => Err(of_host(failure).into()),
        (_, Err(error)) => Err(error.into()),
        (Err(failure), Ok(_)) => Err(of_host(failure).into()),
    }
}

/// Unpacks the archive on standard input in the guest.
async fn upload_stream(
    client: &Client,
    vm: &str,
    target: &ArchiveTarget,
    counter: &Counter,
) -> Result<Copied, Failure> {
    let (to, pieces) = mpsc::channel(QUEUE);
    let counter = counter.clone();
    // Not joined: it may be blocked in a read, and ends with the process.
    let mut reading: JoinHandle<io::Result<()>> = tokio::task::spawn_blocking(move || {
        let mut input = io::stdin().lock();
        loop {
            let mut piece = BytesMut::zeroed(PIECE);
            let length = match input.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let _ = to.blocking_send(Err(error.kind().into()));
                    return Err(error);
                }
            };
            piece.truncate(length);
            if to.blocking_send(Ok(piece.freeze())).is_err() {
                return Ok(());
            }
            counter.add(length);
        }
    });
    let unpacking = client.unarchive(vm, target, pieces);
    tokio::pin!(unpacking);
    let unpacked = tokio::select! {
        biased;
        unpacked = &mut unpacking => unpacked,
        read = &mut reading => match read.map_err(panicked)? {
            Ok(()) => unpacking.await,
            Err(error) => {
                let text = "the archive cannot be read from standard input";
                return Err(ApiError::new(ErrorCode::BadRequest, text).caused_by(&error).into());
            }
        },
    };
    let Unpacked { bytes, left_out, .. } = unpacked?;
    Ok(Copied { bytes, left_out })
}

/// Unpacks an archive from a guest on this host.
async fn download(
    mut stream: ArchiveStream,
    path: Vec<u8>,
    name: Vec<u8>,
    options: &Options,
    counter: &Counter,
) -> Result<Copied, Failure> {
    let place = place::target(None, &path, stream.source, &name).map_err(of_host)?;
    let reserve_bytes = reserve(&place.folder).map_err(of_host)?;
    let keep_owners = options.keep_owners;
    let (to, from) = mpsc::channel(QUEUE);
    let writing = options.writing.clone();
    let unpacking = tokio::task::spawn_blocking(move || {
        let _writing = writing;
        let Place { folder, name } = place;
        let is_root = rustix::process::geteuid().is_root();
        let rules = Rules {
            owners: if keep_owners && is_root { Owners::Keep } else { Owners::Caller },
            set_id: if keep_owners { SetId::Keep } else { SetId::Drop },
            special: Special::LeaveOut,
            top: name.as_deref().map_or(Top::AsIs, Top::Named),
            max_entries: MAX_ENTRIES,
            reserve_bytes,
        };
        let mut done = unpack::Unpacked::default();
        let reader = PieceReader::new(from);
        unpack(&folder, reader, &rules, &mut done).map(|()| done)
    });
    let received = receive(&mut stream, to, counter).await;
    let unpacked = unpacking.await.map_err(panicked)?;
    match (received, unpacked) {
        (Ok(()), Ok(done)) => {
            Ok(Copied { bytes: done.bytes, left_out: stream.left_out + done.left_out })
        }
        // A stream that ended early is the consequence of the other error.
        (Err(error), Ok(_) | Err(ArchiveFailure { cause: Cause::Stream, .. })) => Err(error.into()),
        (_, Err(failure)) => Err(of_host(failure).into()),
    }
}

/// Passes the archive to the thread that unpacks it, to its end.
async fn receive(
    stream: &mut ArchiveStream,
    to: mpsc::Sender<Bytes>,
    counter: &Counter,
) -> Result<(), ApiError> {
    let mut padding = 0;
    while let Some(piece) = stream.next().await? {
        let length = piece.len();
        if to.send(piece).await.is_ok() {
            counter.add(length);
            continue;
        }
        // It has ended, at the end of the archive or with an error.
        padding += length;
        if padding > MAX_PADDING {
            let text = "the archive from the guest does not end";
            return Err(ApiError::new(ErrorCode::GuestFailed, text));
        }
    }
    Ok(())
}

/// Writes an archive from a guest to standard output.
async fn download_stream(mut stream: ArchiveStream, counter: &Counter) -> Result<Copied, Failure> {
    let (to, mut from) = mpsc::channel::<Bytes>(QUEUE);
    let writing = tokio::task::spawn_blocking(move || -> io::Result<()> {
        // Standard output of the library is buffered by lines.
        let mut output = std::fs::File::from(rustix::io::dup(io::stdout())?);
        while let Some(piece) = from.blocking_recv() {
            output.write_all(&piece)?;
        }
        Ok(())
    });
    let received = async {
        while let Some(piece) = stream.next().await? {
            let length = piece.len();
            if to.send(piece).await.is_err() {
                break;
            }
            counter.add(length);
        }
        drop(to);
        Ok::<_, ApiError>(())
    };
    let received = received.await;
    writing.await.map_err(panicked)??;
    received?;
    Ok(Copied { bytes: counter.bytes(), left_out: stream.left_out })
}

/// Passes an archive from one guest to another.
async fn pass(
    client: &Client,
    mut stream: ArchiveStream,
    vm: &str,
    target: &ArchiveTarget,
    counter: &Counter,
) -> Result<Copied, Failure> {
    let (to, pieces) = mpsc::channel(QUEUE);
    let (sent, unpacked) =
        tokio::join!(send_on(&mut stream, to, counter), client.unarchive(vm, target, pieces));
    let (sent, unpacked) = (sent?, unpacked?);
    Ok(Copied { bytes: unpacked.bytes, left_out: sent + unpacked.left_out })
}

/// Sends the archive on; returns the number of files that its guest left out.
async fn send_on(
    stream: &mut ArchiveStream,
    to: mpsc::Sender<io::Result<Bytes>>,
    counter: &Counter,
) -> Result<u64, ApiError> {
    loop {
        match stream.next().await {
            Ok(None) => return Ok(stream.left_out),
            Ok(Some(piece)) => {
                let length = piece.len();
                if to.send(Ok(piece)).await.is_err() {
                    // The other guest has refused the archive.
                    return Ok(0);
                }
                counter.add(length);
            }
            Err(error) => {
                let _ = to.send(Err(io::ErrorKind::UnexpectedEof.into())).await;
                return Err(error);
            }
        }
    }
}

/// An error of the side on this host.
fn of_host(failure: ArchiveFailure) -> ApiError {
    let code = match failure.cause {
        Cause::Archive | Cause::Stream => ErrorCode::GuestFailed,
        Cause::Conflict | Cause::Denied => ErrorCode::BadRequest,
        Cause::Missing => ErrorCode::NotFound,
        Cause::NoSpace => ErrorCode::NoSpace,
        Cause::Disk => ErrorCode::Internal,
    };
    let error = ApiError::new(code, &failure.message);
    match &failure.source {
        Some(source) => error.caused_by(source),
        None => error,
    }
}

fn panicked(error: JoinError) -> Failure {
    ApiError::new(ErrorCode::Internal, "the copy failed").caused_by(&error).into()
}
