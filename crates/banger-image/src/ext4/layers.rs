//! Merges the layers of a container image into one tree (OCI image specification 1.1, "Image Layer
//! Filesystem Changeset").
//!
//! A whiteout hides what lower layers have, never an entry of its own layer, wherever in the layer
//! it is. So the merge knows for each name whether the present layer has set it.

use std::collections::HashSet;

use super::tar::{Entry, EntryKind, TarError};
use super::tree::{Kind, Name, NodeId, Tree, TreeError};

/// Prefix of the name of a whiteout: the rest is the name that it hides.
const WHITEOUT: &[u8] = b".wh.";
/// Prefix of names that only aufs used.
const AUFS: &[u8] = b".wh..wh.";
/// Hides all that lower layers have in the folder.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Layers merged so far.
#[derive(Debug, Default)]
pub struct Layers {
    tree: Tree,
    /// Number of nodes before the present layer: later nodes are of this layer.
    lower: usize,
    /// Folders of lower layers that the present layer sets, or in which it sets something.
    kept: HashSet<NodeId>,
    /// Names that the present layer gives to files of lower layers.
    linked: HashSet<(NodeId, Name)>,
    /// Folders that the present layer has emptied.
    emptied: HashSet<NodeId>,
    /// Hard links that precede their target in the layer: path and target.
    pending: Vec<(Vec<u8>, Vec<u8>)>,
    /// The folder of the last entry.
    last: Option<Vec<u8>>,
}

/// Folder and name of a path; `None` for the root.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = path.iter().rposition(|byte| *byte != b'/')? + 1;
    let path = &path[..end];
    let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => path.split_at(at + 1),
        None => (&path[..0], path),
    };
    if name == b"." { split(folder) } else { Some((folder, name)) }
}

impl Layers {
    /// Adds an entry of the present layer.
    ///
    /// # Errors
    /// An invalid path.
    pub fn add(&mut self, entry: Entry) -> Result<(), TarError> {
        if let Some((folder, name)) = split(&entry.path)
            && name.starts_with(WHITEOUT)
        {
            return Ok(self.hide(&entry.path, folder, name)?);
        }
        match entry.kind {
            EntryKind::HardLink(target) => {
                if self.tree.get(&target).is_none() {
                    self.tree.count_bytes(entry.path.len() + target.len())?;
                    self.pending.push((entry.path, target));
                    return Ok(());
                }
                self.link(&entry.path, &target)?;
            }
            EntryKind::Node(kind) => {
                self.make_room(&entry.path, matches!(kind, Kind::Folder(_)));
                let id = self.tree.put(&entry.path, kind, entry.meta)?;
                self.tree.set_xattrs(id, entry.xattrs.into_iter().collect())?;
                if self.is_lower(id) {
                    self.kept.insert(id);
                }
                self.keep_folders(&entry.path);
            }
        }
        Ok(())
    }

    /// Ends the present layer; the next entry is of the next one.
    ///
    /// # Errors
    /// A hard link without a target.
    pub fn end_layer(&mut self) -> Result<(), TarError> {
        let mut pending = std::mem::take(&mut self.pending);
        while !pending.is_empty() {
            let before = pending.len();
            let mut failed = None;
            // The target may itself be a pending link.
            pending.retain(|(path, target)| match self.link(path, target) {
                Ok(()) => false,
                Err(error) => {
                    failed = failed.take().or(Some(error));
                    true
                }
            });
            match failed {
                Some(error) if pending.len() == before => return Err(error.into()),
                _ => {}
            }
        }
        self.lower = self.tree.count();
        self.kept.clear();
        self.linked.clear();
        self.emptied.clear();
        self.last = None;
        Ok(())
    }

    /// The merged tree.
    pub fn into_tree(self) -> Tree {
        self.tree
    }

    fn is_lower(&self, id: NodeId) -> bool {
        (id.0 as usize) < self.lower
    }

    /// Whether the present layer has set a name of a folder, or something below it.
    fn is_of_layer(&self, folder: NodeId, name: &[u8], id: NodeId) -> bool {
        !self.is_lower(id)
            || self.kept.contains(&id)
            || self.linked.contains(&(folder, Name::from(name)))
    }

    fn link(&mut self, path: &[u8], target: &[u8]) -> Result<(), TreeError> {
        let (from, to) = (self.tree.get(target), self.tree.get(path));
        if from.is_some() && from != to {
            self.make_room(path, false);
        }
        self.tree.link(path, target)?;
        self.keep_folders(path);
        if let Some((folder, name)) = split(path)
            && let Some(folder) = self.tree.resolve(folder)
        {
            self.linked.insert((folder, name.into()));
        }
        Ok(())
    }

    /// Removes a folder that a file replaces.
    fn make_room(&mut self, path: &[u8], for_folder: bool) {
        let Some(id) = self.tree.get(path).filter(|_| !for_folder) else { return };
        if self.tree.names(id).is_some_and(|names| !names.is_empty()) {
            self.tree.remove(path);
        }
    }

    /// Marks the folders above a path, which whiteouts of this layer only empty.
    fn keep_folders(&mut self, path: &[u8]) {
        let Some((folder, _)) = split(path) else { return };
        if self.last.as_deref() == Some(folder) {
            return;
        }
        for id in self.tree.trail(folder).unwrap_or_default() {
            if self.is_lower(id) {
                self.kept.insert(id);
            }
        }
        self.last = Some(folder.to_vec());
    }

    /// Applies a whiteout of the folder at `folder`.
    fn hide(&mut self, path: &[u8], folder: &[u8], name: &[u8]) -> Result<(), TreeError> {
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") || path.split(|byte| *byte == b'/').any(is_up) {
            return Err(TreeError::Escapes(
                String::from_utf8_lossy(path).chars().take(100).collect(),
            ));
        }
        let Some(folder) = self.tree.resolve(folder) else { return Ok(()) };
        if name == OPAQUE {
            self.empty(folder);
        } else if !name.starts_with(AUFS) {
            let Some(id) = self.tree.names(folder).and_then(|names| names.get(hidden)).copied()
            else {
                return Ok(());
            };
            if !self.is_of_layer(folder, hidden, id) {
                if let Some(names) = self.tree.names_mut(folder) {
                    names.remove(hidden);
                }
                self.tree.unlink(id);
            } else if self.is_lower(id) {
                self.empty(id);
            }
        }
        Ok(())
    }

    /// Removes all from a folder that is not of the present layer.
    fn empty(&mut self, folder: NodeId) {
        let mut todo = vec![folder];
        while let Some(folder) = todo.pop() {
            // What is added later is of this layer.
            if !self.is_lower(folder) || !self.emptied.insert(folder) {
                continue;
            }
            let Some(names) = self.tree.names_mut(folder) else { continue };
            let all = std::mem::take(names);
            let (mut stay, mut gone) = (std::collections::BTreeMap::new(), Vec::new());
            for (name, id) in all {
                if self.is_of_layer(folder, &name, id) {
                    todo.push(id);
                    stay.insert(name, id);
                } else {
                    gone.push(id);
                }
            }
            if let Some(names) = self.tree.names_mut(folder) {
                *names = stay;
            }
            gone.into_iter().for_each(|id| self.tree.unlink(id));
        }
    }
}

fn is_up(part: &[u8]) -> bool {
    part == b".."
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext4::{Content, Meta};

    /// Entries as text: `d PATH`, `f PATH=TEXT`, `l PATH>TARGET` (symbolic), `h PATH>TARGET` (hard).
    fn entry(text: &str) -> Entry {
        let (kind, rest) = text.split_at(1);
        let rest = rest.trim_start();
        let (path, kind) = match kind {
            "d" => (rest, EntryKind::Node(Kind::Folder(Default::default()))),
            "f" => {
                let (path, text) = rest.split_once('=').unwrap_or((rest, ""));
                (path, EntryKind::Node(Kind::File(Content::Inline(text.into()))))
            }
            "l" => {
                let (path, target) = rest.split_once('>').unwrap();
                (path, EntryKind::Node(Kind::Symlink(target.into())))
            }
            _ => {
                let (path, target) = rest.split_once('>').unwrap();
                (path, EntryKind::HardLink(target.into()))
            }
        };
        let meta = Meta::of_root(0o755);
        Entry { index: 0, path: path.into(), kind, meta, xattrs: Vec::new() }
    }

    fn try_merge(layers: &[&[&str]]) -> Result<Tree, TarError> {
        let mut merged = Layers::default();
        for layer in layers {
            for text in *layer {
                merged.add(entry(text))?;
            }
            merged.end_layer()?;
        }
        Ok(merged.into_tree())
    }

    /// The merged tree as text, sorted: folders end in `/`, files with their content and links.
    fn merge(layers: &[&[&str]]) -> Vec<String> {
        let tree = try_merge(layers).unwrap();
        let (mut lines, mut todo) = (Vec::new(), vec![(crate::ext4::ROOT, String::new())]);
        while let Some((id, path)) = todo.pop() {
            for (name, id) in tree.names(id).unwrap() {
                let path = format!("{path}{}", String::from_utf8_lossy(name));
                let node = tree.node(*id);
                lines.push(match &node.kind {
                    Kind::Folder(_) => {
                        todo.push((*id, format!("{path}/")));
                        format!("{path}/")
                    }
                    Kind::File(Content::Inline(text)) => {
                        let links = if node.links > 1 {
                            "*".repeat(node.links as usize)
                        } else {
                            String::new()
                        };
                        format!("{path}={}{links}", String::from_utf8_lossy(text))
                    }
                    Kind::Symlink(target) => format!("{path}>{}", String::from_utf8_lossy(target)),
                    other => format!("{path}: {other:?}"),
                });
            }
        }
        lines.sort();
        lines
    }

    #[test]
    fn whiteouts_hide_what_lower_layers_have() {
        let base: &[&str] = &["f a=1", "f dir/b=1", "f dir/c=1", "f dir/sub/d=1", "l to>dir"];
        for (upper, expected) in [
            (
                &["f .wh.a"][..],
                &["dir/", "dir/b=1", "dir/c=1", "dir/sub/", "dir/sub/d=1", "to>dir"][..],
            ),
            (
                &["f ./dir/.wh.sub", "f .wh.none", "f no/.wh.x"],
                &["a=1", "dir/", "dir/b=1", "dir/c=1", "to>dir"],
            ),
            (&["f .wh.dir"], &["a=1", "to>dir"]),
            // Before or after the entries of its own layer, which stay.
            (&["f dir/.wh..wh..opq", "f dir/n=2"], &["a=1", "dir/", "dir/n=2", "to>dir"]),
            (
                &["f dir/n=2", "f dir/sub/m=2", "f dir/.wh..wh..opq"],
                &["a=1", "dir/", "dir/n=2", "dir/sub/", "dir/sub/m=2", "to>dir"],
            ),
            (&["f dir/n=2", "f .wh.dir"], &["a=1", "dir/", "dir/n=2", "to>dir"]),
            (
                &["f a=2", "f .wh.a"],
                &["a=2", "dir/", "dir/b=1", "dir/c=1", "dir/sub/", "dir/sub/d=1", "to>dir"],
            ),
            (
                &["d dir/sub", "f dir/.wh.sub"],
                &["a=1", "dir/", "dir/b=1", "dir/c=1", "dir/sub/", "to>dir"],
            ),
            // Through a symbolic link in the tree.
            (&["f to/.wh.sub", "f to/.wh.b"], &["a=1", "dir/", "dir/c=1", "to>dir"]),
            (&["f .wh..wh.plnk=x", "f .wh..wh..opq"], &[]),
        ] {
            assert_eq!(merge(&[base, upper]), expected, "{upper:?}");
        }
        // Of the same layer only, and of the layer before.
        assert_eq!(merge(&[&["f a=1", "f .wh.a"]]), ["a=1"]);
        assert_eq!(merge(&[&["f a=1"], &["f .wh.a"], &["f a=3"]]), ["a=3"]);
        assert!(merge(&[&["f a=1"], &["f b=1"], &["f .wh.a", "f .wh.b"]]).is_empty());
    }

    #[test]
    fn files_folders_and_links_replace_each_other() {
        for (layers, expected) in [
            (&[&["f x/a=1"][..], &["f x=2"]][..], &["x=2"][..]),
            (&[&["f x=1"], &["d x", "f x/a=2"]], &["x/", "x/a=2"]),
            (&[&["l x>y", "f y/a=1"], &["d x", "f x/b=2"]], &["x/", "x/b=2", "y/", "y/a=1"]),
            (&[&["l x>y", "f y/a=1"], &["f x/b=2"]], &["x>y", "y/", "y/a=1", "y/b=2"]),
            (&[&["f x/a=1"], &["l x>y"]], &["x>y"]),
            (&[&["f x/a=1"], &["d x", "f x/b=2"]], &["x/", "x/a=1", "x/b=2"]),
        ] {
            assert_eq!(merge(layers), expected, "{layers:?}");
        }
    }

    #[test]
    fn hard_links_cross_layers() {
        for (layers, expected) in [
            (&[&["f a=1"][..], &["h b>a"]][..], &["a=1**", "b=1**"][..]),
            // A link's name is of its layer, although its file is not.
            (&[&["f a=1"], &["h d/b>a", "f .wh.a", "f .wh.d", "f d/.wh.b"]], &["d/", "d/b=1"]),
            (&[&["f a=1", "h b>a"], &["f a=2"]], &["a=2", "b=1"]),
            (&[&["f a=1"], &["h b>c", "h c>d", "f d=2"]], &["a=1", "b=2***", "c=2***", "d=2***"]),
            (&[&["f a=1", "f b=1"], &["h b>a"]], &["a=1**", "b=1**"]),
            (&[&["f a=1", "f b/c=1"], &["h b>a"]], &["a=1**", "b=1**"]),
            (&[&["f a=1", "h b>a"], &["h b>a"]], &["a=1**", "b=1**"]),
        ] {
            assert_eq!(merge(layers), expected, "{layers:?}");
        }
    }

    #[test]
    fn hostile_entries_are_refused() {
        for layer in [
            &["f ../x"][..],
            &["f a/../.wh.b"],
            &["f ../.wh.x"],
            &["f .wh."],
            &["f a/.wh.."],
            &["f .wh..."],
            &["h a>nowhere"],
            &["h a>b", "h b>a"],
            &["h a>../../etc/passwd"],
            &["f a=1", "h a/b>a"],
            &["l loop>loop", "f loop/x"],
        ] {
            assert!(try_merge(&[&["f base=1"], layer]).is_err(), "{layer:?}");
        }
        // A folder that would become a link to a file in it.
        let inside: &[&str] = &["h x>x/a"];
        assert!(try_merge(&[&["f x/a=1"], inside]).is_err());
    }
}
