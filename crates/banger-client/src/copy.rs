//! Copies of files and folders between this host and a guest, by the rules of `cp -r` (docs/cp.md).
//! Files of this host are read and written in a blocking thread.

use std::convert::Infallible;
use std::os::fd::OwnedFd;

use banger_api::{ApiError, ErrorCode};
use banger_archive::pack::{self, Devices, Packed, pack};
use banger_archive::place::{self, LastLink, Place, Source};
use banger_archive::unpack::{
    self, MAX_ENTRIES, Owners, Rules, SetId, Special, Top, reserve, unpack,
};
use banger_archive::{Cause, Failure};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinError;

use crate::archive::{ArchiveStream, ArchiveTarget};
use crate::client::Client;
use crate::copy_pieces::{Counter, PIECES, PieceWriter};
use crate::pieces::PieceReader;

/// Bytes that may follow the end of an archive from a guest.
const MAX_PADDING: usize = 1024 * 1024;

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bytes of content; of the archive if that is the result.
    pub bytes: u64,
    /// Sockets and devices that were not copied.
    pub left_out: u64,
}

/// A file or folder of this host.
pub struct HostSource {
    /// What it is.
    pub source: Source,
    file: OwnedFd,
    path: Vec<u8>,
}

impl HostSource {
    /// Opens it.
    ///
    /// # Errors
    /// Missing, denied; neither a file nor a folder.
    pub fn open(path: &[u8], link: LastLink) -> Result<Self, ApiError> {
        let (file, source) = place::source(None, path, link).map_err(of_host)?;
        Ok(Self { source, file, path: path.to_vec() })
    }
}

/// Where files of a guest go on this host.
pub struct HostTarget {
    /// Path: a folder, or the new name.
    pub path: Vec<u8>,
    /// Name in a folder.
    pub name: Vec<u8>,
    /// Whether files keep owners, if this process may set them, and set-id bits.
    pub keep_owners: bool,
    /// Held by the thread that writes; the channel closes when it has ended.
    pub writing: mpsc::Sender<Infallible>,
}

impl Client {
    /// Packs a file or folder of this host and unpacks it in a guest. If the future is dropped, the
    /// copy ends; what was written before stays.
    ///
    /// # Errors
    /// As [`Client::unarchive`]; a file of this host that cannot be read.
    pub async fn copy_in(
        &self,
        vm: &str,
        target: &ArchiveTarget,
        from: HostSource,
        counter: &Counter,
    ) -> Result<Copied, ApiError> {
        let (to, pieces) = mpsc::channel(PIECES);
        let (name, counter) = (target.name.clone(), counter.clone());
        let packing = tokio::task::spawn_blocking(move || {
            let writer = PieceWriter { to: to.clone(), counter };
            let top = pack::Top { name: &name, path: &from.path };
            let packed = pack(&from.file, top, Devices::LeaveOut, writer);
            if packed.is_err() {
                // The body of the request must not look complete.
                let _ = to.blocking_send(Err(std::io::ErrorKind::UnexpectedEof.into()));
            }
            packed
        });
        let unpacked = self.unarchive(vm, target, pieces).await;
        let packed: Result<Packed, _> = packing.await.map_err(|error| panicked(&error))?;
        match (packed, unpacked) {
            (Ok(packed), Ok(unpacked)) => {
                Ok(Copied { bytes: unpacked.bytes, left_out: packed.left_out + unpacked.left_out })
            }
            // The file that cannot be read is the reason for the other error.
            (Err(failure), _) if failure.cause != Cause::Stream => Err(of_host(failure)),
            (_, Err(error)) => Err(error),
            (Err(failure), Ok(_)) => Err(of_host(failure)),
        }
    }
}

impl ArchiveStream {
    /// Unpacks the archive on this host. If the future is dropped, the copy ends; what was written
    /// before stays, except for an incomplete file.
    ///
    /// # Errors
    /// As [`ArchiveStream::next`]; a file of this host that cannot be written.
    pub async fn copy_out(
        mut self,
        target: HostTarget,
        counter: &Counter,
    ) -> Result<Copied, ApiError> {
        let HostTarget { path, name, keep_owners, writing } = target;
        let place = place::target(None, &path, self.source, &name).map_err(of_host)?;
        let reserve_bytes = reserve(&place.folder).map_err(of_host)?;
        let (to, from) = mpsc::channel(PIECES);
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
        let received = self.receive(to, counter).await;
        let unpacked = unpacking.await.map_err(|error| panicked(&error))?;
        match (received, unpacked) {
            (Ok(()), Ok(done)) => {
                Ok(Copied { bytes: done.bytes, left_out: self.left_out + done.left_out })
            }
            // A stream that ended early is the consequence of the other error.
            (Err(error), Ok(_) | Err(Failure { cause: Cause::Stream, .. })) => Err(error),
            (_, Err(failure)) => Err(of_host(failure)),
        }
    }

    /// Passes the archive to the thread that unpacks it, to its end.
    async fn receive(
        &mut self,
        to: mpsc::Sender<Bytes>,
        counter: &Counter,
    ) -> Result<(), ApiError> {
        let mut padding = 0;
        while let Some(piece) = self.next().await? {
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
}

/// An error of the side on this host.
fn of_host(failure: Failure) -> ApiError {
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

fn panicked(error: &JoinError) -> ApiError {
    ApiError::new(ErrorCode::Internal, "the copy failed").caused_by(error)
}
