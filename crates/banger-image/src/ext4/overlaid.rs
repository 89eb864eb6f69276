//! Joins the files of an image with the changes that an overlay keeps in its layer, as the guest
//! saw them: the kernel's Documentation/filesystems/overlayfs.rst.
//!
//! The layer comes from a guest. Nothing in it leads out of the two trees.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::tree::{Content, Kind, Node, NodeId, ROOT, Tree, TreeError};

/// Prefix of the attributes in which overlayfs keeps its own facts.
const OWN: &str = "trusted.overlay.";
/// Attributes of an overlay within the overlay, which overlayfs stores with this prefix.
const ESCAPED: &str = "trusted.overlay.overlay.";
/// Prefix of the attributes of the guest agent.
const AGENT: &str = "trusted.banger.";
/// Set by the agent on a folder that it has filled from the image.
const FILLED: (&str, &[u8]) = ("trusted.banger.seed", b"done");

/// The layer has something that cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum OverlaidError {
    /// A limit of the tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A file whose content is still in the image: `metacopy`, which banger does not use.
    #[error("the file `{0}` has only its attributes in the layer")]
    OnlyAttributes(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    /// The image.
    Lower,
    /// The changes in the layer.
    Upper,
    /// The layer as it is, without the meaning of an overlay.
    Plain,
}

struct Join<'a> {
    lower: &'a Tree,
    upper: &'a Tree,
    /// Added to the entry numbers of the layer's files.
    offset: u64,
    /// Files of the image, by inode, that the layer has in their place, wherever they are linked.
    indexed: HashMap<u64, NodeId>,
    /// Those files of the layer.
    shared: HashSet<NodeId>,
    /// First path of each file with several names.
    paths: HashMap<(Side, NodeId), Vec<u8>>,
    out: Tree,
}

/// The tree of an overlay: `lower` is the image, and `layer` has `upper`, `work` and `plain`, as
/// the agent makes them. The files of both have their inodes as entry numbers; those of the layer
/// are increased by `offset` in the result.
///
/// # Errors
/// A layer of another kind of overlay; limits of a tree.
pub fn join(lower: &Tree, layer: &Tree, offset: u64) -> Result<Tree, OverlaidError> {
    let indexed = indexed(layer);
    let shared = indexed.values().copied().collect();
    let (paths, out) = (HashMap::new(), Tree::new());
    let mut join = Join { lower, upper: layer, offset, indexed, shared, paths, out };
    let upper = child(layer, ROOT, b"upper").filter(|id| layer.names(*id).is_some());
    join.folders(vec![(Vec::new(), upper, Some(ROOT))])?;
    join.engines()?;
    Ok(join.out)
}

fn child(tree: &Tree, folder: NodeId, name: &[u8]) -> Option<NodeId> {
    tree.names(folder)?.get(name).copied()
}

/// The node of a path without symbolic links.
fn plain_path(tree: &Tree, path: &[u8]) -> Option<NodeId> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    let mut node = ROOT;
    for part in parts {
        node = child(tree, node, part)?;
    }
    Some(node)
}

/// The inode of the image, and the file of the layer that replaces it, for files with several
/// names: `index` of overlayfs has a link to each, named by the file handle in hexadecimal digits.
fn indexed(layer: &Tree) -> HashMap<u64, NodeId> {
    let index = plain_path(layer, b"work/index").and_then(|id| layer.names(id));
    let of = |(name, id): (&super::Name, &NodeId)| {
        let is_file = matches!(layer.node(*id).kind, Kind::File(_));
        Some((inode_of_handle(name)?, *id)).filter(|_| is_file)
    };
    index.into_iter().flatten().filter_map(of).collect()
}

/// The inode of a file handle: `struct ovl_fb` of the kernel's fs/overlayfs/overlayfs.h, which is
/// version, magic number, length, flags, type and the UUID of the file system; then, on ext4, the
/// inode and its generation (`FILEID_INO32_GEN`), little-endian.
fn inode_of_handle(hex: &[u8]) -> Option<u64> {
    let bytes = hex.chunks(2).map(|pair| {
        let text = std::str::from_utf8(pair).ok().filter(|text| text.len() == 2)?;
        u8::from_str_radix(text, 16).ok()
    });
    let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
    match bytes.as_slice() {
        [0, 0xfb, length, _, 1, rest @ ..] if usize::from(*length) == bytes.len() => {
            Some(u32::from_le_bytes(*rest.get(16..)?.first_chunk()?).into())
        }
        _ => None,
    }
}

/// Path, folder of the layer, folder of the image.
type Folders = Vec<(Vec<u8>, Option<NodeId>, Option<NodeId>)>;

fn below(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

impl Join<'_> {
    fn tree(&self, side: Side) -> &Tree {
        match side {
            Side::Lower => self.lower,
            Side::Upper | Side::Plain => self.upper,
        }
    }

    fn folders(&mut self, mut todo: Folders) -> Result<(), OverlaidError> {
        while let Some((path, upper, lower)) = todo.pop() {
            match (upper, lower) {
                (Some(id), _) => self.put(&path, Side::Upper, id)?,
                (None, Some(id)) => self.put(&path, Side::Lower, id)?,
                (None, None) => continue,
            }
            let (above, beneath) = (self.upper, self.lower);
            let names_of = |tree: &Tree, id: Option<NodeId>| {
                id.and_then(|id| tree.names(id).cloned()).unwrap_or_default()
            };
            let (uppers, lowers) = (names_of(above, upper), names_of(beneath, lower));
            for (name, id) in &uppers {
                let node = above.node(*id);
                let path = below(&path, name);
                match node.kind {
                    // A name that was deleted.
                    Kind::Char { major: 0, minor: 0 } => {}
                    Kind::Folder(_) => {
                        let hidden = self.beneath(node, name, lower, &lowers);
                        todo.push((path, Some(*id), hidden));
                    }
                    _ => self.put(&path, Side::Upper, *id)?,
                }
            }
            for (name, id) in lowers.iter().filter(|(name, _)| !uppers.contains_key(*name)) {
                let path = below(&path, name);
                match beneath.names(*id) {
                    Some(_) => todo.push((path, None, Some(*id))),
                    None => self.put_lower(&path, *id)?,
                }
            }
        }
        Ok(())
    }

    /// The folder of the image that a folder of the layer shows, too.
    fn beneath(
        &self,
        folder: &Node,
        name: &[u8],
        lower: Option<NodeId>,
        lowers: &BTreeMap<super::Name, NodeId>,
    ) -> Option<NodeId> {
        let fact = |name: &str| folder.xattrs.get(&format!("{OWN}{name}")).map(Vec::as_slice);
        if fact("opaque") == Some(b"y") {
            return None;
        }
        let found = match fact("redirect") {
            Some(path) if path.starts_with(b"/") => plain_path(self.lower, path),
            Some(sibling) => lower.and_then(|lower| child(self.lower, lower, sibling)),
            None => lowers.get(name).copied(),
        };
        found.filter(|id| self.lower.names(*id).is_some())
    }

    /// A file of the image, or the one that the layer has in its place.
    fn put_lower(&mut self, path: &[u8], id: NodeId) -> Result<(), OverlaidError> {
        if let Kind::File(Content::Source { index, .. } | Content::Sparse { index, .. }) =
            &self.lower.node(id).kind
            && let Some(changed) = self.indexed.get(index).copied()
        {
            return self.put(path, Side::Upper, changed);
        }
        self.put(path, Side::Lower, id)
    }

    fn put(&mut self, path: &[u8], side: Side, id: NodeId) -> Result<(), OverlaidError> {
        if let Some(first) = self.paths.get(&(side, id)) {
            return Ok(self.out.link(path, first)?);
        }
        let node = self.tree(side).node(id);
        let kind = match &node.kind {
            Kind::Folder(_) => Kind::Folder(BTreeMap::new()),
            Kind::File(content) if side != Side::Lower => {
                if side == Side::Upper && node.xattrs.contains_key("trusted.overlay.metacopy") {
                    let shown = String::from_utf8_lossy(path).chars().take(100).collect();
                    return Err(OverlaidError::OnlyAttributes(shown));
                }
                Kind::File(moved(content, self.offset))
            }
            other => other.clone(),
        };
        let is_file = !matches!(kind, Kind::Folder(_));
        let is_shared = side == Side::Upper && self.shared.contains(&id);
        let (meta, several) = (node.meta, node.links > 1 || is_shared);
        let mut xattrs = match side {
            Side::Upper => shown(&node.xattrs),
            Side::Lower | Side::Plain => node.xattrs.clone(),
        };
        xattrs.retain(|name, _| !name.starts_with(AGENT));
        let new = self.out.put(path, kind, meta)?;
        self.out.set_xattrs(new, xattrs)?;
        if is_file && several {
            self.paths.insert((side, id), path.to_vec());
        }
        Ok(())
    }

    /// The folders of container engines, which the agent has on the layer's ext4, not in the
    /// overlay: deletions and attributes of overlays in them are the engine's.
    fn engines(&mut self) -> Result<(), OverlaidError> {
        let plain = child(self.upper, ROOT, b"plain");
        let engines = plain.and_then(|id| self.upper.names(id)).cloned().unwrap_or_default();
        for (name, id) in engines {
            let node = self.upper.node(id);
            let is_filled = node.xattrs.get(FILLED.0).is_some_and(|state| state == FILLED.1);
            if !is_filled || self.upper.names(id).is_none() {
                continue;
            }
            let path = [&b"var/lib/"[..], &name].concat();
            // It may be a symbolic link.
            let path = match self.out.resolve(&path) {
                Some(target) => self.path_of(target).unwrap_or(path),
                None => path,
            };
            self.out.remove(&path);
            self.copy(path, id)?;
        }
        Ok(())
    }

    /// Copies a folder of the layer as it is.
    fn copy(&mut self, path: Vec<u8>, folder: NodeId) -> Result<(), OverlaidError> {
        let mut todo = vec![(path, folder)];
        while let Some((path, id)) = todo.pop() {
            self.put(&path, Side::Plain, id)?;
            for (name, id) in self.upper.names(id).cloned().unwrap_or_default() {
                todo.push((below(&path, &name), id));
            }
        }
        Ok(())
    }

    /// The path of a folder of the result.
    fn path_of(&self, wanted: NodeId) -> Option<Vec<u8>> {
        let mut todo = vec![(ROOT, Vec::new())];
        while let Some((id, path)) = todo.pop() {
            if id == wanted {
                return Some(path);
            }
            for (name, id) in self.out.names(id).into_iter().flatten() {
                if self.out.names(*id).is_some() {
                    todo.push((*id, below(&path, name)));
                }
            }
        }
        None
    }
}

/// The content with its entry number increased.
fn moved(content: &Content, by: u64) -> Content {
    match content.clone() {
        Content::Source { index, bytes } => Content::Source { index: index + by, bytes },
        Content::Sparse { index, bytes, data } => {
            Content::Sparse { index: index + by, bytes, data }
        }
        inline @ Content::Inline(_) => inline,
    }
}

/// The attributes that the overlay shows.
fn shown(xattrs: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let shown = xattrs.iter().filter_map(|(name, value)| {
        let name = match name.strip_prefix(ESCAPED) {
            Some(rest) => format!("{OWN}{rest}"),
            None if name.starts_with(OWN) => return None,
            None => name.clone(),
        };
        Some((name, value.clone()))
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext4::Meta;

    const BY: u64 = 1000;

    /// `d PATH`, `f PATH=INODE`, `l PATH>TARGET`, `h PATH>TARGET` (hard), `w PATH` (deleted),
    /// `x PATH=NAME=VALUE` (attribute).
    fn tree(lines: &[&str]) -> Tree {
        let mut tree = Tree::new();
        for line in lines {
            let (kind, rest) = line.split_at(2);
            let (path, value) = rest.split_once(['=', '>']).unwrap_or((rest, ""));
            let put = match kind {
                "d " => Kind::Folder(BTreeMap::new()),
                "f " => Kind::File(Content::Source { index: value.parse().unwrap(), bytes: 1 }),
                "l " => Kind::Symlink(value.into()),
                "w " => Kind::Char { major: 0, minor: 0 },
                "h " => {
                    tree.link(path, value).unwrap();
                    continue;
                }
                _ => {
                    let (name, value) = value.split_once('=').unwrap();
                    let id = tree.get(path).unwrap();
                    tree.node_mut(id).xattrs.insert(name.into(), value.into());
                    continue;
                }
            };
            tree.put(path, put, Meta::of_root(0o755)).unwrap();
        }
        tree
    }

    fn joined(lower: &[&str], layer: &[&str]) -> Vec<String> {
        let tree = join(&tree(lower), &tree(layer), BY).unwrap();
        let (mut lines, mut todo) = (Vec::new(), vec![(ROOT, Vec::new())]);
        while let Some((id, path)) = todo.pop() {
            for (name, id) in tree.names(id).unwrap() {
                let path = below(&path, name);
                let text = String::from_utf8(path.clone()).unwrap();
                let node = tree.node(*id);
                let xattrs: String = node.xattrs.keys().map(|name| format!(" {name}")).collect();
                lines.push(match &node.kind {
                    Kind::Folder(_) => {
                        todo.push((*id, path));
                        format!("{text}/{xattrs}")
                    }
                    Kind::File(Content::Source { index, .. }) => {
                        format!("{text}={index}{}{xattrs}", "*".repeat(node.links as usize - 1))
                    }
                    Kind::Symlink(target) => format!("{text}>{}", String::from_utf8_lossy(target)),
                    Kind::Char { major, minor } => format!("{text} {major}:{minor}"),
                    other => panic!("{other:?}"),
                });
            }
        }
        lines.sort();
        lines
    }

    #[test]
    fn changes_deletions_and_new_files_are_joined() {
        let image: &[&str] = &["f a=1", "f dir/b=2", "f dir/c=3", "f dir/sub/d=4", "l to>dir"];
        let layer: &[&str] = &[
            "d work/work",
            "f upper/a=1",
            "w upper/dir/b",
            "f upper/dir/n=2",
            "w upper/to",
            "f upper/new/x=3",
            "x upper/a=trusted.overlay.origin=?",
            "x upper/a=user.mine=1",
            "x upper/a=trusted.overlay.overlay.opaque=y",
            "x upper/new=trusted.banger.seed=done",
        ];
        let wanted = [
            "a=1001 trusted.overlay.opaque user.mine",
            "dir/",
            "dir/c=3",
            "dir/n=1002",
            "dir/sub/",
            "dir/sub/d=4",
            "new/",
            "new/x=1003",
        ];
        assert_eq!(joined(image, layer), wanted);
        let untouched = ["a=1", "dir/", "dir/b=2", "dir/c=3", "dir/sub/", "dir/sub/d=4", "to>dir"];
        assert_eq!(joined(image, &[]), untouched, "a VM that never ran");
    }

    #[test]
    fn opaque_and_renamed_folders_are_followed() {
        let image: &[&str] = &["f dir/b=1", "f dir/sub/c=2", "f other/d=3"];
        let opaque = &["f upper/dir/n=1", "x upper/dir=trusted.overlay.opaque=y"];
        assert_eq!(joined(image, opaque), ["dir/", "dir/n=1001", "other/", "other/d=3"]);
        let renamed = &[
            "w upper/dir",
            "f upper/moved/n=1",
            "x upper/moved=trusted.overlay.redirect=dir",
            "d upper/other/far",
            "x upper/other/far=trusted.overlay.redirect=/dir/sub",
        ];
        let wanted = [
            "moved/",
            "moved/b=1",
            "moved/n=1001",
            "moved/sub/",
            "moved/sub/c=2",
            "other/",
            "other/d=3",
            "other/far/",
            "other/far/c=2",
        ];
        assert_eq!(joined(image, renamed), wanted);
        // A link of the image does not lead elsewhere, and a place that is not there is none.
        let image: &[&str] = &["l etc>/", "f x=1"];
        for target in ["/etc", "../..", "/nowhere/x", "x"] {
            let fact = format!("x upper/d=trusted.overlay.redirect={target}");
            assert_eq!(joined(image, &["d upper/d", &fact]), ["d/", "etc>/", "x=1"], "{target}");
        }
    }

    #[test]
    fn a_changed_file_has_all_its_names() {
        let handle = format!("00fb1d0001{}07000000{}", "ab".repeat(16), "00000000");
        let index = format!("h work/index/{handle}>upper/dir/one");
        let image: &[&str] = &["f dir/one=7", "h dir/two>dir/one", "h three>dir/one", "f four=8"];
        let layer: &[&str] = &["f upper/dir/one=5", "d work/index", &index];
        assert_eq!(
            joined(image, layer),
            ["dir/", "dir/one=1005**", "dir/two=1005**", "four=8", "three=1005**"]
        );
        assert_eq!(inode_of_handle(handle.as_bytes()), Some(7));
        for bad in ["", "0", "zz", "00fb", "00fb1d0001", &handle[2..], &handle[..56]] {
            assert_eq!(inode_of_handle(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn folders_of_engines_are_taken_from_the_layer() {
        let image: &[&str] =
            &["f var/lib/docker/old=1", "l var/lib/containers>/data/c", "f data/c/x=2"];
        let layer: &[&str] = &[
            "f plain/docker/new=1",
            "w plain/docker/gone",
            "x plain/docker/new=trusted.overlay.opaque=y",
            "x plain/docker=trusted.banger.seed=done",
            "f plain/containers/y=2",
            "x plain/containers=trusted.banger.seed=done",
            "f plain/rancher/half=3",
            "x plain/rancher=trusted.banger.seed=begun",
        ];
        let wanted = [
            "data/",
            "data/c/",
            "data/c/y=1002",
            "var/",
            "var/lib/",
            "var/lib/containers>/data/c",
            "var/lib/docker/",
            "var/lib/docker/gone 0:0",
            "var/lib/docker/new=1001 trusted.overlay.opaque",
        ];
        assert_eq!(joined(image, layer), wanted);
    }

    #[test]
    fn a_file_without_its_content_is_refused() {
        let layer = tree(&["f upper/a=1", "x upper/a=trusted.overlay.metacopy="]);
        let error = join(&tree(&["f a=1"]), &layer, BY).unwrap_err();
        assert!(error.to_string().contains("`a`"), "{error}");
    }
}
