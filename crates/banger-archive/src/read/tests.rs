//! Descriptions that do not add up.

use super::*;
use crate::write::Writer;

fn file(segments: Vec<Segment>, size: u64) -> Entry {
    Entry {
        kind: Kind::File,
        path: b"f".to_vec(),
        link: Vec::new(),
        mode: 0o644,
        uid: 3_000_000,
        gid: 7,
        mtime_s: -5,
        mtime_ns: 250_000_000,
        size,
        segments: Some(segments),
        device: (0, 0),
    }
}

fn written(entry: &Entry) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    writer.entry(entry).unwrap();
    let length = usize::try_from(entry.data_bytes().min(1 << 20)).unwrap();
    writer.data(&vec![b'x'; length]).unwrap();
    writer.end_entry().unwrap();
    writer.finish().unwrap()
}

fn first(bytes: &[u8]) -> Result<Option<Entry>, Failure> {
    Reader::new(bytes).next_entry()
}

#[test]
fn a_description_comes_back_as_it_was() {
    let segments = vec![
        Segment { offset: 4096, length: 10 },
        Segment { offset: 1 << 33, length: 5 },
        Segment { offset: 1 << 40, length: 0 },
    ];
    let mut entry = file(segments, 1 << 40);
    entry.path = [b"odd \n\xff=".as_slice(), &[b'n'; 200]].concat();
    assert_eq!(first(&written(&entry)).unwrap(), Some(entry));
    let mut link = file(Vec::new(), 0);
    (link.kind, link.segments, link.link) = (Kind::Symlink, None, vec![b'l'; 300]);
    assert_eq!(first(&written(&link)).unwrap(), Some(link));
}

#[test]
fn maps_of_sparse_files_are_checked() {
    for (segments, size) in [
        (vec![(10, 10)], 15),
        (vec![(10, 10), (15, 1)], 100),
        (vec![(u64::MAX, 1)], u64::MAX),
        (vec![(0, 1)], MAX_FILE_BYTES + 1),
    ] {
        let one = |(offset, length)| Segment { offset, length };
        let entry = file(segments.into_iter().map(one).collect(), size);
        assert_eq!(first(&written(&entry)).unwrap_err().cause, crate::Cause::Archive, "{size}");
    }
}

#[test]
fn what_is_no_archive_says_so() {
    let failure = first(&[b'x'; 1024]).unwrap_err();
    assert_eq!(failure.to_string(), "this is not a tar archive, or it is damaged");
    assert_eq!(first(b"").unwrap_err().cause, crate::Cause::Stream);
    assert_eq!(first(&[0; 1024]).unwrap(), None);
}

#[test]
fn any_bytes_are_refused_or_read_within_limits() {
    let good = written(&file(vec![Segment { offset: 512, length: 700 }], 5000));
    for at in 0..good.len().min(2560) {
        for value in [0, b'7', 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            // The sum of the header again, so that the field itself is read.
            let block = at / 512 * 512;
            let mut header = Header::new_old();
            header.as_mut_bytes().copy_from_slice(&bytes[block..block + 512]);
            header.set_cksum();
            if block == 0 || block == 1024 {
                bytes[block..block + 512].copy_from_slice(header.as_bytes());
            }
            let mut reader = Reader::new(bytes.as_slice());
            while let Ok(Some(entry)) = reader.next_entry() {
                assert!(entry.size <= MAX_FILE_BYTES);
            }
        }
    }
}
