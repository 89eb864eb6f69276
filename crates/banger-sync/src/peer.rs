//! The connection to one side: requests out, answers in order, notices of changes apart.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use banger_sync_side::{Frames, Identity, Reply, Request, Rules, Side};

use crate::reconcile::Place;

/// Longest silence of a side that owes an answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Answers that are received ahead.
const AHEAD: usize = 64;
/// Most requests without an answer, so that neither end waits for the other to read.
pub const WINDOW: usize = 32;
/// Bytes that are sent together.
const SEND: usize = 64 * 1024;
/// Most changed folders that are remembered by name.
const MAX_DIRTY: usize = 10_000;

/// Changes of one side.
#[derive(Debug, Default)]
pub struct Changes {
    /// Folders in which something changed.
    pub folders: BTreeSet<Vec<u8>>,
    /// Anything may have changed.
    pub all: bool,
    /// The folder itself was removed or renamed.
    pub root_gone: bool,
    /// When the first of these was noticed.
    pub since: Option<Instant>,
}

impl Changes {
    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.all || self.root_gone || !self.folders.is_empty()
    }
}

#[derive(Debug, Default)]
struct Heard {
    host: Changes,
    guest: Changes,
    closed: Option<Place>,
    stop: bool,
    look: bool,
    flushed: bool,
}

/// What both sides notice, and requests to the session.
#[derive(Debug, Default)]
pub struct Bell {
    heard: Mutex<Heard>,
    rung: Condvar,
}

/// Why a session is to do something.
#[derive(Debug)]
pub enum Call {
    /// Sides changed: host, guest.
    Changed(Changes, Changes),
    /// Both sides are on their disks, or failed.
    Flushed,
    /// Nothing happened.
    Idle,
    /// A side is gone.
    Closed(Place),
    /// The session is to end.
    Stop,
}

impl Bell {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the session at its next wait.
    pub fn stop(&self) {
        self.heard().stop = true;
        self.rung.notify_all();
    }

    /// Whether the session is to end.
    pub fn is_stopped(&self) -> bool {
        self.heard().stop
    }

    /// Has the session look at both folders as a whole.
    pub fn look(&self) {
        self.heard().look = true;
        self.rung.notify_all();
    }

    /// Notes a change.
    pub fn change(&self, place: Place, note: impl FnOnce(&mut Changes)) {
        let mut heard = self.heard();
        let changes = match place {
            Place::Host => &mut heard.host,
            Place::Guest => &mut heard.guest,
        };
        note(changes);
        changes.since.get_or_insert_with(now);
        if changes.folders.len() > MAX_DIRTY {
            changes.folders.clear();
            changes.all = true;
        }
        drop(heard);
        self.rung.notify_all();
    }

    /// Notes that both sides are on their disks.
    pub fn flushed(&self) {
        self.heard().flushed = true;
        self.rung.notify_all();
    }

    fn close(&self, place: Place) {
        self.heard().closed.get_or_insert(place);
        self.rung.notify_all();
    }

    /// Waits for something to do, at most this long.
    pub fn wait(&self, most: Duration) -> Call {
        let idle = |heard: &mut Heard| {
            let calm = !heard.host.any() && !heard.guest.any() && !heard.look && !heard.flushed;
            calm && !heard.stop && heard.closed.is_none()
        };
        let (mut heard, _) = self
            .rung
            .wait_timeout_while(self.heard(), most, idle)
            .unwrap_or_else(PoisonError::into_inner);
        if heard.stop {
            return Call::Stop;
        }
        if let Some(place) = heard.closed {
            return Call::Closed(place);
        }
        if std::mem::take(&mut heard.flushed) {
            return Call::Flushed;
        }
        if std::mem::take(&mut heard.look) {
            (heard.host.all, heard.guest.all) = (true, true);
        }
        if !heard.host.any() && !heard.guest.any() {
            return Call::Idle;
        }
        Call::Changed(std::mem::take(&mut heard.host), std::mem::take(&mut heard.guest))
    }
}

fn now() -> Instant {
    Instant::now()
}

/// A connected side.
pub struct Peer {
    place: Place,
    stream: UnixStream,
    out: Vec<u8>,
    replies: Receiver<Reply>,
}

impl Peer {
    /// Speaks to a side over a connection; `early` are bytes of it that were already received.
    ///
    /// # Errors
    /// No descriptors or threads are left.
    pub fn connect(
        place: Place,
        stream: UnixStream,
        early: &[u8],
        bell: &Arc<Bell>,
    ) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_read_timeout(None)?;
        let (sender, replies) = sync_channel(AHEAD);
        let (reader, bell) = (stream.try_clone()?, bell.clone());
        let mut frames = Frames::default();
        frames.push(early);
        thread::Builder::new().name("sync-receive".into()).spawn(move || {
            // A connection that ends and one that is malformed end the session alike.
            let _ = receive(reader, frames, place, &sender, &bell);
            bell.close(place);
        })?;
        Ok(Self { place, stream, out: Vec::new(), replies })
    }

    /// Serves a folder of this host from a thread of its own, and speaks to it.
    ///
    /// # Errors
    /// As [`Peer::connect`], and inotify_init(2).
    pub fn local(
        place: Place,
        root: banger_archive::beneath::Folder,
        rules: Rules,
        bell: &Arc<Bell>,
    ) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let side = Side::new(root, rules)?;
        thread::Builder::new().name("sync-host".into()).spawn(move || {
            // It ends with its client.
            let _ = banger_sync_side::serve(theirs, &[], side);
        })?;
        Self::connect(place, ours, &[], bell)
    }

    /// Which side it is.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Sends a request, perhaps together with later ones.
    ///
    /// # Errors
    /// The connection's.
    pub fn send(&mut self, request: &Request) -> io::Result<()> {
        request.encode(&mut self.out);
        if self.out.len() >= SEND { self.flush() } else { Ok(()) }
    }

    /// What tells the side's folder apart from another one in its place, which is asked of it
    /// while no answer is due; none if it does not say, or the folder is gone.
    ///
    /// # Errors
    /// As [`Self::reply`].
    pub fn identity(&mut self) -> io::Result<Option<Identity>> {
        self.send(&Request::Folder { path: Vec::new() })?;
        match self.reply()? {
            Reply::Done { stamp, .. } => Ok(stamp.as_ref().and_then(Identity::of_stamp)),
            Reply::Failed { .. } => Ok(None),
            _ => Err(self.wrong()),
        }
    }

    /// Sends what is left.
    ///
    /// # Errors
    /// The connection's.
    pub fn flush(&mut self) -> io::Result<()> {
        let sent = self.stream.write_all(&self.out);
        self.out.clear();
        sent
    }

    /// The next answer.
    ///
    /// # Errors
    /// The side is gone, or silent for too long.
    pub fn reply(&mut self) -> io::Result<Reply> {
        self.reply_within(TIMEOUT)
    }

    /// The next answer, of a side that may be silent for `most`.
    ///
    /// # Errors
    /// As [`Self::reply`].
    pub fn reply_within(&mut self, most: Duration) -> io::Result<Reply> {
        self.flush()?;
        loop {
            match self.replies.recv_timeout(most) {
                Ok(Reply::Working) => {}
                Ok(reply) => return Ok(reply),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.gone(io::ErrorKind::UnexpectedEof, "ended the connection"));
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.gone(io::ErrorKind::TimedOut, "does not answer"));
                }
            }
        }
    }

    /// The error for an answer that does not fit the request.
    pub fn wrong(&self) -> io::Error {
        self.gone(io::ErrorKind::InvalidData, "gave a wrong answer")
    }

    fn gone(&self, kind: io::ErrorKind, what: &str) -> io::Error {
        io::Error::new(kind, format!("the {}'s side {what}", self.place.as_str()))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Ends the receiving thread, and the server of a local side.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn receive(
    mut stream: UnixStream,
    mut frames: Frames,
    place: Place,
    sender: &SyncSender<Reply>,
    bell: &Bell,
) -> io::Result<()> {
    let mut piece = vec![0; 128 * 1024];
    loop {
        while let Some(frame) = frames.next_frame()? {
            match Reply::decode(frame)? {
                Reply::Dirty(folders) => {
                    bell.change(place, |changes| changes.folders.extend(folders));
                }
                Reply::Lost => bell.change(place, |changes| changes.all = true),
                Reply::RootGone => bell.change(place, |changes| changes.root_gone = true),
                reply => {
                    if sender.send(reply).is_err() {
                        return Ok(());
                    }
                }
            }
        }
        match stream.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => frames.push(piece.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Requests to one side that are sent ahead of the answers; `T` is what an answer belongs to.
pub struct Pipeline<T> {
    waiting: VecDeque<T>,
}

impl<T> Default for Pipeline<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new() }
    }
}

impl<T> Pipeline<T> {
    /// Notes a request.
    pub fn push(&mut self, item: T) {
        self.waiting.push_back(item);
    }

    /// What the next answer belongs to.
    pub fn pop(&mut self) -> Option<T> {
        self.waiting.pop_front()
    }

    /// Whether an answer must be read before the next request.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= WINDOW
    }

    /// Number of requests without an answer.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether every request is answered.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
