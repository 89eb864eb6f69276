//! Detects files that cannot be imported, with advice how to convert them.

use std::collections::BTreeMap;

use banger_api::hint::ImageAdvice;

use super::rootfs;
use crate::ext4::{Kind, Name, NodeId, ROOT, Tree, tar};

/// A file that is not an archive of a root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedFile {
    /// The file type, as the object of "is".
    pub what: String,
    /// How to convert it.
    pub advice: ImageAdvice,
}

impl UnsupportedFile {
    /// The same in a compressed file.
    #[must_use]
    pub fn compressed(self) -> Self {
        Self { what: format!("{}, compressed", self.what), ..self }
    }
}

/// Magic number: offset, bytes, file type, advice.
struct Magic(usize, &'static [u8], &'static str, ImageAdvice);

/// Magic numbers.
const MAGICS: [Magic; 28] = [
    Magic(0, b"KDMV", "a VMware disk image", ImageAdvice::ConvertDisk),
    Magic(0, b"# Disk DescriptorFile", "a VMware disk description", ImageAdvice::ConvertDisk),
    Magic(0, b"vhdxfile", "a VHDX disk image", ImageAdvice::ConvertDisk),
    Magic(0, b"conectix", "a VHD disk image", ImageAdvice::ConvertDisk),
    Magic(0x40, b"\x7f\x10\xda\xbe", "a VirtualBox disk image", ImageAdvice::ConvertDisk),
    Magic(0, b"LUKS\xba\xbe", "an encrypted disk image", ImageAdvice::PackMounted),
    Magic(0, b"\x3a\xff\x26\xed", "an Android sparse image", ImageAdvice::PackMounted),
    Magic(0, b"XFSB", "an XFS image", ImageAdvice::PackMounted),
    Magic(0, b"PK\x03\x04", "a zip archive", ImageAdvice::Unpack),
    Magic(0, b"PK\x05\x06", "an empty zip archive", ImageAdvice::Unpack),
    Magic(0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", ImageAdvice::Unpack),
    Magic(0, b"Rar!\x1a\x07", "a RAR archive", ImageAdvice::Unpack),
    Magic(0, b"MSWIM\0\0\0", "a Windows image", ImageAdvice::PackRootFs),
    Magic(0, b"070701", "a cpio archive", ImageAdvice::PackCpio),
    Magic(0, b"070702", "a cpio archive", ImageAdvice::PackCpio),
    Magic(0, b"070707", "a cpio archive", ImageAdvice::PackCpio),
    Magic(0, b"\xc7\x71", "a cpio archive", ImageAdvice::PackCpio),
    Magic(0, b"!<arch>\ndebian-binary", "a Debian package", ImageAdvice::InstallPackage),
    Magic(0, b"!<arch>\n", "an ar archive", ImageAdvice::Unpack),
    Magic(0, b"\xed\xab\xee\xdb", "an RPM package", ImageAdvice::InstallPackage),
    Magic(0, b"\x7fELF", "a program", ImageAdvice::PackRootFs),
    Magic(0, b"<!DOCTYPE", "an HTML page", ImageAdvice::DownloadAgain),
    Magic(0, b"<!doctype", "an HTML page", ImageAdvice::DownloadAgain),
    Magic(0, b"<html", "an HTML page", ImageAdvice::DownloadAgain),
    Magic(
        0,
        b"version https://git-lfs",
        "a pointer of Git LFS, not the file itself",
        ImageAdvice::DownloadAgain,
    ),
    Magic(1024, b"\xe2\xe1\xf5\xe0", "an EROFS image", ImageAdvice::PackMounted),
    Magic(0x8001, b"CD001", "an ISO image", ImageAdvice::PackMounted),
    Magic(0x10040, b"_BHRfS_M", "a btrfs image", ImageAdvice::PackMounted),
];

/// Finds the type of a file by the magic numbers in its first bytes.
pub fn by_magic(start: &[u8]) -> Option<UnsupportedFile> {
    let tar = start.get(..512).is_some_and(tar::is_header);
    let fits = |Magic(offset, bytes, ..): &&Magic| {
        start.get(*offset..*offset + bytes.len()) == Some(*bytes)
    };
    let Magic(_, _, what, advice) = MAGICS.iter().find(fits).filter(|_| !tar)?;
    Some(UnsupportedFile { what: (*what).to_owned(), advice: advice.clone() })
}

/// Folders of a typical root file system.
const STANDARD: [&[u8]; 13] = [
    b"bin", b"boot", b"dev", b"etc", b"home", b"lib", b"proc", b"root", b"run", b"sbin", b"tmp",
    b"usr", b"var",
];
/// Number of them that identifies a root file system.
const MIN_STANDARD: usize = 4;
/// Maximum depth at which a root file system is searched.
const DEPTH: usize = 4;

/// Checks the names of an archive for a container image and for a root file system in a folder.
pub fn in_tree(tree: &Tree) -> Option<UnsupportedFile> {
    let names = names(tree, ROOT)?;
    if standard(names) > 1 {
        return None;
    }
    let has = |name: &str| names.contains_key(name.as_bytes());
    if has("oci-layout") && has("index.json") && !has("manifest.json") {
        return Some(UnsupportedFile {
            what: "an OCI image layout, not a root file system".into(),
            advice: ImageAdvice::UnpackOci,
        });
    }
    if has("manifest.json") && (has("repositories") || has("oci-layout") || has("blobs"))
        || has("repositories") && names.len() > 1 && !rootfs::is_bootable(tree)
    {
        return Some(UnsupportedFile {
            what: "an archive of `docker save`, with the layers of images".into(),
            advice: ImageAdvice::ExportContainer,
        });
    }
    if has("index.json") && has("blobs") {
        return Some(UnsupportedFile {
            what: "an OCI image layout whose file `oci-layout` is missing".into(),
            advice: ImageAdvice::UnpackOci,
        });
    }
    if let Some(path) = container_below(tree, names) {
        return Some(UnsupportedFile {
            what: format!("no container image itself: that is in its folder `{path}`"),
            advice: ImageAdvice::PackFolder { path },
        });
    }
    let path = below(tree)?;
    Some(UnsupportedFile {
        what: format!("no root file system itself: that is in its folder `{path}`"),
        advice: ImageAdvice::PackFolder { path },
    })
}

fn names(tree: &Tree, id: NodeId) -> Option<&BTreeMap<Name, NodeId>> {
    match &tree.node(id).kind {
        Kind::Folder(names) => Some(names),
        _ => None,
    }
}

fn standard(names: &BTreeMap<Name, NodeId>) -> usize {
    STANDARD.iter().filter(|name| names.contains_key(**name)).count()
}

/// The only folder, if it is a container image: the archive was packed one level too high.
fn container_below(tree: &Tree, names: &BTreeMap<Name, NodeId>) -> Option<String> {
    let [(name, folder)] = names.iter().collect::<Vec<_>>()[..] else { return None };
    let inside = self::names(tree, *folder)?;
    let has = |name: &str| inside.contains_key(name.as_bytes());
    (has("oci-layout") && has("index.json") || has("manifest.json") && has("blobs"))
        .then(|| printable(&String::from_utf8_lossy(name)))
}

fn printable(path: &str) -> String {
    path.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// The path of the first folder below the root that looks like a root file system.
fn below(tree: &Tree) -> Option<String> {
    let mut level = vec![(ROOT, String::new())];
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for (id, path) in &level {
            for (name, child) in names(tree, *id).into_iter().flatten() {
                let Some(inside) = names(tree, *child) else { continue };
                let path = format!("{path}{}", String::from_utf8_lossy(name));
                if standard(inside) >= MIN_STANDARD {
                    return Some(printable(&path));
                }
                next.push((*child, path + "/"));
            }
        }
        level = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext4::Meta;
    use crate::images::rootfs::put_file;

    fn tree(paths: &[&str]) -> Tree {
        let mut tree = Tree::new();
        for path in paths {
            match path.strip_suffix('/') {
                Some(folder) => {
                    let kind = Kind::Folder(BTreeMap::new());
                    tree.put(folder, kind, Meta::of_root(0o755)).unwrap();
                }
                None => put_file(&mut tree, path, "", 0o755).unwrap(),
            }
        }
        tree
    }

    #[test]
    fn file_types_are_detected_by_magic_numbers() {
        for Magic(offset, bytes, what, _) in MAGICS {
            let mut file = vec![b' '; 70 << 10];
            file[offset..offset + bytes.len()].copy_from_slice(bytes);
            assert_eq!(by_magic(&file).unwrap().what, what);
        }
        assert_eq!(by_magic(&[0; 1 << 10]), None);
        assert_eq!(by_magic(b""), None);
        assert_eq!(by_magic(b"QF"), None);
    }

    #[test]
    fn archives_are_detected_by_their_names() {
        for (paths, wanted) in [
            (&["manifest.json", "repositories", "abc/layer.tar"][..], Some("docker save")),
            (&["manifest.json", "oci-layout", "index.json", "blobs/x"], Some("docker save")),
            (&["oci-layout", "index.json", "blobs/x"], Some("OCI image layout")),
            (&["index.json", "blobs/x"], Some("`oci-layout` is missing")),
            (&["web/oci-layout", "web/index.json", "web/blobs/x"], Some("in its folder `web`")),
            (&["web/manifest.json", "web/blobs/x"], Some("in its folder `web`")),
            (&["rootfs/bin/sh", "rootfs/etc/", "rootfs/dev/", "rootfs/usr/"], Some("`rootfs`")),
            (
                &[
                    "README",
                    "home/me/x/bin/sh",
                    "home/me/x/etc/",
                    "home/me/x/dev/",
                    "home/me/x/usr/",
                ],
                Some("`home/me/x`"),
            ),
            (&["bin/sh", "etc/", "srv/jail/bin/", "srv/jail/etc/", "srv/jail/dev/"], None),
            (&["app/bin/app", "app/etc/x"], None),
            (&["manifest.json", "bin/sh", "etc/x"], None),
        ] {
            let found = in_tree(&tree(paths)).map(|found| found.what);
            let fits = match (&found, wanted) {
                (Some(what), Some(wanted)) => what.contains(wanted),
                (found, wanted) => found.is_none() && wanted.is_none(),
            };
            assert!(fits, "{paths:?}: {found:?}");
        }
    }
}
