//! Files of an image that overlayfs hides.
//!
//! overlayfs interprets a character device 0:0 as a deletion and hides `trusted.overlay.*`
//! attributes (the kernel's Documentation/filesystems/overlayfs.rst): a root file system with
//! either must not be the lower layer of an overlay.

use std::collections::{HashSet, VecDeque};

use super::{ImageRecord, recipe};
use crate::ext4::{Kind, Node, NodeId, ROOT, Tree};

/// Prefix of the attributes that overlayfs interprets and hides.
const HIDDEN_XATTRS: &str = "trusted.overlay.";

/// Folders that the guest mounts from the image's disk, not through the overlay.
const NOT_OVERLAID: [&str; 4] =
    ["var/lib/docker", "var/lib/containerd", "var/lib/containers", "var/lib/rancher"];

impl ImageRecord {
    /// Whether an overlay shows all files of the image.
    ///
    /// # Errors
    /// The reason, as text after "not overlay: ": files that it hides, or an image of an earlier
    /// version, of which that is not known. Our own recipes never made such files.
    pub fn check_overlay(&self) -> Result<(), String> {
        match &self.hidden_by_overlay {
            Some(hidden) => Err(format!("an overlay does not show {hidden} of the image")),
            None if self.checked_for_overlay || recipe::made(&self.provenance) => Ok(()),
            None if self.built.is_some() => {
                Err("the image was built in a VM and is not checked for files that an overlay \
                     hides"
                    .into())
            }
            None => Err("an earlier version imported the image and did not check for files that \
                         an overlay hides: import it again"
                .into()),
        }
    }
}

/// Text with the first file or folder that an overlay of this tree hides, and the number of others;
/// `None` if there is none.
pub fn hidden(tree: &Tree) -> Option<String> {
    let not_overlaid: HashSet<NodeId> =
        NOT_OVERLAID.iter().filter_map(|path| tree.resolve(path)).collect();
    let mut folders = VecDeque::from([(ROOT, String::new())]);
    let (mut first, mut count) = (None, 0_u64);
    while let Some((id, path)) = folders.pop_front() {
        let Kind::Folder(names) = &tree.node(id).kind else { continue };
        for (name, child) in names {
            if not_overlaid.contains(child) {
                continue;
            }
            let node = tree.node(*child);
            let path = format!("{path}/{}", String::from_utf8_lossy(name));
            if is_hidden(node) {
                count += 1;
                first.get_or_insert_with(|| path.clone());
            }
            if matches!(node.kind, Kind::Folder(_)) {
                folders.push_back((*child, path));
            }
        }
    }
    let first: String = first?.chars().filter(|c| !c.is_control()).take(100).collect();
    Some(match count - 1 {
        0 => format!("`{first}`"),
        more => format!("`{first}` and {more} more"),
    })
}

fn is_hidden(node: &Node) -> bool {
    matches!(node.kind, Kind::Char { major: 0, minor: 0 })
        || node.xattrs.keys().any(|name| name.starts_with(HIDDEN_XATTRS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext4::Meta;

    fn device(tree: &mut Tree, path: &str, minor: u32) {
        tree.put(path, Kind::Char { major: 0, minor }, Meta::of_root(0)).unwrap();
    }

    #[test]
    fn deletions_and_attributes_are_found() {
        let mut tree = Tree::new();
        device(&mut tree, "dev/null", 3);
        assert_eq!(hidden(&tree), None);
        device(&mut tree, "opt/layers/gone", 0);
        assert_eq!(hidden(&tree).unwrap(), "`/opt/layers/gone`");
        let opaque = tree.put("opt/opaque", Kind::Folder(Default::default()), Meta::of_root(0o755));
        let node = tree.node_mut(opaque.unwrap());
        node.xattrs.insert("trusted.overlay.opaque".into(), b"y".to_vec());
        assert_eq!(hidden(&tree).unwrap(), "`/opt/opaque` and 1 more");
    }

    #[test]
    fn folders_of_engines_are_not_seen_through_an_overlay() {
        let mut tree = Tree::new();
        device(&mut tree, "var/lib/docker/overlay2/l1/diff/gone", 0);
        device(&mut tree, "data/containers/storage/gone", 0);
        tree.put(
            "var/lib/containers",
            Kind::Symlink("/data/containers".into()),
            Meta::of_root(0o777),
        )
        .unwrap();
        assert_eq!(hidden(&tree), None);
        device(&mut tree, "data/gone", 0);
        assert_eq!(hidden(&tree).unwrap(), "`/data/gone`");
    }
}
