//! A file tree in memory: names, owners, modes, attributes; contents stay in the source.
//!
//! Nothing here accesses the host's file system: paths and symbolic links are resolved within the
//! tree only, so hostile names cannot escape.

use std::collections::BTreeMap;

pub use super::node::{Content, Extent, Kind, Meta, Name, Node};

/// Index of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(super) u32);

/// An invalid path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The path has a `..` component.
    #[error("the path `{0}` leads out of the archive")]
    Escapes(String),
    /// The path or a component is longer than Linux allows.
    #[error("the path `{0}…` is too long")]
    TooLong(String),
    /// A component is not a folder, or its symbolic links form a loop.
    #[error("`{0}` lies below something that is no folder")]
    NoFolder(String),
    /// The path is a folder that is not empty.
    #[error("`{0}` would replace a folder that is not empty")]
    FolderInTheWay(String),
    /// A hard link to a missing file or to a folder.
    #[error("`{name}` is a hard link to `{target}`, which is no file")]
    BadLink {
        /// The link.
        name: String,
        /// Target of the link.
        target: String,
    },
    /// A limit of ext4 or of this program.
    #[error("the tree has too many {0}")]
    TooMany(&'static str),
}

/// Limits: PATH_MAX, NAME_MAX and MAXSYMLINKS of Linux, hard links of ext4, and a plausible maximum
/// for a root file system.
const PATH_BYTES: usize = 4095;
const NAME_BYTES: usize = 255;
const LINKS_FOLLOWED: u32 = 40;
const HARD_LINKS: u32 = 65_000;
const NODES: usize = 8_000_000;
/// Maximum bytes of names, link targets and attributes in memory.
const HELD_BYTES: usize = 1 << 30;
/// Maximum bytes of the attributes of a file: ext4 stores them in one block.
const XATTR_BYTES: usize = 3800;

/// A tree of files.
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: Vec<Node>,
    held_bytes: usize,
}

/// The root folder.
pub const ROOT: NodeId = NodeId(0);

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

/// A path for a message: at most 100 characters.
fn printable(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(100).collect()
}

/// The parts of a path; empty ones and `.` are left out.
fn plain_parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// The parts of a path relative to the root.
fn parts(path: &[u8]) -> Result<Vec<&[u8]>, TreeError> {
    if path.len() > PATH_BYTES {
        return Err(TreeError::TooLong(printable(path)));
    }
    let mut parts = Vec::new();
    for part in plain_parts(path) {
        if part == b".." || part.contains(&0) {
            return Err(TreeError::Escapes(printable(path)));
        }
        if part.len() > NAME_BYTES {
            return Err(TreeError::TooLong(printable(path)));
        }
        parts.push(part);
    }
    Ok(parts)
}

impl Tree {
    /// A tree with an empty root folder, mode 0755.
    pub fn new() -> Self {
        let meta = Meta::of_root(0o755);
        let kind = Kind::Folder(BTreeMap::new());
        let root = Node { kind, meta, xattrs: BTreeMap::new(), links: 1 };
        Self { nodes: vec![root], held_bytes: 0 }
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// A node, mutable.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    pub(super) fn names(&self, id: NodeId) -> Option<&BTreeMap<Name, NodeId>> {
        match &self.node(id).kind {
            Kind::Folder(names) => Some(names),
            _ => None,
        }
    }

    pub(super) fn names_mut(&mut self, id: NodeId) -> Option<&mut BTreeMap<Name, NodeId>> {
        match &mut self.node_mut(id).kind {
            Kind::Folder(names) => Some(names),
            _ => None,
        }
    }

    /// The node of a path; symbolic links before its last part are followed, the last is not.
    pub fn get(&self, path: impl AsRef<[u8]>) -> Option<NodeId> {
        let parts = parts(path.as_ref()).ok()?;
        let Some((last, before)) = parts.split_last() else { return Some(ROOT) };
        let folder = self.follow(ROOT, before, &mut 0)?;
        self.names(folder)?.get(*last).copied()
    }

    /// The node of a path with all symbolic links followed, within the tree.
    pub fn resolve(&self, path: impl AsRef<[u8]>) -> Option<NodeId> {
        self.follow(ROOT, &parts(path.as_ref()).ok()?, &mut 0)
    }

    /// The node of a path with all symbolic links followed, below the folders above it.
    pub(super) fn trail(&self, path: &[u8]) -> Option<Vec<NodeId>> {
        self.walk(ROOT, &parts(path).ok()?, &mut 0)
    }

    /// Number of nodes so far, including those without a name.
    pub(super) fn count(&self) -> usize {
        self.nodes.len()
    }

    fn follow(&self, folder: NodeId, parts: &[&[u8]], followed: &mut u32) -> Option<NodeId> {
        self.walk(folder, parts, followed)?.last().copied()
    }

    /// Walks from `folder`, following links; `..` in a link's target stops at the root.
    fn walk(&self, folder: NodeId, parts: &[&[u8]], followed: &mut u32) -> Option<Vec<NodeId>> {
        let mut trail = vec![ROOT];
        if folder != ROOT {
            trail.push(folder);
        }
        let mut todo: Vec<&[u8]> = parts.iter().rev().copied().collect();
        while let Some(part) = todo.pop() {
            if part == b".." {
                if trail.len() > 1 {
                    trail.pop();
                }
                continue;
            }
            let here = *trail.last()?;
            let next = *self.names(here)?.get(part)?;
            if let Kind::Symlink(target) = &self.node(next).kind {
                *followed += 1;
                if *followed > LINKS_FOLLOWED || todo.len() > PATH_BYTES {
                    return None;
                }
                if target.starts_with(b"/") {
                    trail.truncate(1);
                }
                todo.extend(plain_parts(target).rev());
            } else {
                trail.push(next);
            }
        }
        Some(trail)
    }

    /// The parent folder of a path, and its last component. Missing folders are created, as tar
    /// does; `None` for the root itself.
    fn parent(&mut self, path: &[u8]) -> Result<Option<(NodeId, Name)>, TreeError> {
        let parts = parts(path)?;
        let Some((last, before)) = parts.split_last() else { return Ok(None) };
        let mut folder = ROOT;
        for (depth, part) in before.iter().enumerate() {
            let known = self.names(folder).and_then(|names| names.get(*part)).copied();
            folder = match known {
                None => {
                    self.add(folder, part, Kind::Folder(BTreeMap::new()), Meta::of_root(0o755))?
                }
                Some(id) if self.names(id).is_some() => id,
                // Resolved from the root: a link's target is relative to the link's folder.
                Some(_) => self
                    .follow(ROOT, &before[..=depth], &mut 0)
                    .filter(|id| self.names(*id).is_some())
                    .ok_or_else(|| TreeError::NoFolder(printable(path)))?,
            };
        }
        Ok(Some((folder, (*last).into())))
    }

    fn add(
        &mut self,
        folder: NodeId,
        name: &[u8],
        kind: Kind,
        meta: Meta,
    ) -> Result<NodeId, TreeError> {
        if self.nodes.len() >= NODES {
            return Err(TreeError::TooMany("files"));
        }
        let target_bytes = if let Kind::Symlink(target) = &kind { target.len() } else { 0 };
        self.count_bytes(name.len() + target_bytes)?;
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(Node { kind, meta, xattrs: BTreeMap::new(), links: 1 });
        if let Some(names) = self.names_mut(folder) {
            names.insert(name.into(), id);
        }
        Ok(id)
    }

    /// Counts bytes in memory that belong to the tree.
    ///
    /// # Errors
    /// The limit is exceeded.
    pub fn count_bytes(&mut self, bytes: usize) -> Result<(), TreeError> {
        self.held_bytes += bytes;
        if self.held_bytes > HELD_BYTES { Err(TreeError::TooMany("long names")) } else { Ok(()) }
    }

    /// Replaces the extended attributes of a node.
    ///
    /// # Errors
    /// The attributes exceed the limit of ext4.
    pub fn set_xattrs(
        &mut self,
        id: NodeId,
        xattrs: BTreeMap<String, Vec<u8>>,
    ) -> Result<(), TreeError> {
        // Each has a header of 16 bytes, and both parts are padded to 4.
        let bytes = xattrs.iter().map(|(name, value)| name.len() + value.len() + 24).sum();
        if bytes > XATTR_BYTES {
            return Err(TreeError::TooMany("attributes on one file"));
        }
        self.count_bytes(bytes)?;
        self.node_mut(id).xattrs = xattrs;
        Ok(())
    }

    /// Adds a node at a path, as tar does: a folder that exists only gets the new owner and mode;
    /// any other node, and an empty folder, is replaced.
    ///
    /// # Errors
    /// An invalid path; the path is a folder that is not empty.
    pub fn put(
        &mut self,
        path: impl AsRef<[u8]>,
        kind: Kind,
        meta: Meta,
    ) -> Result<NodeId, TreeError> {
        let path = path.as_ref();
        let is_folder = matches!(kind, Kind::Folder(_));
        let Some((folder, name)) = self.parent(path)? else {
            if !is_folder {
                return Err(TreeError::FolderInTheWay("/".into()));
            }
            self.node_mut(ROOT).meta = meta;
            return Ok(ROOT);
        };
        let known = self.names(folder).and_then(|names| names.get(&name)).copied();
        if let Some(id) = known {
            match self.names(id) {
                Some(_) if is_folder => {
                    self.node_mut(id).meta = meta;
                    return Ok(id);
                }
                Some(names) if !names.is_empty() => {
                    return Err(TreeError::FolderInTheWay(printable(path)));
                }
                _ => self.node_mut(id).links -= 1,
            }
        }
        self.add(folder, &name, kind, meta)
    }

    /// Adds a hard link to the file at `target`.
    ///
    /// # Errors
    /// An invalid path; no file at `target`.
    pub fn link(
        &mut self,
        path: impl AsRef<[u8]>,
        target: impl AsRef<[u8]>,
    ) -> Result<(), TreeError> {
        let (path, target) = (path.as_ref(), target.as_ref());
        let bad = || TreeError::BadLink { name: printable(path), target: printable(target) };
        parts(target)?;
        let id = self.get(target).filter(|id| self.names(*id).is_none()).ok_or_else(bad)?;
        let (folder, name) = self.parent(path)?.ok_or_else(bad)?;
        let known = self.names(folder).and_then(|names| names.get(&name)).copied();
        match known {
            Some(known) if known == id => return Ok(()),
            Some(known) if self.names(known).is_some() => {
                return Err(TreeError::FolderInTheWay(printable(path)));
            }
            Some(known) => self.node_mut(known).links -= 1,
            None => {}
        }
        let node = self.node_mut(id);
        if node.links >= HARD_LINKS {
            return Err(TreeError::TooMany("hard links to one file"));
        }
        node.links += 1;
        if let Some(names) = self.names_mut(folder) {
            names.insert(name, id);
        }
        Ok(())
    }

    /// Removes a path recursively; returns whether it existed.
    pub fn remove(&mut self, path: impl AsRef<[u8]>) -> bool {
        let Ok(parts) = parts(path.as_ref()) else { return false };
        let Some((last, before)) = parts.split_last() else { return false };
        let Some(folder) = self.follow(ROOT, before, &mut 0) else { return false };
        let Some(id) = self.names_mut(folder).and_then(|names| names.remove(*last)) else {
            return false;
        };
        self.unlink(id);
        true
    }

    /// Takes a name from a node; a folder loses its content.
    pub(super) fn unlink(&mut self, id: NodeId) {
        let mut todo = vec![id];
        while let Some(id) = todo.pop() {
            let node = self.node_mut(id);
            node.links -= 1;
            if let Kind::Folder(names) = &mut node.kind {
                todo.extend(std::mem::take(names).into_values());
            }
        }
    }

    /// UTF-8 names in the folder at a path; empty if there is no such folder.
    pub fn list(&self, path: impl AsRef<[u8]>) -> Vec<String> {
        let names = self.resolve(path).and_then(|id| self.names(id));
        let names = names.into_iter().flat_map(BTreeMap::keys);
        names.filter_map(|name| String::from_utf8(name.to_vec()).ok()).collect()
    }

    /// All nodes with at least one name.
    pub fn live(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.links > 0)
    }

    /// Bytes in all files together without their holes, each counted once.
    pub fn content_bytes(&self) -> u64 {
        self.live()
            .map(|node| match &node.kind {
                Kind::File(content) => content.stored_bytes(),
                _ => 0,
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn folder() -> Kind {
        Kind::Folder(BTreeMap::new())
    }

    fn file(text: &str) -> Kind {
        Kind::File(Content::Inline(text.into()))
    }

    fn put(tree: &mut Tree, path: &str, kind: Kind) -> NodeId {
        tree.put(path, kind, Meta::of_root(0o755)).unwrap()
    }

    fn link(target: &str) -> Kind {
        Kind::Symlink(target.into())
    }

    #[test]
    fn links_are_followed_within_the_tree_only() {
        let mut tree = Tree::new();
        let bin = put(&mut tree, "usr/bin", folder());
        let sh = put(&mut tree, "usr/bin/sh", file("sh"));
        for (path, target) in [
            ("bin", "usr/bin"),
            ("absolute", "/usr/bin"),
            ("out", "../../../usr/bin"),
            ("chain", "absolute/../bin"),
            ("a/b/up", "../../usr/./bin/"),
            ("loop", "loop"),
            ("to-file", "usr/bin/sh"),
            ("nowhere", "/etc/passwd"),
        ] {
            put(&mut tree, path, link(target));
        }
        for path in ["bin", "absolute", "out", "chain", "a/b/up", "/./bin/"] {
            assert_eq!(tree.resolve(path), Some(bin), "{path}");
            assert_eq!(tree.get(format!("{path}/sh")), Some(sh), "{path}");
        }
        for path in ["loop", "nowhere", "to-file/x", "loop/x"] {
            assert_eq!(tree.resolve(path), None, "{path}");
        }
        // As tar does if /bin is a symbolic link.
        put(&mut tree, "bin/ls", file("ls"));
        assert_eq!(tree.list("usr/bin"), ["ls", "sh"]);
    }

    #[test]
    fn hostile_paths_are_refused() {
        let mut tree = Tree::new();
        put(&mut tree, "file", file(""));
        put(&mut tree, "loop", link("loop"));
        put(&mut tree, "full/x", file(""));
        let long = format!("{}/x", "d".repeat(256));
        let deep = "d/".repeat(2100);
        for path in ["..", "a/../b", "../x", "nul\0", &long, &deep, "file/x", "loop/x"] {
            assert!(tree.put(path, file(""), Meta::of_root(0)).is_err(), "{path:.20}");
        }
        assert!(tree.put("full", file(""), Meta::of_root(0)).is_err());
        assert!(tree.put("/", file(""), Meta::of_root(0)).is_err());
        for (name, target) in [("l", "nowhere"), ("l", "full"), ("full", "file"), ("l", "../x")] {
            assert!(tree.link(name, target).is_err(), "{name} -> {target}");
        }
        let many = BTreeMap::from([("user.x".to_owned(), vec![0; 4000])]);
        assert!(tree.set_xattrs(ROOT, many).is_err());
    }

    #[test]
    fn later_entries_replace_earlier_ones() {
        let mut tree = Tree::new();
        let first = put(&mut tree, "a", file("first"));
        tree.link("b", "a").unwrap();
        tree.link("b", "a").unwrap();
        assert_eq!(tree.node(first).links, 2);
        let second = put(&mut tree, "a", file("second"));
        assert_eq!((tree.get("a"), tree.get("b")), (Some(second), Some(first)));
        assert_eq!(tree.node(first).links, 1);
        put(&mut tree, "b", link("a"));
        assert_eq!(tree.node(first).links, 0);
        put(&mut tree, "empty", folder());
        put(&mut tree, "empty", file(""));
        assert!(tree.remove("usr") ^ tree.remove("empty"));
        assert_eq!(tree.content_bytes(), 6);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(String, u8),
        Link(String, String),
        Remove(String),
    }

    fn path() -> impl Strategy<Value = String> {
        "[ab](/[abc]){0,3}"
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (path(), 0..3_u8).prop_map(|(path, kind)| Step::Put(path, kind)),
            (path(), path()).prop_map(|(path, target)| Step::Link(path, target)),
            path().prop_map(Step::Remove),
        ]
    }

    proptest! {
        #[test]
        fn link_counts_match_the_names(steps in proptest::collection::vec(step(), 0..60)) {
            let mut tree = Tree::new();
            for step in steps {
                match step {
                    Step::Put(path, kind) => {
                        let kind = [folder(), file("x"), link("a/b")][usize::from(kind)].clone();
                        let _ = tree.put(&path, kind, Meta::of_root(0o755));
                    }
                    Step::Link(path, target) => drop(tree.link(&path, &target)),
                    Step::Remove(path) => {
                        tree.remove(&path);
                    }
                }
            }
            let mut names = vec![0; tree.nodes.len()];
            names[0] = 1;
            let mut todo = vec![ROOT];
            while let Some(id) = todo.pop() {
                for child in tree.names(id).into_iter().flat_map(BTreeMap::values) {
                    names[child.0 as usize] += 1;
                    todo.push(*child);
                }
            }
            let links: Vec<u32> = tree.nodes.iter().map(|node| node.links).collect();
            prop_assert_eq!(names, links);
        }
    }
}
