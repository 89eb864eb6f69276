//! The records of the file: a length (4 bytes), the start of a SHA-1 of the content (8 bytes), and
//! the content: a path and what is there, or that nothing is there any more.

use banger_sync_side::{Kind, Stamp};
use sha1::{Digest as _, Sha1};

use super::MAGIC;
use crate::tree::{BaseNode, Both, Children, Node, Seen, join, split};

pub(super) fn encode_tree(path: &[u8], node: &BaseNode, out: &mut Vec<u8>) {
    for (name, child) in node.children().into_iter().flatten() {
        let here = join(path, name);
        encode(&here, Some(child), out);
        encode_tree(&here, child, out);
    }
}

pub(super) fn encode(path: &[u8], node: Option<&BaseNode>, out: &mut Vec<u8>) {
    let mut record = Vec::new();
    put(path, &mut record);
    match node {
        None | Some(Node::Left(_)) => record.push(0),
        Some(Node::Folder(_)) => record.push(1),
        Some(Node::File { digest, program, seen }) => {
            record.push(if *program { 3 } else { 2 });
            record.extend_from_slice(digest);
            put_states(seen, &mut record);
        }
        Some(Node::Link { target, seen }) => {
            record.push(4);
            put(target, &mut record);
            put_states(seen, &mut record);
        }
    }
    put_record(&record, out);
}

pub(super) fn put_record(record: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&check(record));
    out.extend_from_slice(record);
}

fn check(record: &[u8]) -> [u8; 8] {
    let digest: [u8; 20] = Sha1::digest(record).into();
    let mut check = [0; 8];
    check.copy_from_slice(digest.get(..8).unwrap_or(&[0; 8]));
    check
}

fn put(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_states(both: &Both, out: &mut Vec<u8>) {
    for seen in [both.host, both.guest] {
        let Some(Seen { stamp, known_ns }) = seen else {
            out.push(0);
            continue;
        };
        out.push(match stamp.kind {
            Kind::File => 1,
            Kind::Program => 2,
            Kind::Folder => 3,
            Kind::Link => 4,
            Kind::Other => 5,
        });
        for number in [stamp.size, stamp.inode, stamp.mtime_ns, stamp.ctime_ns, known_ns] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

/// The records of a file, up to the first one that is not whole.
pub(super) fn records(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes.strip_prefix(MAGIC.as_slice()).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (sum, after) = after.split_first_chunk::<8>()?;
        let (record, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        rest = after;
        (check(record) == *sum).then_some(record)
    })
}

pub(super) fn decode(record: &[u8]) -> Option<(Vec<u8>, Option<BaseNode>)> {
    let mut rest = record;
    let path = take(&mut rest)?;
    let (kind, after) = rest.split_first()?;
    rest = after;
    let node = match kind {
        0 => None,
        1 => Some(Node::Folder(Children::new())),
        2 | 3 => {
            let (digest, after) = rest.split_first_chunk::<20>()?;
            rest = after;
            let seen = take_states(&mut rest)?;
            Some(Node::File { digest: *digest, program: *kind == 3, seen })
        }
        4 => Some(Node::Link { target: take(&mut rest)?, seen: take_states(&mut rest)? }),
        _ => return None,
    };
    (!split(&path).1.is_empty()).then_some((path, node))
}

fn take(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (bytes, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = after;
    Some(bytes.to_vec())
}

fn take_states(rest: &mut &[u8]) -> Option<Both> {
    let host = take_state(rest)?;
    Some(Both { host, guest: take_state(rest)? })
}

fn take_state(rest: &mut &[u8]) -> Option<Option<Seen>> {
    let (kind, after) = rest.split_first()?;
    *rest = after;
    let kind = match kind {
        0 => return Some(None),
        1 => Kind::File,
        2 => Kind::Program,
        3 => Kind::Folder,
        4 => Kind::Link,
        _ => Kind::Other,
    };
    let mut numbers = [0; 5];
    for number in &mut numbers {
        let (bytes, after) = rest.split_first_chunk::<8>()?;
        (*number, *rest) = (u64::from_le_bytes(*bytes), after);
    }
    let [size, inode, mtime_ns, ctime_ns, known_ns] = numbers;
    Some(Some(Seen { stamp: Stamp { kind, size, inode, mtime_ns, ctime_ns }, known_ns }))
}
