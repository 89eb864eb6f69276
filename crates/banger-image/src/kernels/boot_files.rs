//! Finds the kernel of a root file system: files of /boot, and of the folders of modules.
//!
//! ```text
//! boot/vmlinuz-<release>             Debian, Fedora, Void
//! boot/vmlinuz-virt                  Alpine: the release is in the file
//! lib/modules/<release>/vmlinuz      Fedora, Arch
//! ```

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{built_in, bzimage};
use crate::ext4::{Content, Kind, NodeId, Tree};

/// Bytes of a file that tell whether it is a kernel, and of which release: the setup code of a
/// bzImage.
pub const HEAD_BYTES: u64 = 64 << 10;
/// Maximum depth of folders below that of a release.
const DEPTH: usize = 32;
/// Symbolic links that name the kernel to boot by default (Debian's /etc/kernel-img.conf).
const DEFAULTS: [&str; 2] = ["vmlinuz", "boot/vmlinuz"];

/// The kernel of a root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its path, without a leading slash.
    pub path: String,
    /// `uname -r`, from the file.
    pub release: String,
    /// Its content.
    pub kernel: Content,
    /// Time of its file: seconds since 1970.
    pub built_s: i64,
    /// Folder of its modules.
    modules: Option<NodeId>,
}

impl Found {
    /// Regular files of its modules, by path below the folder of the release.
    pub fn modules<'a>(&self, tree: &'a Tree) -> Vec<(PathBuf, &'a Content)> {
        let mut files = Vec::new();
        let mut todo: Vec<(NodeId, PathBuf, usize)> =
            self.modules.map(|id| (id, PathBuf::new(), 0)).into_iter().collect();
        while let Some((id, path, depth)) = todo.pop() {
            match &tree.node(id).kind {
                Kind::Folder(names) if depth < DEPTH => {
                    let below = names
                        .iter()
                        .map(|(name, id)| (*id, path.join(OsStr::from_bytes(name)), depth + 1));
                    todo.extend(below);
                }
                // The kernel itself, in distributions that keep it there.
                Kind::File(content) if path != Path::new("vmlinuz") => files.push((path, content)),
                _ => {}
            }
        }
        files.sort_by(|(a, _), (b, _)| a.cmp(b));
        files
    }
}

/// Whether a file can be a kernel, by its path.
pub fn may_be_kernel(path: &[u8]) -> bool {
    let Ok(path) = std::str::from_utf8(path) else { return false };
    if let Some(name) = path.strip_prefix("boot/") {
        return !name.contains('/');
    }
    let below = path.strip_prefix("usr/").unwrap_or(path).strip_prefix("lib/modules/");
    below.and_then(|path| path.split_once('/')).is_some_and(|(_, name)| name == "vmlinuz")
}

/// The kernel to boot: among those with modules the default one of the distribution, else the
/// newest. `heads` are the first [`HEAD_BYTES`] of the files that [`may_be_kernel`].
pub fn find(tree: &Tree, heads: &BTreeMap<Vec<u8>, Vec<u8>>) -> Option<Found> {
    let defaults: Vec<NodeId> = DEFAULTS.iter().filter_map(|path| tree.resolve(path)).collect();
    let mut found: Vec<(bool, Found)> = heads
        .iter()
        .filter_map(|(path, head)| {
            let path = String::from_utf8(path.clone()).ok()?;
            let release = release(&path, head)?;
            let id = tree.get(&path)?;
            let node = tree.node(id);
            let Kind::File(kernel) = &node.kind else { return None };
            let modules = tree
                .resolve(format!("lib/modules/{release}"))
                .filter(|id| matches!(tree.node(*id).kind, Kind::Folder(_)));
            let (kernel, built_s) = (kernel.clone(), node.meta.mtime_s);
            Some((defaults.contains(&id), Found { path, release, kernel, built_s, modules }))
        })
        .collect();
    found.sort_by(|(a_default, a), (b_default, b)| {
        let with_modules = a.modules.is_some().cmp(&b.modules.is_some());
        let newer = || by_version(&a.release, &b.release);
        with_modules.then(a_default.cmp(b_default)).then_with(newer)
    });
    found.pop().map(|(_, found)| found)
}

/// The release of a kernel file: that in the header of a bzImage, or that in the name of an ELF
/// file.
fn release(path: &str, head: &[u8]) -> Option<String> {
    if let Some(release) = bzimage::release(head) {
        return built_in::is_release(&release).then_some(release);
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    let release = name.strip_prefix("vmlinux-")?;
    let is_elf = head.starts_with(b"\x7fELF");
    (is_elf && built_in::is_release(release)).then(|| release.to_owned())
}

/// Compares releases: runs of digits as numbers, everything else as text.
fn by_version(a: &str, b: &str) -> Ordering {
    parts(a).cmp(&parts(b)).then_with(|| a.cmp(b))
}

/// Parts of a release. A number is greater than text: 6.10 follows 6.9, and 6.1 follows 6.1-rc1
/// only by its text.
fn parts(release: &str) -> Vec<Result<u128, &str>> {
    let kind = |c: char| c.is_ascii_digit();
    let mut parts = Vec::new();
    let mut rest = release;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| kind(c) != kind(first)).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        parts.push(part.parse().map_err(|_| part));
        rest = after;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext4::Meta;

    fn put_file(tree: &mut Tree, path: &str) {
        let content = Content::Inline(b"content".to_vec());
        tree.put(path, Kind::File(content), Meta::of_root(0o644)).unwrap();
    }

    fn head(release: &str) -> Vec<u8> {
        let mut head = vec![0; 0x400];
        head[0x202..0x206].copy_from_slice(b"HdrS");
        head[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
        head[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        head[0x300..0x300 + release.len()].copy_from_slice(release.as_bytes());
        head[0x300 + release.len()] = b' ';
        head
    }

    /// Finds the kernel of a tree with these kernels and folders of modules.
    fn found(kernels: &[(&str, &str)], modules: &[&str], default: Option<&str>) -> Option<Found> {
        let (mut tree, mut heads) = (Tree::new(), BTreeMap::new());
        for (path, release) in kernels {
            put_file(&mut tree, path);
            let head = if release.is_empty() { b"text".to_vec() } else { head(release) };
            heads.insert(path.as_bytes().to_vec(), head);
        }
        for release in modules {
            let path = format!("usr/lib/modules/{release}/kernel/a.ko");
            put_file(&mut tree, &path);
        }
        let link = |target: &str| Kind::Symlink(target.as_bytes().to_vec());
        tree.put("lib", link("usr/lib"), Meta::of_root(0o777)).unwrap();
        if let Some(target) = default {
            tree.put("vmlinuz", link(target), Meta::of_root(0o777)).unwrap();
        }
        find(&tree, &heads).inspect(|found| {
            let files = found.modules(&tree);
            let expected = usize::from(modules.contains(&found.release.as_str()));
            assert_eq!(files.len(), expected);
            assert!(files.iter().all(|(path, _)| path == Path::new("kernel/a.ko")));
        })
    }

    #[test]
    fn the_newest_kernel_with_modules_is_found() {
        let path = |found: Option<Found>| found.map(|found| found.path);
        assert_eq!(found(&[], &["6.1"], None), None);
        assert_eq!(found(&[("boot/vmlinuz-6.1", "")], &["6.1"], None), None);
        let alpine = found(&[("boot/vmlinuz-virt", "6.18.56-0-virt")], &["6.18.56-0-virt"], None);
        assert_eq!(alpine.unwrap().release, "6.18.56-0-virt");
        let two = [("boot/vmlinuz-6.9.0-1", "6.9.0-1"), ("boot/vmlinuz-6.10.0-1", "6.10.0-1")];
        let both = ["6.9.0-1", "6.10.0-1"];
        assert_eq!(path(found(&two, &both, None)).unwrap(), "boot/vmlinuz-6.10.0-1");
        assert_eq!(path(found(&two, &both[..1], None)).unwrap(), "boot/vmlinuz-6.9.0-1");
        assert_eq!(path(found(&two, &[], None)).unwrap(), "boot/vmlinuz-6.10.0-1");
        let default = Some("boot/vmlinuz-6.9.0-1");
        assert_eq!(path(found(&two, &both, default)).unwrap(), "boot/vmlinuz-6.9.0-1");
    }

    #[test]
    fn only_files_of_these_places_are_kernels() {
        for path in ["boot/vmlinuz-6.1", "lib/modules/6.1/vmlinuz", "usr/lib/modules/6/vmlinuz"] {
            assert!(may_be_kernel(path.as_bytes()), "{path}");
        }
        for path in ["boot/grub/x", "vmlinuz", "lib/modules/6.1/kernel/vmlinuz", "usr/boot/x"] {
            assert!(!may_be_kernel(path.as_bytes()), "{path}");
        }
        // A release is joined to a path.
        assert_eq!(release("boot/vmlinuz-x", &head("../6.1")), None);
        assert_eq!(release("boot/vmlinux-6.1", b"\x7fELF").as_deref(), Some("6.1"));
        assert_eq!(release("boot/vmlinux-6.1", b"text"), None);
    }

    #[test]
    fn releases_are_ordered_by_their_numbers() {
        for (older, newer) in [("6.9.1", "6.10.0"), ("6.1.0-9", "6.1.0-56"), ("6.1", "6.1.1")] {
            assert_eq!(by_version(older, newer), Ordering::Less, "{older} {newer}");
        }
        assert_eq!(by_version("6.1.0-1-amd64", "6.1.0-1-amd64"), Ordering::Equal);
    }
}
