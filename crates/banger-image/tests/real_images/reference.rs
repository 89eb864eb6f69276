//! Our ext4 beside that of `mke2fs -d`: the same folder, the same file system.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use banger_image::ext4::folder::{self, Metadata};
use banger_image::ext4::{Content, Kind, Meta, Plan, Purpose, Tree, build};
use banger_image::ext4::{Contents, Ext4Error, Fill};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{ask, content, fsck, listing, run};

fn plan(purpose: Purpose) -> Plan {
    Plan { purpose, label: "test".into(), uuid: *b"0123456789abcdef" }
}

fn fill(folder: &Path) {
    fs::create_dir_all(folder.join("etc/deep/deeper")).unwrap();
    fs::write(folder.join("etc/text"), "some text").unwrap();
    fs::write(folder.join("etc/empty"), "").unwrap();
    fs::write(folder.join("etc/blocks"), vec![7; 3 * 4096]).unwrap();
    fs::write(folder.join("etc/deep/deeper/large"), vec![1; 5_000_001]).unwrap();
    fs::hard_link(folder.join("etc/text"), folder.join("etc/deep/same")).unwrap();
    symlink("../text", folder.join("etc/deep/short")).unwrap();
    symlink("x/".repeat(100), folder.join("etc/long")).unwrap();
    fs::set_permissions(folder.join("etc/text"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(folder.join("etc/deep"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::create_dir(folder.join("many")).unwrap();
    for number in 0..3000 {
        let name = format!("many/a rather long name of a file, number {number}");
        fs::write(folder.join(name), number.to_string()).unwrap();
    }
}

#[test]
fn a_folder_image_equals_that_of_mke2fs() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    fill(&source);
    let (ours, reference) = (temp.path().join("ours"), temp.path().join("reference"));
    let (tree, mut contents) = folder::read(&source, "", Metadata::Kept).unwrap();
    build(&tree, &mut contents, &plan(Purpose::Root), &ours).unwrap();
    let folder = source.to_str().unwrap();
    let size = fs::metadata(&ours).unwrap().len() / 1024;
    let (target, size) = (reference.to_str().unwrap(), format!("{size}k"));
    run("mke2fs", &["-q", "-t", "ext4", "-b", "4096", "-d", folder, target, &size], "");
    fsck(&ours);
    let strip = |image: &Path| {
        let mut all = listing(image);
        for listed in all.values_mut() {
            listed.inode = String::new();
            // Folders have as many blocks as each of the two thinks right.
            if listed.mode.starts_with("04") {
                listed.bytes = String::new();
            }
        }
        all
    };
    let (left, right) = (strip(&ours), strip(&reference));
    assert!(!left.is_empty());
    assert_eq!(left, right);
    for path in ["/etc/text", "/etc/blocks", "/etc/deep/deeper/large", "/etc/deep/same"] {
        assert_eq!(content(&ours, path), content(&reference, path), "{path}");
    }
    let inodes = listing(&ours);
    assert_eq!(inodes["/etc/text"].inode, inodes["/etc/deep/same"].inode, "hard link");
    let many = "many/a rather long name of a file, number 2718";
    assert_eq!(content(&ours, &format!("/{many}")), "2718", "found through the index");
}

#[test]
fn the_same_folder_always_gives_the_same_bytes() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    fill(&source);
    let images: Vec<Vec<u8>> = ["one", "two"]
        .into_iter()
        .map(|name| {
            let path = temp.path().join(name);
            let (tree, mut contents) = folder::read(&source, "x", Metadata::Uniform(5)).unwrap();
            build(&tree, &mut contents, &plan(Purpose::ReadOnly), &path).unwrap();
            let text = source.join("etc/text");
            fs::set_permissions(text, fs::Permissions::from_mode(0o600)).unwrap();
            fs::read(path).unwrap()
        })
        .collect();
    assert!(images[0] == images[1]);
}

/// All contents are in the tree.
struct Nothing;

impl Contents for Nothing {
    fn each(&mut self, _fill: &mut Fill<'_>) -> Result<(), Ext4Error> {
        Ok(())
    }
}

/// Text in Latin 1: names that are not UTF-8.
fn latin(text: &str) -> Vec<u8> {
    text.chars().filter_map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

/// All paths of an image.
fn paths(image: &Path) -> BTreeSet<Vec<u8>> {
    let file = fs::File::open(image).unwrap();
    let ext4 = mkext4::reader::Fs::open(&file).unwrap();
    let (mut all, mut todo) = (BTreeSet::new(), vec![(mkext4::spec::ROOT_INO, Vec::new())]);
    while let Some((folder, path)) = todo.pop() {
        for entry in ext4.read_dir(folder).unwrap() {
            let below = [&path[..], b"/", &entry.name].concat();
            if matches!(&entry.name[..], b"." | b"..") || below == b"/lost+found" {
                continue;
            }
            if entry.file_type == 2 {
                todo.push((entry.inode, below.clone()));
            }
            all.insert(below);
        }
    }
    all
}

/// All paths of a tree.
fn tree_paths(tree: &Tree) -> BTreeSet<Vec<u8>> {
    let (mut all, mut todo) = (BTreeSet::new(), vec![(banger_image::ext4::ROOT, Vec::new())]);
    while let Some((folder, path)) = todo.pop() {
        let Kind::Folder(names) = &tree.node(folder).kind else { continue };
        for (name, id) in names {
            let below = [&path[..], b"/", name].concat();
            todo.push((*id, below.clone()));
            all.insert(below);
        }
    }
    all
}

#[test]
fn any_tree_gives_a_clean_file_system_with_all_of_it() {
    let node = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..20_000)
            .prop_map(|bytes| Kind::File(Content::Inline(bytes))),
        "[a-zé/]{1,200}".prop_map(|text: String| Kind::Symlink(latin(&text))),
        (0..4096_u32, 0..1_048_576_u32).prop_map(|(major, minor)| Kind::Char { major, minor }),
        Just(Kind::Fifo),
    ];
    let path = "[a-dü]{1,60}(/[a-dé]{1,3}){0,4}";
    let meta = (0..0o10000_u16, any::<u32>(), any::<u32>(), -2_000_000_000..15_000_000_000_i64)
        .prop_map(|(mode, uid, gid, mtime_s)| Meta { mode, uid, gid, mtime_s, mtime_ns: 5 });
    let value = proptest::collection::vec(any::<u8>(), 0..500);
    let entries = proptest::collection::vec((path, node, meta, value), 0..60);
    let temp = tempfile::tempdir().unwrap();
    let image = temp.path().join("image");
    let mut runner = TestRunner::new(Config::with_cases(12));
    runner
        .run(&entries, |entries| {
            let mut tree = Tree::new();
            for (path, kind, meta, value) in entries {
                let path = latin(&path);
                // One may lie below another that is no folder.
                let Ok(id) = tree.put(&path, kind, meta) else { continue };
                let xattrs = [("user.test".to_owned(), value)].into_iter().collect();
                tree.set_xattrs(id, xattrs).unwrap();
            }
            let _ = fs::remove_file(&image);
            build(&tree, &mut Nothing, &plan(Purpose::ReadOnly), &image).unwrap();
            fsck(&image);
            prop_assert_eq!(paths(&image), tree_paths(&tree));
            Ok(())
        })
        .unwrap();
}

#[test]
fn devices_attributes_and_large_ids_are_kept() {
    let mut tree = Tree::new();
    let meta = Meta { mode: 0o620, uid: 3_000_000_000, gid: 70_000, mtime_s: 1, mtime_ns: 0 };
    let id = tree.put("dev/sdz", Kind::Block { major: 259, minor: 70_000 }, meta).unwrap();
    let value = b"\x01\0\0\x02\0\x20\0\0".to_vec();
    let xattrs = [("security.capability".to_owned(), value)].into_iter().collect();
    tree.set_xattrs(id, xattrs).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let image = temp.path().join("image");
    build(&tree, &mut Nothing, &plan(Purpose::ReadOnly), &image).unwrap();
    fsck(&image);
    let listed = &listing(&image)["/dev/sdz"];
    // debugfs takes the id for a signed number.
    let uid = 3_000_000_000_u32.cast_signed().to_string();
    assert_eq!((listed.uid.as_str(), listed.gid.as_str()), (uid.as_str(), "70000"));
    assert_eq!(listed.mode, "060620");
    let device = ask(&image, "stat /dev/sdz");
    assert!(device.contains("259:70000"), "{device}");
    let attributes = ask(&image, "ea_list /dev/sdz");
    assert!(attributes.contains("security.capability (8) = 01 00 00 02 00 20 00 00"));
}
