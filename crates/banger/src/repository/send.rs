//! Sends a repository: runs the commands of the import in the guest.

use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Instant;

use banger_api::{ApiError, ErrorCode};
use banger_archive::place::Source;
use banger_client::{
    ArchiveTarget, Client, Counter, Exec, ExecRequest, Output, PIECES, PieceWriter,
};
use banger_workspace::import::{Input, Part, Step, parts};
use banger_workspace::pack;
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::Prepared;
use crate::render::progress::Track;

/// Bytes sent at once.
const PIECE: usize = 64 * 1024;
/// Bytes that are kept of the messages of a command.
const MAX_MESSAGE: usize = 4096;

/// Makes the repository and its submodules in the guest. What was made before an error stays.
///
/// # Errors
/// A command that fails in the guest, with its messages; git's on this host; the connection's.
pub async fn import(
    client: &Client,
    vm: &str,
    prepared: &Prepared,
    track: &mut Track,
) -> Result<(), ApiError> {
    let begun = Instant::now();
    let elapsed = || u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let counter = Counter::default();
    let mut report = |bytes| track.transfer(elapsed(), "import", bytes, None);
    let work = async {
        for one in prepared.all() {
            let has_objects = !one.objects.is_empty();
            for part in parts(&one.snapshot, one.folder.as_os_str(), has_objects) {
                match part {
                    Part::Run(step) => run(client, vm, one, step, &counter).await?,
                    Part::Files => files(client, vm, one, &counter).await?,
                }
            }
        }
        Ok(())
    };
    counter.reported(&mut report, work).await
}

/// Runs one command with its input.
async fn run(
    client: &Client,
    vm: &str,
    prepared: &Prepared,
    step: Step,
    counter: &Counter,
) -> Result<(), ApiError> {
    let request = ExecRequest {
        argv: step.command.into_iter().map(Into::into).collect(),
        stdin: step.input != Input::None,
        ..ExecRequest::default()
    };
    let Exec { input, mut output, .. } =
        Exec::start(client.agent_session(vm).await?, &request).await?;
    let (to, mut from) = mpsc::channel(PIECES);
    let reading = match step.input {
        Input::None => None,
        Input::Bytes(bytes) => {
            let to = to.clone();
            Some(tokio::task::spawn_blocking(move || {
                for piece in bytes.chunks(PIECE) {
                    if to.blocking_send(Bytes::copy_from_slice(piece)).is_err() {
                        break;
                    }
                }
                Ok(())
            }))
        }
        Input::Pack => {
            let (git, objects) = (prepared.repository.git().clone(), prepared.objects.clone());
            let to = to.clone();
            Some(tokio::task::spawn_blocking(move || send_pack(&git, objects, &to)))
        }
    };
    drop(to);
    let counter = counter.clone();
    let sending = async {
        if let Some(input) = input {
            while let Some(piece) = from.recv().await {
                let length = piece.len();
                if !input.send(piece).await {
                    break;
                }
                counter.add(length);
            }
        }
        // Else the thread waits for room.
        drop(from);
        match reading {
            Some(reading) => reading.await.map_err(|error| {
                ApiError::new(ErrorCode::Internal, "a thread failed").caused_by(&error)
            })?,
            None => Ok(()),
        }
    };
    let mut messages = Vec::new();
    let ending = async {
        loop {
            match output.next().await? {
                Output::Stderr(piece) => {
                    let room = MAX_MESSAGE.saturating_sub(messages.len());
                    messages.extend(piece.into_iter().take(room));
                }
                Output::Stdout(_) => {}
                Output::Exit(status) => return Ok::<_, ApiError>(status),
            }
        }
    };
    let (sent, status) = tokio::join!(sending, ending);
    // A pack that is cut off is refused by the guest too.
    sent?;
    match status?.shell_code() {
        0 => Ok(()),
        code => Err(refused(vm, code, &messages)),
    }
}

fn refused(vm: &str, code: u8, messages: &[u8]) -> ApiError {
    let text = format!("the repository cannot be put in `{vm}` (exit code {code})");
    let mut error = ApiError::new(ErrorCode::GuestFailed, text);
    let messages = String::from_utf8_lossy(messages);
    error.causes.extend(messages.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned));
    error
}

fn send_pack(
    git: &banger_workspace::git::Git,
    objects: Vec<u8>,
    to: &mpsc::Sender<Bytes>,
) -> Result<(), ApiError> {
    let mut running = pack::pack(git, objects)?;
    loop {
        let mut piece = BytesMut::zeroed(PIECE);
        let length = match running.stdout.read(&mut piece) {
            Ok(0) => return running.finish(),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let text = "the pack of git cannot be read";
                return Err(ApiError::new(ErrorCode::Internal, text).caused_by(&error));
            }
        };
        piece.truncate(length);
        if to.blocking_send(piece.freeze()).is_err() {
            return Ok(());
        }
    }
}

/// Unpacks the files that differ from the index.
async fn files(
    client: &Client,
    vm: &str,
    prepared: &Prepared,
    counter: &Counter,
) -> Result<(), ApiError> {
    let (to, pieces) = mpsc::channel(PIECES);
    let writer = PieceWriter { to: to.clone(), counter: counter.clone() };
    let (repository, snapshot) = (prepared.repository.clone(), prepared.snapshot.clone());
    let packing = tokio::task::spawn_blocking(move || {
        let packed = pack::files(&repository, &snapshot, writer);
        if packed.is_err() {
            // The body of the request must not look complete.
            let _ = to.blocking_send(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        packed
    });
    let target = ArchiveTarget {
        path: prepared.folder.as_os_str().as_bytes().to_vec(),
        source: Source::Contents,
        name: b".".to_vec(),
        keep_owners: false,
        user: None,
    };
    let unpacked = client.unarchive(vm, &target, pieces).await;
    let packed = packing.await.map_err(|error| {
        ApiError::new(ErrorCode::Internal, "files cannot be packed").caused_by(&error)
    })?;
    // The guest's reason comes first: the stream ends because of it.
    unpacked?;
    packed.map(drop)
}
