//! Copies between the ends. Files of this host are read and written in a blocking thread.

use std::convert::Infallible;
use std::io::{self, Read as _, Write as _};

use banger_api::{ApiError, ErrorCode};
use banger_archive::place::{self, LastLink, Source};
use banger_client::{
    ArchiveSource, ArchiveStream, ArchiveTarget, Client, Copied, Counter, HostSource, HostTarget,
    PIECES, Unpacked,
};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};

use super::ends::End;
use crate::errors::Failure;

/// Bytes read from standard input at once.
const PIECE: usize = 256 * 1024;

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

/// Copies. If the future is dropped, the copy ends; what was written before stays.
pub async fn copy(
    client: &Client,
    from: End,
    to: End,
    options: &Options,
    report: &mut dyn FnMut(u64),
) -> Result<Copied, Failure> {
    let counter = Counter::default();
    match (from, to) {
        (End::Host(path), End::Guest { vm, path: to }) => {
            let from = HostSource::open(&path, options.link)?;
            let target = target(options, to, from.source, place::name(&path).to_vec());
            let work = client.copy_in(&vm, &target, from, &counter);
            Ok(counter.reported(report, work).await?)
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
                    let writing = options.writing.clone();
                    let keep_owners = options.keep_owners;
                    let target = HostTarget { path, name, keep_owners, writing };
                    Ok(counter.reported(report, stream.copy_out(target, &counter)).await?)
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

/// Unpacks the archive on standard input in the guest.
async fn upload_stream(
    client: &Client,
    vm: &str,
    target: &ArchiveTarget,
    counter: &Counter,
) -> Result<Copied, Failure> {
    let (to, pieces) = mpsc::channel(PIECES);
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

/// Writes an archive from a guest to standard output.
async fn download_stream(mut stream: ArchiveStream, counter: &Counter) -> Result<Copied, Failure> {
    let (to, mut from) = mpsc::channel::<Bytes>(PIECES);
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
    let (to, pieces) = mpsc::channel(PIECES);
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

fn panicked(error: JoinError) -> Failure {
    ApiError::new(ErrorCode::Internal, "the copy failed").caused_by(&error).into()
}
