//! Lists what changed on the sides, and digests the files whose state is new.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

use banger_sync_side::{Cause, Entry, Kind, Reply, Request, Stamp};

use crate::admit::{self, MAX_NODES};
use crate::peer::{Changes, Peer, Pipeline};
use crate::reconcile::Place;
use crate::rules::{self, Rules};
use crate::scope::Touched;
use crate::side_tree::SideTree;
use crate::tree::{BaseNode, Children, Left, Node, Seen, SideNode, join, split};

/// The rules of ignored files, and where they were read.
#[derive(Default)]
pub struct RuleBook {
    pub rules: Rules,
    /// States of the host's files by folder: they come before the guest's.
    host: BTreeMap<Vec<u8>, Stamp>,
    guest: BTreeMap<Vec<u8>, Stamp>,
}

impl RuleBook {
    /// The rules of the user only.
    pub fn new(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Whether the rules of a folder are to be read from this side; a file that is not there any
    /// more takes its rules with it.
    fn is_due(&mut self, folder: &[u8], file: Option<&Stamp>, place: Place) -> bool {
        let other = place == Place::Guest && self.host.contains_key(folder);
        let read = match place {
            Place::Host => &mut self.host,
            Place::Guest => &mut self.guest,
        };
        let before = match file {
            Some(stamp) => read.insert(folder.to_vec(), *stamp),
            None => read.remove(folder),
        };
        !other && before.as_ref() != file
    }
}

/// One side: its connection and its tree.
pub struct Scanned {
    pub peer: Peer,
    pub tree: SideTree,
    /// Folders whose files are to be listed again.
    pub due: BTreeSet<Vec<u8>>,
    /// Folders in which the tree may have changed since the base was settled.
    pub touched: Touched,
    /// Whether some folder could not be watched.
    pub unwatched: bool,
    /// Inodes of the folders: one of the same name may be another one.
    inodes: HashMap<Vec<u8>, u64>,
}

/// A list of a folder, or why there is none.
type Listed = Result<Vec<Entry>, Cause>;

impl Scanned {
    /// A side of which nothing is known yet.
    pub fn new(peer: Peer) -> Self {
        let due = BTreeSet::from([Vec::new()]);
        Self {
            peer,
            tree: SideTree::default(),
            due,
            touched: Touched::default(),
            unwatched: false,
            inodes: HashMap::new(),
        }
    }

    /// Takes the changes that the side reported.
    pub fn take(&mut self, changes: Changes) {
        if changes.all {
            self.unwatched = false;
            self.relist(b"");
        }
        // Of a guest, a path may be anything.
        self.due.extend(
            changes
                .folders
                .into_iter()
                .filter(|path| self.tree.get(path).is_some_and(|node| node.children().is_some())),
        );
    }

    /// Has a folder and all below it listed again.
    pub fn relist(&mut self, path: &[u8]) {
        if let Some(node) = self.tree.get(path) {
            folders(path, node, &mut self.due);
        }
    }

    /// Lists all folders that are due, one level after another, and digests. States of files in the
    /// base save reading them. Returns the folders whose rules changed.
    pub fn scan(&mut self, book: &mut RuleBook, base: &BaseNode) -> io::Result<Vec<Vec<u8>>> {
        let (mut unknown, mut ruled) = (BTreeSet::new(), Vec::new());
        while !self.due.is_empty() {
            let listed = self.list_due()?;
            for (path, listed) in &listed {
                let Ok(entries) = listed else { continue };
                if self.read_rules(path, entries, book)? {
                    self.relist(path);
                    self.due.remove(path);
                    ruled.push(path.clone());
                }
            }
            for (path, listed) in listed {
                self.place(&path, listed, (&book.rules, base), &mut unknown);
            }
            if self.tree.count() > MAX_NODES {
                let text = format!(
                    "the {}'s folder has more than {MAX_NODES} files: have some ignored",
                    self.peer.place().as_str()
                );
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, text));
            }
        }
        self.digest(unknown)?;
        Ok(ruled)
    }

    fn list_due(&mut self) -> io::Result<Vec<(Vec<u8>, Listed)>> {
        let mut lists = Pipeline::default();
        let mut due = std::mem::take(&mut self.due).into_iter();
        let mut all = Vec::new();
        loop {
            while let Some(path) = if lists.is_full() { None } else { due.next() } {
                self.peer.send(&Request::List { path: path.clone() })?;
                lists.push(path);
            }
            let Some(path) = lists.pop() else { return Ok(all) };
            all.push((path, self.list()?));
        }
    }

    fn read_rules(
        &mut self,
        folder: &[u8],
        entries: &[Entry],
        book: &mut RuleBook,
    ) -> io::Result<bool> {
        let is_file = |stamp: &&Stamp| {
            matches!(stamp.kind, Kind::File | Kind::Program) && stamp.size <= rules::MAX_READ
        };
        let file = entries.iter().find(|entry| entry.name == rules::FILE);
        let file = file.map(|entry| &entry.stamp).filter(is_file);
        if !book.is_due(folder, file, self.peer.place()) {
            return Ok(false);
        }
        let content = match file {
            Some(_) => self.content(&join(folder, rules::FILE))?,
            None => None,
        };
        Ok(book.rules.set(folder, content))
    }

    /// Receives the entries of one folder; `None`: it is gone, or cannot be read.
    fn list(&mut self) -> io::Result<Listed> {
        let mut entries = Vec::new();
        loop {
            match self.peer.reply()? {
                Reply::Entries(some) => entries.extend(some),
                Reply::Listed { watched, .. } => {
                    self.unwatched |= !watched;
                    return Ok(Ok(entries));
                }
                Reply::Failed { cause, .. } => return Ok(Err(cause)),
                _ => return Err(self.peer.wrong()),
            }
            if entries.len() > MAX_NODES {
                return Err(self.peer.wrong());
            }
        }
    }

    /// Puts a folder's entries into the tree.
    fn place(
        &mut self,
        path: &[u8],
        listed: Listed,
        (rules, base): (&Rules, &BaseNode),
        unknown: &mut BTreeSet<Vec<u8>>,
    ) {
        let entries = match listed {
            Ok(entries) => entries,
            // The folder that it was in is listed as well; the root is checked by its owner.
            Err(Cause::Missing) => return,
            Err(_) if path.is_empty() => {
                self.touched.insert(path);
                return self.tree.set_root(Node::Left(Left::Unreadable));
            }
            Err(_) => {
                self.touched.insert(split(path).0);
                return self.tree.set(path, Some(Node::Left(Left::Unreadable)));
            }
        };
        if path.is_empty() && self.tree.root().children().is_none() {
            self.tree.set_root(SideNode::folder());
        }
        let Some(mut old) = self.tree.take_children(path) else { return };
        self.touched.insert(path);
        let mut new = Children::new();
        for entry in entries {
            let is_folder = entry.stamp.kind == Kind::Folder;
            if !admit::is_name(&entry.name) || admit::is_never(&entry.name) {
                continue;
            }
            let here = join(path, &entry.name);
            if rules.is_ignored(&here, is_folder) {
                continue;
            }
            let mut before = old.remove(&entry.name);
            let inode = entry.stamp.inode;
            if is_folder {
                match self.inodes.insert(here.clone(), inode) {
                    Some(known) if known == inode => {}
                    // Made by this session: its content is known, but not its watch.
                    None => drop(self.due.insert(here.clone())),
                    Some(_) => {
                        before.take().iter().for_each(|before| self.tree.leave(&here, before));
                    }
                }
            }
            let stays = is_folder && before.as_ref().is_some_and(|node| node.children().is_some());
            if !stays && let Some(before) = &before {
                self.tree.leave(&here, before);
            }
            let node = node(&here, &entry, before, base.get(&here), self.peer.place());
            if !stays {
                self.tree.enter(&here, &node);
            }
            match &node {
                Node::Folder(children) if children.is_empty() => drop(self.due.insert(here)),
                Node::Left(Left::Moving) => drop(unknown.insert(here)),
                _ => {}
            }
            new.insert(entry.name, node);
        }
        for (name, node) in &old {
            let here = join(path, name);
            self.tree.leave(&here, node);
            if node.children().is_some() {
                self.inodes.remove(&here);
            }
        }
        self.tree.put_children(path, new);
    }

    /// Digests files whose content is not known; one that changes meanwhile stays
    /// [`Left::Moving`] until its folder is listed again.
    fn digest(&mut self, unknown: BTreeSet<Vec<u8>>) -> io::Result<()> {
        let is_unknown =
            |path: &Vec<u8>| matches!(self.tree.get(path), Some(Node::Left(Left::Moving)));
        let unknown: Vec<_> = unknown.into_iter().filter(is_unknown).collect();
        let mut unknown = unknown.into_iter();
        let mut hashes = Pipeline::default();
        loop {
            while let Some(path) = if hashes.is_full() { None } else { unknown.next() } {
                self.peer.send(&Request::Hash { path: path.clone() })?;
                hashes.push(path);
            }
            let Some(path) = hashes.pop() else { return Ok(()) };
            let node = match self.peer.reply()? {
                Reply::Hashed { stamp, digest, now_ns } => Node::File {
                    digest,
                    program: stamp.kind == Kind::Program,
                    seen: Seen { stamp, known_ns: now_ns },
                },
                Reply::Failed { cause: Cause::Changed | Cause::Missing, .. } => {
                    self.due.insert(split(&path).0.to_vec());
                    continue;
                }
                Reply::Failed { .. } => Node::Left(Left::Unreadable),
                _ => return Err(self.peer.wrong()),
            };
            self.tree.set(&path, Some(node));
        }
    }

    /// Reads a small file, for its rules; `None` where it is missing.
    fn content(&mut self, path: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.peer.send(&Request::Read { path: path.to_vec() })?;
        let mut content = Vec::new();
        let mut bytes = 0;
        loop {
            match self.peer.reply()? {
                Reply::Data(piece) => {
                    bytes += piece.len() as u64;
                    if bytes <= rules::MAX_BYTES {
                        content.extend_from_slice(&piece);
                    }
                }
                Reply::Hashed { .. } => return Ok(Some(content)),
                Reply::Failed { .. } => return Ok(None),
                _ => return Err(self.peer.wrong()),
            }
        }
    }
}

fn folders(path: &[u8], node: &SideNode, into: &mut BTreeSet<Vec<u8>>) {
    if node.children().is_some() || path.is_empty() {
        into.insert(path.to_vec());
    }
    for (name, child) in node.children().into_iter().flatten() {
        if child.children().is_some() {
            folders(&join(path, name), child, into);
        }
    }
}

/// The node of an entry: with what is known of it, or [`Left::Moving`] for a file that is to be
/// digested.
fn node(
    path: &[u8],
    entry: &Entry,
    old: Option<SideNode>,
    base: Option<&BaseNode>,
    place: Place,
) -> SideNode {
    if admit::is_too_long(path) {
        return Node::Left(Left::TooLong);
    }
    let stamp = entry.stamp;
    match stamp.kind {
        Kind::Other => Node::Left(Left::Special),
        Kind::Folder => match old {
            Some(Node::Folder(children)) => Node::Folder(children),
            _ => Node::folder(),
        },
        Kind::Link => match admit::check_link(path, &entry.target) {
            Err(left) => Node::Left(left),
            Ok(()) => {
                let seen = Seen { stamp, known_ns: 0 };
                Node::Link { target: entry.target.clone(), seen }
            }
        },
        Kind::File | Kind::Program if stamp.size > admit::MAX_FILE => Node::Left(Left::TooLarge),
        Kind::File | Kind::Program => {
            let program = stamp.kind == Kind::Program;
            let known = match (&old, base) {
                (Some(Node::File { digest, seen, .. }), _) if seen.holds(&stamp) => {
                    Some((*digest, *seen))
                }
                (None, Some(Node::File { digest, seen: both, .. })) => {
                    let seen = if place == Place::Host { both.host } else { both.guest };
                    seen.filter(|seen| seen.holds(&stamp)).map(|seen| (*digest, seen))
                }
                _ => None,
            };
            match known {
                Some((digest, seen)) => Node::File { digest, program, seen },
                None => Node::Left(Left::Moving),
            }
        }
    }
}
