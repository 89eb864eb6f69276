//! The tree of a side, with what a status needs of it: kept up to date with each change, so that a
//! round need not visit the whole tree.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::reconcile::is_conflict;
use crate::tree::{Children, Left, Node, Seen, SideNode, join, split};

/// What a status tells of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// Its name says that it was set aside.
    pub is_conflict: bool,
    /// Why it is left alone.
    pub left: Option<Left>,
}

/// The tree of a side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideTree {
    root: SideNode,
    /// Number of nodes below the root.
    count: usize,
    /// By path, only nodes with something to tell.
    notes: BTreeMap<Vec<u8>, Note>,
}

impl Default for SideTree {
    fn default() -> Self {
        Self { root: SideNode::folder(), count: 0, notes: BTreeMap::new() }
    }
}

impl SideTree {
    /// The root.
    pub fn root(&self) -> &SideNode {
        &self.root
    }

    /// The node at a path.
    pub fn get(&self, path: &[u8]) -> Option<&SideNode> {
        self.root.get(path)
    }

    /// Number of nodes below the root.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What there is to tell, in order of paths.
    pub fn notes(&self) -> impl Iterator<Item = (&Vec<u8>, &Note)> {
        self.notes.iter()
    }

    /// Replaces the root as a whole.
    pub fn set_root(&mut self, root: SideNode) {
        (self.count, self.notes) = (0, BTreeMap::new());
        self.root = SideNode::folder();
        let children = root.children().into_iter().flatten();
        children.for_each(|(name, child)| self.enter(name, child));
        self.root = root;
    }

    /// Puts a node at a path, whose parent must be a folder; `None` removes it.
    pub fn set(&mut self, path: &[u8], node: Option<SideNode>) {
        let (parent, name) = split(path);
        let Some(Node::Folder(children)) = self.root.get_mut(parent) else { return };
        let before = children.remove(name);
        if let Some(before) = before {
            self.leave(path, &before);
        }
        let Some(node) = node else { return };
        self.enter(path, &node);
        self.root.set(path, Some(node));
    }

    /// Sets the execute bit and the state of a file.
    pub fn set_file(&mut self, path: &[u8], now: bool, state: Seen) {
        if let Some(Node::File { program, seen, .. }) = self.root.get_mut(path) {
            (*program, *seen) = (now, state);
        }
    }

    /// Takes the entries out of a folder, to be replaced by [`Self::put_children`]. Each that does
    /// not come back must [`Self::leave`], each new one [`Self::enter`].
    pub fn take_children(&mut self, path: &[u8]) -> Option<Children<Seen>> {
        match self.root.get_mut(path)? {
            Node::Folder(children) => Some(std::mem::take(children)),
            Node::File { .. } | Node::Link { .. } | Node::Left(_) => None,
        }
    }

    /// See [`Self::take_children`].
    pub fn put_children(&mut self, path: &[u8], new: Children<Seen>) {
        if let Some(Node::Folder(children)) = self.root.get_mut(path) {
            *children = new;
        }
    }

    /// Notes that a node is there.
    pub fn enter(&mut self, path: &[u8], node: &SideNode) {
        self.count += 1;
        let left = match node {
            Node::Left(left) => Some(*left),
            Node::Folder(_) | Node::File { .. } | Node::Link { .. } => None,
        };
        let note = Note { is_conflict: is_conflict(split(path).1), left };
        if note.is_conflict || note.left.is_some() {
            self.notes.insert(path.to_vec(), note);
        }
        for (name, child) in node.children().into_iter().flatten() {
            self.enter(&join(path, name), child);
        }
    }

    /// Notes that a node is not there any more.
    pub fn leave(&mut self, path: &[u8], node: &SideNode) {
        self.count = self.count.saturating_sub(1 + node.count());
        if self.notes.is_empty() {
            return;
        }
        self.notes.remove(path);
        if node.children().is_some() {
            // `0` follows `/`.
            let (first, after) = ([path, b"/"].concat(), [path, b"0"].concat());
            let range = (Bound::Excluded(first), Bound::Excluded(after));
            let below: Vec<_> = self.notes.range(range).map(|(path, _)| path.clone()).collect();
            for path in below {
                self.notes.remove(&path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> SideNode {
        let stamp = banger_sync_side::Stamp {
            kind: banger_sync_side::Kind::File,
            size: 1,
            inode: 2,
            mtime_ns: 3,
            ctime_ns: 4,
        };
        Node::File { digest: [1; 20], program: false, seen: Seen { stamp, known_ns: 5 } }
    }

    /// The same tree, built anew from its root.
    fn anew(tree: &SideTree) -> SideTree {
        let mut new = SideTree::default();
        new.set_root(tree.root().clone());
        new
    }

    #[test]
    fn count_and_notes_are_those_of_the_whole_tree() {
        let mut tree = SideTree::default();
        for (path, node) in [
            ("d", SideNode::folder()),
            ("d/e", SideNode::folder()),
            ("d/e/a.conflict-guest-1", file()),
            ("d/e/socket", Node::Left(Left::Special)),
            ("d0", Node::Left(Left::Special)),
            ("b", file()),
        ] {
            tree.set(path.as_bytes(), Some(node));
            assert_eq!(tree, anew(&tree), "{path}");
        }
        assert_eq!((tree.count(), tree.notes().count()), (6, 3));
        tree.set(b"d/e/socket", Some(file()));
        assert_eq!(tree, anew(&tree));
        let moved = tree.get(b"d").cloned();
        tree.set(b"d", None);
        assert_eq!((tree.count(), tree.notes().count()), (2, 1));
        tree.set(b"b", moved);
        assert_eq!(tree, anew(&tree));
        assert!(
            tree.notes().any(|(path, note)| path == b"b/e/a.conflict-guest-1" && note.is_conflict)
        );
        tree.set(b"missing/x", Some(file()));
        assert_eq!(tree, anew(&tree));
    }
}
