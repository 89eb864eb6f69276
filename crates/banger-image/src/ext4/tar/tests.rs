//! Tests with archives built field by field.

use super::*;
use crate::ext4::ROOT;
use crate::ext4::{Content, Kind, Meta, Tree};
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o4755);
    header.set_uid(1000);
    header.set_gid(3_000_000_000);
    header.set_mtime(1_700_000_000);
    header.set_size(size);
    header
}

fn archive(fill: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    fill(&mut builder);
    builder.into_inner().unwrap()
}

fn file(builder: &mut Builder<Vec<u8>>, path: &str, text: &str) {
    let mut header = header(EntryType::Regular, text.len() as u64);
    builder.append_data(&mut header, path, text.as_bytes()).unwrap();
}

/// An entry whose path is written as it is, which the builder would refuse.
fn raw(path: &[u8], kind: u8, size: u64) -> Vec<u8> {
    let mut header = header(EntryType::new(kind), size);
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn tree(bytes: &[u8]) -> Result<Tree, TarError> {
    read_with_warnings(bytes).map(|(tree, _)| tree)
}

/// The tree and the warnings.
fn read_with_warnings(bytes: &[u8]) -> Result<(Tree, Vec<String>), TarError> {
    let (mut tree, mut reader, mut pending) = (Tree::new(), Reader::new(bytes), Pending::default());
    while let Some(entry) = reader.next_entry()? {
        add(&mut tree, entry, &mut pending)?;
    }
    pending.finish(&mut tree)?;
    Ok((tree, reader.warnings().lines().collect()))
}

#[test]
fn long_names_attributes_and_owners_are_kept() {
    let long = format!("{}/ü{}", "d".repeat(150), "f".repeat(200));
    let bytes = archive(|builder| {
        file(builder, &long, "long");
        let records = [
            ("path", "short/päth".as_bytes()),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02".as_slice()),
            ("SCHILY.xattr.system.posix_acl_access", b"x"),
            ("SCHILY.xattr.security.selinux", b"x"),
            ("uid", b"70000"),
            ("mtime", b"1700000001.25"),
        ];
        builder.append_pax_extensions(records).unwrap();
        file(builder, "ignored", "pax");
        let mut device = header(EntryType::Char, 0);
        device.set_device_major(1).unwrap();
        device.set_device_minor(3).unwrap();
        builder.append_data(&mut device, "dev/null", &[][..]).unwrap();
        let mut same = header(EntryType::Link, 0);
        builder.append_link(&mut same, "hard", &long).unwrap();
    });
    let tree = tree(&bytes).unwrap();
    let first = tree.get(&long).unwrap();
    assert_eq!(tree.get("hard"), Some(first));
    let meta =
        Meta { mode: 0o4755, uid: 1000, gid: 3_000_000_000, mtime_s: 1_700_000_000, mtime_ns: 0 };
    assert_eq!(tree.node(first).meta, meta);
    let pax = tree.node(tree.get("short/päth").unwrap());
    assert_eq!(pax.xattrs.keys().collect::<Vec<_>>(), ["security.capability"]);
    let time = (pax.meta.uid, pax.meta.mtime_s, pax.meta.mtime_ns);
    assert_eq!(time, (70000, 1_700_000_001, 250_000_000));
    let null = tree.node(tree.get("dev/null").unwrap());
    assert_eq!(null.kind, Kind::Char { major: 1, minor: 3 });
    assert_eq!(tree.node(ROOT).meta.mode, 0o755);
}

#[test]
fn hostile_entries_are_refused() {
    let cases: [(&[u8], u8, u64, &str); 7] = [
        (b"../x", b'0', 0, "leads out"),
        (b"/../etc/passwd", b'0', 0, "leads out"),
        (b"a/../../x", b'5', 0, "leads out"),
        (b"names", b'L', 1 << 30, "damaged"),
        (b"pax", b'x', 1 << 30, "damaged"),
        (b"cut", b'0', 5000, "truncated"),
        (b"rest", b'M', 0, "multi-volume"),
    ];
    for (path, kind, size, why) in cases {
        let error = tree(&raw(path, kind, size)).unwrap_err().to_string();
        assert!(error.contains(why), "{path:?}: {error}");
    }
}

#[test]
fn a_truncated_archive_is_an_error_or_warned_about() {
    let bytes = archive(|builder| {
        file(builder, "a", "some text");
        file(builder, &format!("{}x", "n/".repeat(150)), &"x".repeat(2000));
    });
    assert_eq!(read_with_warnings(&bytes).unwrap().1, [""; 0]);
    let end_mark = bytes.len() - 1024;
    for length in 0..=end_mark {
        match read_with_warnings(&bytes[..length]) {
            Err(_) => {}
            Ok((_, warnings)) => {
                assert!(warnings[0].contains("no end mark"), "{length} of {}", bytes.len());
                // At the end of the header and the text of `a` and its padding, or at the end.
                let plausible = (521..=1024).contains(&length) || length >= end_mark - 48;
                assert!(plausible, "{length} of {}", bytes.len());
            }
        }
    }
    assert!(matches!(tree(&[0; 1024]), Err(TarError::Empty)));
    assert!(matches!(tree(b""), Err(TarError::Empty)));
}

/// A header with these raw fields and a valid checksum.
fn with(path: &[u8], kind: u8, fields: &[(usize, &[u8])], content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_old();
    let old = header.as_old_mut();
    old.name[..path.len()].copy_from_slice(path);
    old.mode.copy_from_slice(b"0000644\0");
    old.mtime.copy_from_slice(b"00000000012\0");
    header.set_size(content.len() as u64);
    header.set_entry_type(EntryType::new(kind));
    for (at, field) in fields {
        header.as_mut_bytes()[*at..*at + field.len()].copy_from_slice(field);
    }
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

#[test]
fn odd_entries_are_read_as_gnu_tar_reads_them() {
    let parts = [
        with(b"label", b'V', &[], b""),
        with(b"g", b'g', &[], b"12 uid=1234\n"),
        with(b"/absolute", b'0', &[], b"hi"),
        with(b"caf\xe9", b'7', &[(108, &[0; 8]), (116, b"        ")], b"hi"),
        with(b"what", b'Z', &[], b"hi"),
        with(b"old/", 0, &[], b""),
        with(b"dump/", b'D', &[], b"Yhi\0\0"),
        with(b"early", b'0', &[(136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe")], b""),
        with(b"later", b'1', &[(157, b"/target")], b""),
        with(b"target", b'0', &[], b"hi"),
        with(b"self", b'2', &[(157, b"\xff")], b""),
        with(b"L", b'L', &[], &[&[b'n'; 120][..], &[0; 4]].concat()),
        with(b"n", b'0', &[], b"hi"),
        with(b"x", b'x', &[], b"8 uid=7\n\0\0"),
        with(b"./", b'5', &[(100, b"0000700\0")], b""),
    ];
    let (tree, warnings) = read_with_warnings(&parts.concat()).unwrap();
    let meta = |path: &[u8]| tree.node(tree.get(path).unwrap()).meta;
    let is_file = |path: &[u8], bytes| match &tree.node(tree.get(path).unwrap()).kind {
        Kind::File(content) => content.bytes() == bytes,
        _ => false,
    };
    for path in [b"absolute".as_slice(), b"caf\xe9", b"what", b"later", &[b'n'; 120]] {
        assert!(is_file(path, 2), "{path:?}");
    }
    assert_eq!(tree.get("later"), tree.get("target"));
    assert_eq!((meta(b"absolute").uid, meta(b"absolute").mtime_s), (1234, 10));
    assert_eq!(meta(b"early").mtime_s, -2);
    assert_eq!((tree.node(ROOT).meta.uid, tree.node(ROOT).meta.mode), (7, 0o700));
    let link = tree.node(tree.get("self").unwrap());
    assert_eq!((&link.kind, link.meta.mode), (&Kind::Symlink(b"\xff".to_vec()), 0o777));
    assert!(matches!(tree.node(tree.get("dump").unwrap()).kind, Kind::Folder(_)));
    let expected = [
        "removed the leading `/` from member names: `/absolute` and 1 other",
        "read entries of an unknown type as files: `what`",
        "the archive has no end mark and may be truncated",
    ];
    assert_eq!(warnings, expected);
}

#[test]
fn a_hard_link_to_nothing_is_refused() {
    let parts =
        [with(b"a", b'1', &[(157, b"b")], b""), with(b"b", b'1', &[(157, b"nowhere")], b"")];
    let error = tree(&parts.concat()).unwrap_err().to_string();
    assert!(error.contains("hard link"), "{error}");
}

#[test]
fn checksums_of_signed_bytes_count_too() {
    let mut bytes = with(b"caf\xe9", b'0', &[], b"hi");
    let text = std::str::from_utf8(&bytes[148..155]).unwrap().trim_end_matches('\0');
    let sum = u32::from_str_radix(text, 8).unwrap() - 256;
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert!(tree(&bytes).is_ok());
    bytes[0] = b'x';
    assert!(tree(&bytes).is_err());
}

fn extents(pairs: &[(u64, u64)]) -> Vec<u8> {
    let field = |number: &u64| format!("{number:011o}\0").into_bytes();
    pairs.iter().flat_map(|(offset, bytes)| [field(offset), field(bytes)].concat()).collect()
}

#[test]
fn every_sparse_format_gives_the_same_file() {
    let pairs = [(4096, 3), (16_384, 2), (20_480, 0)];
    let pax = |text: &str| with(b"x", b'x', &[], text.as_bytes());
    let record = |key: &str, value: &str| {
        let rest = key.len() + value.len() + 3;
        let length = (rest + 1..).find(|n| n.to_string().len() + rest == *n).unwrap();
        format!("{length} {key}={value}\n")
    };
    let mut map = b"3\n4096\n3\n16384\n2\n20480\n0\n".to_vec();
    map.resize(512, 0);
    // Extents in the header, and one in a block after it.
    let mut more = extents(&pairs[2..]);
    more.resize(512, 0);
    let mut old = with(b"holes", b'S', &[(386, &extents(&pairs[..2])), (482, b"\x01")], b"abcde");
    old.splice(512..512, more);
    old[483..495].copy_from_slice(b"00000050000\0");
    let mut header = Header::new_old();
    header.as_mut_bytes().copy_from_slice(&old[..512]);
    header.set_cksum();
    old[..512].copy_from_slice(header.as_bytes());
    let zero = [
        ("size", "20480"),
        ("numblocks", "2"),
        ("offset", "4096"),
        ("numbytes", "3"),
        ("offset", "16384"),
        ("numbytes", "2"),
    ];
    let zero: String =
        zero.map(|(key, value)| record(&format!("GNU.sparse.{key}"), value)).concat();
    let one = [("name", "holes"), ("size", "20480"), ("map", "4096,3,16384,2")];
    let one: String = one.map(|(key, value)| record(&format!("GNU.sparse.{key}"), value)).concat();
    let ten = [("major", "1"), ("minor", "0"), ("name", "holes"), ("realsize", "20480")];
    let ten: String = ten.map(|(key, value)| record(&format!("GNU.sparse.{key}"), value)).concat();
    let cases = [
        old,
        [pax(&zero), with(b"holes", b'0', &[], b"abcde")].concat(),
        [pax(&one), with(b"GNUSparseFile.1/holes", b'0', &[], b"abcde")].concat(),
        [pax(&ten), with(b"GNUSparseFile.1/x", b'0', &[], &[&map[..], b"abcde"].concat())].concat(),
    ];
    for (number, bytes) in cases.iter().enumerate() {
        let bytes = [bytes, &with(b"next", b'0', &[], b"next")[..]].concat();
        let mut reader = Reader::new(bytes.as_slice());
        let entry = reader.next_entry().unwrap().unwrap();
        assert_eq!(entry.path, b"holes", "case {number}");
        let EntryKind::Node(Kind::File(Content::Sparse { bytes: 20_480, data, .. })) = entry.kind
        else {
            panic!("case {number}: {entry:?}");
        };
        let wanted = [(4096, 4096), (16_384, 4096)];
        assert_eq!(data.iter().map(|e| (e.offset, e.bytes)).collect::<Vec<_>>(), wanted);
        let mut content = Vec::new();
        reader.content().read_to_end(&mut content).unwrap();
        assert_eq!(content.len(), 8192);
        assert_eq!((&content[..3], &content[4096..4098]), (&b"abc"[..], &b"de"[..]));
        assert_eq!(reader.next_entry().unwrap().unwrap().path, b"next", "case {number}");
    }
    for wrong in ["4096,3,16384,200", "16384,2,4096,3", "4096,3,16384,9999"] {
        let text = record("GNU.sparse.map", wrong) + &record("GNU.sparse.size", "20480");
        let bytes = [pax(&text), with(b"x", b'0', &[], b"abcde")].concat();
        assert!(tree(&bytes).is_err(), "{wrong}");
    }
}

#[test]
fn sizes_from_pax_headers_count() {
    let text = "x".repeat(1000);
    let mut bytes = archive(|builder| {
        builder.append_pax_extensions([("size", b"1000".as_slice())]).unwrap();
    });
    bytes.truncate(1024);
    bytes.extend(raw(b"big", b'0', 0));
    bytes.extend(text.as_bytes());
    bytes.extend([0; 24 + 1024]);
    let tree = tree(&bytes).unwrap();
    assert_eq!(tree.content_bytes(), 1000);
}

proptest! {
    #[test]
    fn damaged_archives_do_not_panic(changes in proptest::collection::vec(
        (0..6000_usize, any::<u8>()), 0..30), cut in 0..6000_usize) {
        let mut bytes = archive(|builder| {
            builder.append_pax_extensions([("mtime", b"1.5".as_slice())]).unwrap();
            file(builder, "a", "text");
            file(builder, &format!("{}x", "n/".repeat(150)), "more");
        });
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(cut.max(512));
        let _ = tree(&bytes);
    }
}
