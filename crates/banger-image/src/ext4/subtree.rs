//! A folder of a tree as a tree of its own.

use std::collections::{BTreeMap, HashMap};

use super::tree::{Kind, NodeId, Tree, TreeError};

/// The folder at `path`, whose symbolic links are followed; `None` if there is none. Files keep
/// their entry numbers.
///
/// # Errors
/// Limits of a tree.
pub fn subtree(tree: &Tree, path: impl AsRef<[u8]>) -> Result<Option<Tree>, TreeError> {
    let Some(top) = tree.resolve(path).filter(|id| tree.names(*id).is_some()) else {
        return Ok(None);
    };
    let mut out = Tree::new();
    let mut first: HashMap<NodeId, Vec<u8>> = HashMap::new();
    let mut todo = vec![(top, Vec::new())];
    while let Some((id, path)) = todo.pop() {
        if let Some(first) = first.get(&id) {
            out.link(&path, first)?;
            continue;
        }
        let node = tree.node(id);
        let kind = match &node.kind {
            Kind::Folder(names) => {
                for (name, id) in names {
                    let below = if path.is_empty() {
                        name.to_vec()
                    } else {
                        [&path, &b"/"[..], name].concat()
                    };
                    todo.push((*id, below));
                }
                Kind::Folder(BTreeMap::new())
            }
            other => {
                if node.links > 1 {
                    first.insert(id, path.clone());
                }
                other.clone()
            }
        };
        let new = out.put(&path, kind, node.meta)?;
        out.set_xattrs(new, node.xattrs.clone())?;
    }
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext4::{Content, Meta};

    #[test]
    fn a_folder_is_found_through_links_and_keeps_its_own() {
        let mut tree = Tree::new();
        let file = |index| Kind::File(Content::Source { index, bytes: 1 });
        tree.put("data/home/a/b", file(7), Meta::of_root(0o600)).unwrap();
        tree.link("data/home/c", "data/home/a/b").unwrap();
        tree.link("elsewhere", "data/home/c").unwrap();
        tree.put("root", Kind::Symlink("/data/home".into()), Meta::of_root(0o777)).unwrap();
        let id = tree.resolve("root").unwrap();
        tree.node_mut(id).meta.mode = 0o750;
        let home = subtree(&tree, "root").unwrap().unwrap();
        assert_eq!(home.list(""), ["a", "c"]);
        let node = home.node(home.get("a/b").unwrap());
        assert_eq!((node.links, node.meta.mode), (2, 0o600));
        assert_eq!(home.get("c"), home.get("a/b"));
        assert_eq!(home.node(crate::ext4::ROOT).meta.mode, 0o750);
        assert!(subtree(&tree, "nowhere").unwrap().is_none());
        assert!(subtree(&tree, "elsewhere").unwrap().is_none(), "a file");
    }
}
