//! Sends a repository: runs the commands of the import in the guest.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use banger_api::operation::VmTag;
use banger_api::{ApiError, ErrorCode, Hint, exit};
use banger_archive::pack::Packed;
use banger_archive::place::Source;
use banger_client::{ArchiveTarget, Client, Counter, Exec, ExecRequest, PIECES, PieceWriter};
use banger_workspace::import::{Input, NOT_EMPTY, PACKS, Part, Step, parts};
use banger_workspace::pack;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::Prepared;
use crate::render::progress::Track;

/// Bytes sent at once.
const PIECE: usize = 64 * 1024;
/// Bytes that are kept of the messages of a command.
const MAX_MESSAGE: usize = 4096;

/// Makes the repository and its submodules in the guest. What was made before an error stays.
/// Packs are made in the folder `scratch` of this host.
///
/// # Errors
/// A command that fails in the guest, with its messages; git's on this host; the connection's.
pub async fn import(
    client: &Client,
    vm: &VmTag,
    (prepared, scratch): (&Prepared, &Path),
    track: &mut Track,
) -> Result<(), ApiError> {
    let begun = Instant::now();
    let elapsed = || u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let counter = Counter::default();
    let mut report = |bytes| track.transfer(elapsed(), "import", bytes, None);
    let id = vm.id.as_str();
    let work = async {
        for one in prepared.all() {
            let has_objects = !one.objects.is_empty();
            for part in parts(&one.snapshot, one.folder.as_os_str(), has_objects) {
                match part {
                    Part::Run(step) => run(client, vm, step, &counter).await?,
                    Part::Objects => objects(client, id, (one, scratch), &counter).await?,
                    Part::Files => files(client, id, one, &counter).await?,
                }
            }
        }
        Ok(())
    };
    counter.reported(&mut report, work).await
}

/// Runs one command with its input.
async fn run(client: &Client, vm: &VmTag, step: Step, counter: &Counter) -> Result<(), ApiError> {
    let request = ExecRequest {
        argv: step.command.into_iter().map(Into::into).collect(),
        stdin: step.input != Input::None,
        ..ExecRequest::default()
    };
    let Exec { input, mut output, .. } =
        Exec::start(client.agent_session(vm.id.as_str()).await?, &request).await?;
    let sending = async {
        if let (Some(input), Input::Bytes(bytes)) = (input, step.input) {
            for piece in bytes.chunks(PIECE) {
                if !input.send(Bytes::copy_from_slice(piece)).await {
                    break;
                }
                counter.add(piece.len());
            }
        }
    };
    let ((), ended) = tokio::join!(sending, output.end(MAX_MESSAGE));
    let (status, messages) = ended?;
    match status.shell_code() {
        0 => Ok(()),
        code => Err(refused(vm, code, &messages)),
    }
}

fn refused(vm: &VmTag, code: u8, messages: &[u8]) -> ApiError {
    let text = format!("the repository cannot be put in `{}` (exit code {code})", vm.name);
    let mut error = ApiError::new(ErrorCode::GuestFailed, text);
    let messages = String::from_utf8_lossy(messages);
    error.causes.extend(messages.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned));
    if code == exit::COMMAND_NOT_FOUND {
        let text = "take an image with git, or `--copy`, which needs none";
        return error.with_hint(Hint::text(text));
    }
    if code == NOT_EMPTY {
        let text = "`banger vm workspace` needs a folder of its own: take an image without it, or \
                    rename the folder of the repository";
        return error.with_hint(Hint::text(text));
    }
    error
}

/// Unpacks the objects: packs with their indexes, which are made in a folder of this host.
async fn objects(
    client: &Client,
    vm: &str,
    (prepared, scratch): (&Prepared, &Path),
    counter: &Counter,
) -> Result<(), ApiError> {
    let scratch = Scratch::make(scratch)?;
    let (repository, objects) = (prepared.repository.clone(), prepared.objects.clone());
    let folder = scratch.0.join("objects");
    let packing =
        tokio::task::spawn_blocking(move || pack::to_files(&repository, objects, &folder));
    let packs = packing.await.map_err(|error| thread_failed(&error))??;
    let target = prepared.folder.join(PACKS);
    unpacked(client, vm, &target, counter, move |writer| pack::packs(&packs, writer)).await
}

/// A folder of this command, which goes with it. After a kill it goes with the machine's record.
struct Scratch(PathBuf);

impl Scratch {
    fn make(parent: &Path) -> Result<Self, ApiError> {
        let path = parent.join(format!("sending-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self(path)),
            Err(error) => {
                let text = format!("`{}` cannot be made", path.display());
                Err(ApiError::new(ErrorCode::of_io(&error), text).caused_by(&error))
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Unpacks the files that differ from the index.
async fn files(
    client: &Client,
    vm: &str,
    prepared: &Prepared,
    counter: &Counter,
) -> Result<(), ApiError> {
    let (repository, snapshot) = (prepared.repository.clone(), prepared.snapshot.clone());
    unpacked(client, vm, &prepared.folder, counter, move |writer| {
        pack::files(&repository, &snapshot, writer)
    })
    .await
}

/// Unpacks an archive in a folder of the guest, which `pack` writes meanwhile.
async fn unpacked(
    client: &Client,
    vm: &str,
    folder: &Path,
    counter: &Counter,
    pack: impl FnOnce(PieceWriter) -> Result<Packed, ApiError> + Send + 'static,
) -> Result<(), ApiError> {
    let (to, pieces) = mpsc::channel(PIECES);
    let writer = PieceWriter { to: to.clone(), counter: counter.clone() };
    let packing = tokio::task::spawn_blocking(move || {
        let packed = pack(writer);
        if packed.is_err() {
            // The body of the request must not look complete.
            let _ = to.blocking_send(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        packed
    });
    let target = ArchiveTarget {
        path: folder.as_os_str().as_bytes().to_vec(),
        source: Source::Contents,
        name: b".".to_vec(),
        keep_owners: false,
        user: None,
    };
    let unpacked = client.unarchive(vm, &target, pieces).await;
    let packed = packing.await.map_err(|error| thread_failed(&error))?;
    // The guest's reason comes first: the stream ends because of it.
    unpacked?;
    packed.map(drop)
}

fn thread_failed(error: &tokio::task::JoinError) -> ApiError {
    ApiError::new(ErrorCode::Internal, "a thread failed").caused_by(error)
}
