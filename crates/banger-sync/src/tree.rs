//! Trees of a side, and of the base.

use std::collections::BTreeMap;

use banger_sync_side::{Digest, Stamp};

/// Children of a folder by name.
pub type Children<S> = BTreeMap<Vec<u8>, Node<S>>;

/// A file, symlink or folder. `S` is what is known of a file on its side; it is no part of its
/// content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node<S> {
    /// A folder.
    Folder(Children<S>),
    /// A file.
    File {
        /// Digest of its content.
        digest: Digest,
        /// Whether it is a program.
        program: bool,
        /// Its state on the side.
        seen: S,
    },
    /// A symlink within the folder.
    Link {
        /// Its target.
        target: Vec<u8>,
        /// Its state on the side.
        seen: S,
    },
    /// Something that is left alone, such as a socket, an unreadable folder, a symlink out of the
    /// folder or a file that changes at the moment.
    Left(Left),
}

/// Why a node is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Socket, pipe or device.
    Special,
    /// A symlink that leads out of the folder.
    LeadsOut,
    /// It cannot be read.
    Unreadable,
    /// It changed while it was read; it is read again.
    Moving,
    /// The name or the path is too long.
    TooLong,
    /// It is larger than [`crate::admit::MAX_FILE`].
    TooLarge,
}

impl Left {
    /// The reason in words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Special => "it is neither a file nor a folder",
            Self::LeadsOut => "the symlink leads out of the folder",
            Self::Unreadable => "it cannot be read",
            Self::Moving => "it changes all the time",
            Self::TooLong => "its path is too long",
            Self::TooLarge => "it is larger than 4 GiB",
        }
    }
}

/// State of a file of a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// State.
    pub stamp: Stamp,
    /// The side's clock when the content was known, in nanoseconds.
    pub known_ns: u64,
}

/// A file that changes twice within a tick of the kernel's clock has the same times: the content is
/// certain only if it was read later. Ticks are at most 10 ms long.
const TICK_NS: u64 = 40_000_000;

impl Seen {
    /// Whether a file with this state surely has the known content.
    pub fn holds(&self, now: &Stamp) -> bool {
        let changed = now.ctime_ns.max(now.mtime_ns);
        self.stamp == *now && self.known_ns > changed.saturating_add(TICK_NS)
    }
}

/// Tree of a side.
pub type SideNode = Node<Seen>;

/// States of a file on both sides when they agreed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Both {
    /// On the host.
    pub host: Option<Seen>,
    /// In the guest.
    pub guest: Option<Seen>,
}

/// Tree of the base.
pub type BaseNode = Node<Both>;

impl<S> Node<S> {
    /// An empty folder.
    pub fn folder() -> Self {
        Self::Folder(Children::new())
    }

    /// The children, if it is a folder.
    pub fn children(&self) -> Option<&Children<S>> {
        match self {
            Self::Folder(children) => Some(children),
            Self::File { .. } | Self::Link { .. } | Self::Left(_) => None,
        }
    }

    /// Digest, and whether it is a program, if it is a file.
    pub fn file(&self) -> Option<(Digest, bool)> {
        match self {
            Self::File { digest, program, .. } => Some((*digest, *program)),
            Self::Folder(_) | Self::Link { .. } | Self::Left(_) => None,
        }
    }

    /// The node at a path below.
    pub fn get(&self, path: &[u8]) -> Option<&Self> {
        parts(path).try_fold(self, |node, part| node.children()?.get(part))
    }

    /// The node at a path below.
    pub fn get_mut(&mut self, path: &[u8]) -> Option<&mut Self> {
        parts(path).try_fold(self, |node, part| match node {
            Self::Folder(children) => children.get_mut(part),
            Self::File { .. } | Self::Link { .. } | Self::Left(_) => None,
        })
    }

    /// Puts a node at a path, whose parent must be a folder; `None` removes it.
    pub fn set(&mut self, path: &[u8], node: Option<Self>) {
        let (parent, name) = split(path);
        let Some(Self::Folder(children)) = self.get_mut(parent) else { return };
        match node {
            Some(node) => drop(children.insert(name.to_vec(), node)),
            None => drop(children.remove(name)),
        }
    }

    /// Number of nodes below.
    pub fn count(&self) -> usize {
        let children = self.children().map(BTreeMap::values);
        children.into_iter().flatten().map(|child| 1 + child.count()).sum()
    }

    /// Whether there are more than this many nodes below.
    pub fn has_more_than(&self, number: usize) -> bool {
        fn take<S>(node: &Node<S>, left: &mut usize) -> bool {
            let children = node.children().map(BTreeMap::values);
            children.into_iter().flatten().any(|child| {
                *left == 0 || {
                    *left -= 1;
                    take(child, left)
                }
            })
        }
        take(self, &mut { number })
    }

    /// Whether this is the same file or symlink, or both are folders, whatever they contain.
    pub fn is_like<T>(&self, other: &Node<T>) -> bool {
        match (self, other) {
            (Self::Folder(_), Node::Folder(_)) => true,
            (
                Self::File { digest, program, .. },
                Node::File { digest: other, program: other_program, .. },
            ) => digest == other && program == other_program,
            (Self::Link { target, .. }, Node::Link { target: other, .. }) => target == other,
            _ => false,
        }
    }

    /// Whether the whole trees are the same.
    pub fn is_same<T>(&self, other: &Node<T>) -> bool {
        match (self, other) {
            (Self::Folder(ours), Node::Folder(theirs)) => {
                ours.len() == theirs.len()
                    && ours
                        .iter()
                        .zip(theirs)
                        .all(|((name, our), (other, their))| name == other && our.is_same(their))
            }
            _ => self.is_like(other),
        }
    }
}

/// The parts of a path.
pub fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
}

/// The path of the folder, and the name in it.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (b"", path),
    }
}

/// The path of `name` in the folder `path`.
pub fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}
