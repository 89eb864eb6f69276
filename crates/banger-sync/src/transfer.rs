//! Carries actions out. Requests are sent ahead; each side carries out its own in order, so that a
//! folder is there before what is in it.

use std::collections::VecDeque;
use std::io;

use banger_sync_side::{Cause, Expected, Reply, Request, Stamp};
use sha1::{Digest as _, Sha1};

use crate::peer::{Pipeline, WINDOW};
use crate::reconcile::{Action, Place, conflict_name};
use crate::scan::Scanned;
use crate::side_tree::SideTree;
use crate::tree::{Node, Seen, SideNode, join, split};

/// Most bytes of files that are read ahead from a side.
const AHEAD_BYTES: u64 = 4 << 20;

/// An action that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The path.
    pub path: Vec<u8>,
    /// The side that refused.
    pub on: Place,
    /// Why.
    pub why: String,
}

/// Result of a round.
#[derive(Debug, Default)]
pub struct Transferred {
    /// Failures, except for files that changed meanwhile, which are tried again.
    pub problems: Vec<Problem>,
    /// Changes that were made on the host and in the guest.
    pub changed: [usize; 2],
    /// Bytes of content that were copied.
    pub bytes: u64,
}

/// Both sides.
pub struct Sides {
    pub host: Scanned,
    pub guest: Scanned,
}

impl Sides {
    pub fn at(&mut self, place: Place) -> &mut Scanned {
        match place {
            Place::Host => &mut self.host,
            Place::Guest => &mut self.guest,
        }
    }

    fn node(&self, place: Place, path: &[u8]) -> Option<&SideNode> {
        match place {
            Place::Host => self.host.tree.get(path),
            Place::Guest => self.guest.tree.get(path),
        }
    }
}

/// What a side's answer is about.
struct Pending {
    path: Vec<u8>,
    effect: Effect,
}

/// Effect of an action on the side's tree.
enum Effect {
    Put(SideNode),
    Removed,
    Executable(bool),
    Renamed(Vec<u8>),
    /// None: the source of a copy changed, so that the write was aborted.
    Aborted,
}

/// The state that a node must have to be replaced.
fn expected(node: Option<&SideNode>) -> Expected {
    match node? {
        Node::File { seen, .. } | Node::Link { seen, .. } => Some(seen.stamp),
        Node::Folder(_) | Node::Left(_) => None,
    }
}

/// A folder's state says nothing but that it is one.
const FOLDER: Stamp =
    Stamp { kind: banger_sync_side::Kind::Folder, size: 0, inode: 0, mtime_ns: 0, ctime_ns: 0 };

/// One round of changes.
pub struct Transfer<'a> {
    sides: &'a mut Sides,
    /// Requests without an answer, for the host and for the guest.
    pending: [Pipeline<Pending>; 2],
    done: Transferred,
    /// Time in the names of files that are set aside.
    stamp: &'a str,
}

fn index(place: Place) -> usize {
    match place {
        Place::Host => 0,
        Place::Guest => 1,
    }
}

impl<'a> Transfer<'a> {
    /// Carries out `actions`. `progress` is called with the number of those begun, and what was
    /// made.
    ///
    /// # Errors
    /// A side is gone, or gave a wrong answer; those of `progress`.
    pub fn run(
        sides: &'a mut Sides,
        actions: Vec<Action>,
        stamp: &'a str,
        mut progress: impl FnMut(usize, &Transferred) -> io::Result<()>,
    ) -> io::Result<Transferred> {
        let pending = [Pipeline::default(), Pipeline::default()];
        let mut transfer = Transfer { sides, pending, done: Transferred::default(), stamp };
        let mut actions: VecDeque<Action> = actions.into();
        let mut begun = 0;
        while let Some(action) = actions.front() {
            match transfer.source(action) {
                Some(from) => {
                    let files = transfer.ahead(&mut actions, from);
                    begun += files.len();
                    transfer.copy_files(from, files)?;
                }
                None => {
                    if let Some(action) = actions.pop_front() {
                        begun += 1;
                        transfer.begin(action)?;
                    }
                }
            }
            progress(begun, &transfer.done)?;
        }
        transfer.finish()
    }

    /// The side from which a file is to be read.
    fn source(&self, action: &Action) -> Option<Place> {
        let Action::Copy { to, path } = action else { return None };
        let node = self.sides.node(to.other(), path);
        matches!(node, Some(Node::File { .. })).then_some(to.other())
    }

    /// The next files to be read from one side.
    fn ahead(&self, actions: &mut VecDeque<Action>, from: Place) -> Vec<Vec<u8>> {
        let (mut files, mut bytes) = (Vec::new(), 0);
        while let Some(action) = actions.front()
            && self.source(action) == Some(from)
            && files.len() < WINDOW
            && (bytes < AHEAD_BYTES || files.is_empty())
        {
            let Some(Action::Copy { path, .. }) = actions.pop_front() else { break };
            if let Some(Node::File { seen, .. }) = self.sides.node(from, &path) {
                bytes = bytes.saturating_add(seen.stamp.size);
            }
            files.push(path);
        }
        files
    }

    /// Copies files to the other side.
    fn copy_files(&mut self, from: Place, files: Vec<Vec<u8>>) -> io::Result<()> {
        // Answers come in order: those to earlier changes of this side before the files.
        self.settle_all(from)?;
        for path in &files {
            let request = Request::Read { path: path.clone() };
            self.sides.at(from).peer.send(&request)?;
        }
        for path in files {
            self.copy_file(from, path)?;
        }
        Ok(())
    }

    /// Copies a file whose content is on its way. It is written only if it is the content that was
    /// digested.
    fn copy_file(&mut self, from: Place, path: Vec<u8>) -> io::Result<()> {
        let to = from.other();
        let Some(Node::File { digest, program, seen }) = self.sides.node(from, &path).cloned()
        else {
            return Err(self.sides.at(from).peer.wrong());
        };
        let size = seen.stamp.size;
        let replaced = expected(self.sides.node(to, &path));
        self.make_room(to)?;
        let write =
            Request::Write { path: path.clone(), expected: replaced, executable: program, size };
        self.sides.at(to).peer.send(&write)?;
        let (mut hash, mut held, mut left) = (Sha1::new(), Vec::new(), size);
        let mut has_grown = false;
        let is_same = loop {
            match self.sides.at(from).peer.reply()? {
                Reply::Data(piece) => {
                    hash.update(&piece);
                    let length = piece.len() as u64;
                    has_grown |= length > left;
                    if has_grown {
                        continue;
                    }
                    left -= length;
                    // The last piece is sent when the whole content is known to be right.
                    let before = std::mem::replace(&mut held, piece);
                    if !before.is_empty() {
                        self.sides.at(to).peer.send(&Request::Data(before))?;
                    }
                }
                Reply::Hashed { stamp, .. } => {
                    let is_whole = left == 0 && !has_grown && stamp == seen.stamp;
                    break is_whole && <[u8; 20]>::from(hash.finalize()) == digest;
                }
                Reply::Failed { .. } => break false,
                _ => return Err(self.sides.at(from).peer.wrong()),
            }
        };
        if !is_same {
            self.sides.at(from).due.insert(split(&path).0.to_vec());
        }
        let effect = match (is_same, size) {
            // An empty file is written with its request.
            (_, 0) => Effect::Put(Node::File { digest, program, seen }),
            (false, _) => {
                self.sides.at(to).peer.send(&Request::Abort)?;
                Effect::Aborted
            }
            (true, _) => {
                self.sides.at(to).peer.send(&Request::Data(held))?;
                self.done.bytes += size;
                Effect::Put(Node::File { digest, program, seen })
            }
        };
        self.pend(to, path, effect);
        Ok(())
    }

    /// Sends the request of an action that reads no file.
    fn begin(&mut self, action: Action) -> io::Result<()> {
        let (on, path, request, effect) = match action {
            Action::Copy { to, path } => {
                let Some((request, effect)) = self.copy_other(to, &path) else { return Ok(()) };
                (to, path, request, effect)
            }
            Action::Remove { on, path } => {
                let expected = expected(self.sides.node(on, &path)).unwrap_or(FOLDER);
                (on, path.clone(), Request::Remove { path, expected }, Effect::Removed)
            }
            Action::Execute { on, path, program } => {
                let Some(expected) = expected(self.sides.node(on, &path)) else { return Ok(()) };
                let request =
                    Request::Execute { path: path.clone(), expected, executable: program };
                (on, path, request, Effect::Executable(program))
            }
            Action::SetAside { path, is_folder } => {
                let node = self.sides.node(Place::Guest, &path);
                let expected = expected(node).unwrap_or(FOLDER);
                let name = conflict_name(split(&path).1, self.stamp, is_folder);
                let request = Request::Rename { path: path.clone(), name: name.clone(), expected };
                (Place::Guest, path, request, Effect::Renamed(name))
            }
        };
        self.make_room(on)?;
        self.sides.at(on).peer.send(&request)?;
        self.pend(on, path, effect);
        Ok(())
    }

    /// The request that makes the other side's symlink or folder.
    fn copy_other(&self, to: Place, path: &[u8]) -> Option<(Request, Effect)> {
        match self.sides.node(to.other(), path)? {
            Node::Folder(_) => {
                let request = Request::Folder { path: path.to_vec() };
                Some((request, Effect::Put(Node::folder())))
            }
            Node::Link { target, seen } => {
                let expected = expected(self.sides.node(to, path));
                let (path, target) = (path.to_vec(), target.clone());
                let node = Node::Link { target: target.clone(), seen: *seen };
                Some((Request::Link { path, target, expected }, Effect::Put(node)))
            }
            Node::File { .. } | Node::Left(_) => None,
        }
    }

    fn pend(&mut self, on: Place, path: Vec<u8>, effect: Effect) {
        if let Some(pending) = self.pending.get_mut(index(on)) {
            pending.push(Pending { path, effect });
        }
    }

    /// Reads answers until another request may be sent.
    fn make_room(&mut self, on: Place) -> io::Result<()> {
        while self.pending.get(index(on)).is_some_and(Pipeline::is_full) {
            self.settle_one(on)?;
        }
        Ok(())
    }

    /// Reads one answer and notes its effect.
    fn settle_one(&mut self, on: Place) -> io::Result<()> {
        let Some(pending) = self.pending.get_mut(index(on)).and_then(Pipeline::pop) else {
            return Ok(());
        };
        let side = self.sides.at(on);
        match side.peer.reply()? {
            Reply::Done { stamp, now_ns } => {
                if let Some(count) = self.done.changed.get_mut(index(on)) {
                    *count += 1;
                }
                let seen = stamp.map(|stamp| Seen { stamp, known_ns: now_ns });
                side.touched.insert(split(&pending.path).0);
                take_effect(&mut side.tree, pending, seen);
            }
            Reply::Failed { cause, message } => {
                side.due.insert(split(&pending.path).0.to_vec());
                let why = match (cause, &pending.effect) {
                    (Cause::Changed, _) | (Cause::Missing, Effect::Removed) => return Ok(()),
                    (Cause::NotEmpty, _) => "it is not empty: ignored files stay".to_owned(),
                    _ => message,
                };
                self.done.problems.push(Problem { path: pending.path, on, why });
            }
            _ => return Err(side.peer.wrong()),
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<Transferred> {
        for place in [Place::Host, Place::Guest] {
            self.sides.at(place).peer.flush()?;
        }
        for place in [Place::Host, Place::Guest] {
            self.settle_all(place)?;
        }
        Ok(self.done)
    }

    fn settle_all(&mut self, on: Place) -> io::Result<()> {
        while self.pending.get(index(on)).is_some_and(|pending| !pending.is_empty()) {
            self.settle_one(on)?;
        }
        Ok(())
    }
}

/// Notes in a side's tree what was done.
fn take_effect(tree: &mut SideTree, pending: Pending, state: Option<Seen>) {
    let Pending { path, effect } = pending;
    match (effect, state) {
        (Effect::Put(Node::Folder(_)), _) => {
            let is_there = tree.get(&path).is_some_and(|node| node.children().is_some());
            if !is_there {
                tree.set(&path, Some(Node::folder()));
            }
        }
        (Effect::Put(Node::File { digest, program, .. }), Some(seen)) => {
            tree.set(&path, Some(Node::File { digest, program, seen }));
        }
        (Effect::Put(Node::Link { target, .. }), Some(seen)) => {
            tree.set(&path, Some(Node::Link { target, seen }));
        }
        (Effect::Removed, _) => tree.set(&path, None),
        (Effect::Executable(program), Some(state)) => {
            tree.set_file(&path, program, state);
        }
        (Effect::Renamed(name), _) => {
            let node = tree.get(&path).cloned();
            tree.set(&path, None);
            tree.set(&join(split(&path).0, &name), node);
        }
        (Effect::Put(_) | Effect::Executable(_) | Effect::Aborted, _) => {}
    }
}
