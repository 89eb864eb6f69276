//! Folders of a sandbox that are watched, by the agent's service for live folders (inotify(7) in
//! the guest): it tells in which folders something changed, and lists of entries tell what.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::Request;
use axum::response::Response;
use banger_sync_side::{Frames, Kind, Reply, Request as Ask, Stamp, UPGRADE};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::failure::{Code, Failure};
use crate::filesystem::{Guest, shown};
use crate::guest;
use crate::wire::{self, Item, Pace};

/// Most watchers of a sandbox that are asked for their events.
const MAX_WATCHERS: usize = 64;
/// Events that wait to be asked for. Further changes wait in the guest.
const MAX_EVENTS: usize = 10_000;
/// Events that wait for a client of a stream.
const QUEUE: usize = 64;
/// Most folders of a watcher.
const MAX_FOLDERS: usize = 4096;
/// Most entries of its folders.
const MAX_ENTRIES: usize = 200_000;
/// Bytes that are read at once.
const PIECE: usize = 64 * 1024;

/// The watchers of a sandbox that are asked for their events.
#[derive(Default)]
pub struct Watchers(Mutex<State>);

#[derive(Default)]
struct State {
    last: u32,
    by_id: BTreeMap<String, mpsc::Receiver<Item>>,
}

impl Watchers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct About {
    path: String,
    recursive: bool,
    watcher_id: String,
}

/// Watches a folder whose events are asked for.
///
/// # Errors
/// Not a folder, too many watchers; the guest's.
pub async fn create(guest: &Guest<'_>, about: About) -> Result<Value, Failure> {
    let watchers = &guest.sandbox.watchers;
    let full = || {
        let text = format!("the sandbox has {MAX_WATCHERS} watchers already: stop some first");
        Failure::new(Code::ResourceExhausted, text)
    };
    if watchers.state().by_id.len() >= MAX_WATCHERS {
        return Err(full());
    }
    let (to, from) = mpsc::channel(MAX_EVENTS);
    begin(guest, &about, to).await?;
    let mut state = watchers.state();
    if state.by_id.len() >= MAX_WATCHERS {
        return Err(full());
    }
    state.last += 1;
    let id = format!("watcher-{}", state.last);
    state.by_id.insert(id.clone(), from);
    Ok(json!({ "watcherId": id }))
}

/// The events since the last request.
///
/// # Errors
/// An unknown watcher; its folder or the connection to the guest is gone.
pub fn events(guest: &Guest<'_>, about: About) -> Result<Value, Failure> {
    let mut state = guest.sandbox.watchers.state();
    let from = state.by_id.get_mut(&about.watcher_id).ok_or_else(|| absent(&about))?;
    let mut events = Vec::new();
    loop {
        match from.try_recv() {
            Ok(Item::Message(mut message)) => events.push(message["filesystem"].take()),
            Ok(Item::Failed(failure)) if events.is_empty() => return Err(failure),
            Ok(_) | Err(_) => return Ok(json!({ "events": events })),
        }
    }
}

/// Ends a watcher.
///
/// # Errors
/// An unknown one.
pub fn remove(guest: &Guest<'_>, about: About) -> Result<Value, Failure> {
    let removed = guest.sandbox.watchers.state().by_id.remove(&about.watcher_id);
    removed.map(|_| json!({})).ok_or_else(|| absent(&about))
}

fn absent(about: &About) -> Failure {
    let id = banger_api::excerpt(&about.watcher_id);
    Failure::new(Code::NotFound, format!("there is no watcher `{id}`"))
}

/// Watches a folder and answers with its events.
///
/// # Errors
/// Not a folder; the guest's.
pub async fn stream(guest: &Guest<'_>, request: Request) -> Result<Response, Failure> {
    let pace = Pace::of(request.headers())?;
    let about: About = wire::first(request).await?;
    let (to, from) = mpsc::channel(QUEUE);
    begin(guest, &about, to).await?;
    Ok(wire::stream(json!({ "start": {} }), from, json!({ "keepalive": {} }), pace))
}

/// Begins to watch; returns when every later change is seen.
async fn begin(guest: &Guest<'_>, about: &About, to: mpsc::Sender<Item>) -> Result<(), Failure> {
    let path = guest.absolute(&about.path).await?;
    if !guest.stat_target(&path).await?.is_folder() {
        return Err(Failure::invalid(format!("`{}` is not a directory", shown(&path))));
    }
    let connected =
        guest.client.live_folder(guest.sandbox.id(), path.as_bytes(), guest.user, UPGRADE).await;
    let connected = connected.map_err(|error| guest::failure(guest.sandbox, error))?;
    let mut watch = Watch::new(connected.into_stream(), about.recursive);
    watch.look(Vec::new(), Report::Nothing).await.map_err(|error| lost(&error))?;
    let sandbox = Arc::downgrade(guest.sandbox);
    tokio::spawn(async move {
        let failure = tokio::select! {
            error = watch.follow(&to) => lost(&error),
            () = to.closed() => return,
        };
        // A sandbox that has ended needs no reason.
        if sandbox.strong_count() > 0 {
            let _ = to.send(Item::Failed(failure)).await;
        }
    });
    Ok(())
}

fn lost(error: &io::Error) -> Failure {
    Failure::new(Code::Unavailable, format!("the folder is no longer watched: {error}"))
}

/// Whether the entries of a folder that was not known are events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Report {
    Nothing,
    Entries,
}

type Entries = BTreeMap<Vec<u8>, Stamp>;

/// A watched folder and what is known of it.
struct Watch<S> {
    stream: S,
    frames: Frames,
    is_recursive: bool,
    /// Known folders by their paths below the watched one.
    folders: BTreeMap<Vec<u8>, Entries>,
    /// Folders in which something changed.
    dirty: VecDeque<Vec<u8>>,
    events: Vec<Value>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Watch<S> {
    fn new(stream: S, is_recursive: bool) -> Self {
        Self {
            stream,
            frames: Frames::default(),
            is_recursive,
            folders: BTreeMap::new(),
            dirty: VecDeque::new(),
            events: Vec::new(),
        }
    }

    /// Reports events until the folder is gone; returns why.
    async fn follow(&mut self, to: &mpsc::Sender<Item>) -> io::Error {
        loop {
            match self.step().await {
                Ok(()) => {}
                Err(error) => return error,
            }
            for event in self.events.drain(..) {
                // The client may have left, which ends this.
                let _ = to.send(Item::Message(json!({ "filesystem": event }))).await;
            }
        }
    }

    async fn step(&mut self) -> io::Result<()> {
        let Some(path) = self.dirty.pop_front() else {
            let reply = self.reply().await?;
            return self.notice(reply);
        };
        if self.folders.contains_key(&path) {
            self.look(path, Report::Entries).await?;
        }
        Ok(())
    }

    /// Takes what arrives without a request.
    fn notice(&mut self, reply: Reply) -> io::Result<()> {
        match reply {
            Reply::Dirty(paths) => self.dirty.extend(paths),
            Reply::Lost => self.dirty.extend(self.folders.keys().cloned()),
            Reply::RootGone => return Err(io::Error::other("it was removed or renamed")),
            _ => {}
        }
        let mut known = std::collections::BTreeSet::new();
        self.dirty.retain(|path| known.insert(path.clone()));
        Ok(())
    }

    /// Lists a folder, and those below it that were not known.
    async fn look(&mut self, path: Vec<u8>, report: Report) -> io::Result<()> {
        let mut wanted = VecDeque::from([(path, report)]);
        while let Some((path, report)) = wanted.pop_front() {
            let Some(entries) = self.list(&path).await? else {
                self.folders.retain(|known, _| !is_below(known, &path));
                continue;
            };
            let before = self.folders.insert(path.clone(), entries.clone());
            if before.is_some() || report == Report::Entries {
                let changes = changes(&before.clone().unwrap_or_default(), &entries);
                self.events.extend(changes.into_iter().map(|(name, kind)| {
                    let name = join(&path, &name);
                    json!({ "name": String::from_utf8_lossy(&name), "type": kind })
                }));
            }
            if self.is_recursive {
                let before = before.unwrap_or_default();
                for (name, stamp) in &entries {
                    let is_new = before.get(name).is_none_or(|old| old.inode != stamp.inode);
                    if stamp.kind == Kind::Folder && is_new {
                        wanted.push_back((join(&path, name), report));
                    }
                }
            }
            let total: usize = self.folders.values().map(BTreeMap::len).sum();
            if self.folders.len() + wanted.len() > MAX_FOLDERS || total > MAX_ENTRIES {
                let text =
                    format!("it has more than {MAX_FOLDERS} folders or {MAX_ENTRIES} entries");
                return Err(io::Error::other(text));
            }
        }
        Ok(())
    }

    /// The entries of a folder, which is watched from then on; `None` if it is gone.
    async fn list(&mut self, path: &[u8]) -> io::Result<Option<Entries>> {
        let mut request = Vec::new();
        Ask::List { path: path.to_vec() }.encode(&mut request);
        self.stream.write_all(&request).await?;
        let mut entries = Entries::new();
        loop {
            match self.reply().await? {
                Reply::Entries(more) => {
                    entries.extend(more.into_iter().map(|entry| (entry.name, entry.stamp)));
                    if entries.len() > MAX_ENTRIES {
                        return Err(io::Error::other("a folder has too many entries"));
                    }
                }
                Reply::Listed { watched: true, .. } => return Ok(Some(entries)),
                Reply::Listed { watched: false, .. } => {
                    return Err(io::Error::other("the guest cannot watch more folders"));
                }
                Reply::Failed { message, .. } if path.is_empty() => {
                    return Err(io::Error::other(message));
                }
                Reply::Failed { .. } => return Ok(None),
                notice => self.notice(notice)?,
            }
        }
    }

    async fn reply(&mut self) -> io::Result<Reply> {
        loop {
            if let Some(frame) = self.frames.next_frame()? {
                return Ok(Reply::decode(frame)?);
            }
            let mut piece = vec![0; PIECE];
            match self.stream.read(&mut piece).await? {
                0 => return Err(io::Error::other("the connection to the sandbox ended")),
                length => self.frames.push(piece.get(..length).unwrap_or_default()),
            }
        }
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    match folder {
        [] => name.to_vec(),
        folder => [folder, b"/", name].concat(),
    }
}

fn is_below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
}

/// What has changed between two lists of a folder, as fsnotify words it: a rename is the end of the
/// old name and the beginning of the new one.
fn changes(before: &Entries, now: &Entries) -> Vec<(Vec<u8>, &'static str)> {
    let mut found = Vec::new();
    for (name, old) in before.iter().filter(|(name, _)| !now.contains_key(*name)) {
        let is_renamed =
            now.iter().any(|(other, new)| !before.contains_key(other) && new.is_renamed(old));
        let kind = if is_renamed { "EVENT_TYPE_RENAME" } else { "EVENT_TYPE_REMOVE" };
        found.push((name.clone(), kind));
    }
    for (name, new) in now {
        let kind = match before.get(name) {
            None => "EVENT_TYPE_CREATE",
            Some(old) if old == new => continue,
            Some(old) if old.inode != new.inode => "EVENT_TYPE_CREATE",
            // The entries of a folder below are not its content.
            Some(old) if new.kind == Kind::Folder && old.mtime_ns != new.mtime_ns => continue,
            Some(old) if (old.size, old.mtime_ns) == (new.size, new.mtime_ns) => "EVENT_TYPE_CHMOD",
            Some(_) => "EVENT_TYPE_WRITE",
        };
        found.push((name.clone(), kind));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(inode: u64, size: u64, mtime_ns: u64, ctime_ns: u64) -> Stamp {
        Stamp { kind: Kind::File, size, inode, mtime_ns, ctime_ns }
    }

    fn entries(all: &[(&str, Stamp)]) -> Entries {
        all.iter().map(|(name, stamp)| (name.as_bytes().to_vec(), *stamp)).collect()
    }

    #[test]
    fn lists_tell_what_has_changed() {
        let before = entries(&[
            ("same", stamp(1, 1, 1, 1)),
            ("written", stamp(2, 1, 1, 1)),
            ("mode", stamp(3, 1, 1, 1)),
            ("removed", stamp(4, 1, 1, 1)),
            ("old", stamp(5, 1, 1, 1)),
        ]);
        let now = entries(&[
            ("same", stamp(1, 1, 1, 1)),
            ("written", stamp(2, 9, 2, 2)),
            ("mode", stamp(3, 1, 1, 2)),
            ("new", stamp(5, 1, 1, 2)),
            ("made", stamp(6, 1, 3, 3)),
        ]);
        let found: Vec<_> = changes(&before, &now)
            .into_iter()
            .map(|(name, kind)| format!("{} {kind}", String::from_utf8(name).unwrap()))
            .collect();
        assert_eq!(
            found,
            [
                "old EVENT_TYPE_RENAME",
                "removed EVENT_TYPE_REMOVE",
                "made EVENT_TYPE_CREATE",
                "mode EVENT_TYPE_CHMOD",
                "new EVENT_TYPE_CREATE",
                "written EVENT_TYPE_WRITE",
            ]
        );
    }

    #[tokio::test]
    async fn new_folders_are_followed() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let side = tokio::spawn(async move {
            let mut frames = Frames::default();
            let folder = Stamp { kind: Kind::Folder, ..stamp(7, 0, 1, 1) };
            let listed = Reply::Listed { now_ns: 0, watched: true };
            let entry = |name: &str, stamp| {
                let (name, target) = (name.as_bytes().to_vec(), Vec::new());
                Reply::Entries(vec![banger_sync_side::Entry { name, stamp, target }])
            };
            let answers = [
                ("", vec![listed.clone(), Reply::Dirty(vec![Vec::new()])]),
                ("", vec![entry("sub", folder), listed.clone()]),
                ("sub", vec![entry("file", stamp(8, 1, 1, 1)), listed]),
            ];
            for (expected, replies) in answers {
                let path = loop {
                    let mut piece = [0; 1024];
                    let length = theirs.read(&mut piece).await.unwrap();
                    frames.push(&piece[..length]);
                    if let Some(frame) = frames.next_frame().unwrap() {
                        match Ask::decode(frame).unwrap() {
                            Ask::List { path } => break path,
                            other => panic!("{other:?}"),
                        }
                    }
                };
                assert_eq!(path, expected.as_bytes());
                let mut out = Vec::new();
                replies.iter().for_each(|reply| reply.encode(&mut out));
                theirs.write_all(&out).await.unwrap();
            }
        });
        let mut watch = Watch::new(ours, true);
        watch.look(Vec::new(), Report::Nothing).await.unwrap();
        let (to, mut from) = mpsc::channel(16);
        // The connection ends with the last answer.
        let error = watch.follow(&to).await;
        assert!(error.to_string().contains("ended"), "{error}");
        side.await.unwrap();
        drop(to);
        let mut names = Vec::new();
        while let Some(Item::Message(event)) = from.recv().await {
            assert_eq!(event["filesystem"]["type"], "EVENT_TYPE_CREATE");
            names.push(event["filesystem"]["name"].as_str().unwrap().to_owned());
        }
        assert_eq!(names, ["sub", "sub/file"]);
    }
}
