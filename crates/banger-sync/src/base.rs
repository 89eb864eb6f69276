//! The base: what both sides last agreed on, in a file that is saved after each round.
//!
//! The file is a list of records, each of a length (4 bytes), the start of a SHA-1 of its content
//! (8 bytes), and the content: a path and what is there, or that nothing is there any more. A round
//! appends the records of its changes; a record that a kill cut off ends the file. When the changes
//! have grown, the whole file is written anew and renamed. A base that misses the last changes
//! costs no file: what both sides have alike is agreed on again, the rest becomes a conflict.
//!
//! Until the first list is saved, a mark stands in its place: a side that is empty then was
//! emptied, and is not filled again. The mark also replaces a list that says nothing about the
//! present folders: if one has another [`Identity`], or the guest's was removed or renamed and has
//! none. Then both are joined as at the first start, and none loses a file.

mod records;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use banger_sync_side::Identity;
use sha1::{Digest as _, Sha1};

use self::records::{decode, encode, encode_tree, put_record, records};
use crate::scope::Scope;
use crate::tree::{BaseNode, Both, Node, Seen, SideNode, join};

/// First bytes of the file.
const MAGIC: &[u8; 8] = b"bngsync1";
/// Most bytes of the file that are read: a million entries.
const MAX_BYTES: u64 = 1 << 30;
/// Records after which the whole file is written.
const MIN_RECORDS: usize = 4096;

/// The record of the mark; that of a file begins with a path.
const MARK: &[u8] = b"begun";

/// Begins of the records of the folders' identities, which two numbers of 8 bytes follow.
const IDENTITIES: [&[u8]; 2] = [b"host", b"guest"];

/// What tells the folders of host and guest apart from others in their places, if it is known.
pub type Identities = [Option<Identity>; 2];

fn decode_identity(record: &[u8]) -> Option<(usize, Identity)> {
    let of = |begin: &&[u8]| record.starts_with(begin) && record.len() == begin.len() + 16;
    let side = IDENTITIES.iter().position(of)?;
    let (inode, born) = record.strip_prefix(*IDENTITIES.get(side)?)?.split_first_chunk::<8>()?;
    let born_ns = u64::from_le_bytes(born.try_into().ok()?);
    Some((side, Identity { inode: u64::from_le_bytes(*inode), born_ns }))
}

/// Name of the file for two folders.
pub fn file_name(host: &[u8], guest: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(host);
    hash.update([0]);
    hash.update(guest);
    let digest: [u8; 20] = hash.finalize().into();
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}.base")
}

/// Takes what both sides have alike within `scope` into the base, and drops what neither has.
/// `state` gives the states of a file; `changed` is called with each path whose entry in the base
/// changed.
pub fn settle<B, H, G>(
    base: &mut Node<B>,
    (host, guest): (&Node<H>, &Node<G>),
    scope: Scope<'_>,
    state: &mut impl FnMut(&H, &G) -> B,
    changed: &mut impl FnMut(&[u8], Option<&Node<B>>),
) {
    settle_folder(b"", base, (host, guest), scope, &mut Hooks { state, changed });
}

/// What [`settle`] calls.
struct Hooks<'a, S, C> {
    state: &'a mut S,
    changed: &'a mut C,
}

fn settle_folder<B, H, G, S, C>(
    path: &[u8],
    base: &mut Node<B>,
    (host, guest): (&Node<H>, &Node<G>),
    scope: Scope<'_>,
    hooks: &mut Hooks<'_, S, C>,
) where
    S: FnMut(&H, &G) -> B,
    C: FnMut(&[u8], Option<&Node<B>>),
{
    let (Node::Folder(known), Some(ours), Some(theirs)) = (base, host.children(), guest.children())
    else {
        return;
    };
    let names: BTreeSet<Vec<u8>> = match scope.names() {
        Some(some) => some.cloned().collect(),
        None => known.keys().chain(ours.keys()).chain(theirs.keys()).cloned().collect(),
    };
    for name in names {
        let here = join(path, &name);
        match (ours.get(&name), theirs.get(&name)) {
            (None, None) if known.remove(&name).is_some() => (hooks.changed)(&here, None),
            (None, None) => {}
            (Some(host), Some(guest)) if host.is_like(guest) => {
                let is_known = known.get(&name).is_some_and(|base| base.is_like(host));
                let below = if is_known { scope.below(&name) } else { Some(Scope::All) };
                if !is_known {
                    let node = agreed(host, guest, hooks.state);
                    (hooks.changed)(&here, Some(&node));
                    known.insert(name.clone(), node);
                }
                let Some(base) = known.get_mut(&name) else { continue };
                renew(base, host, guest, hooks.state);
                if let Some(below) = below {
                    settle_folder(&here, base, (host, guest), below, hooks);
                }
            }
            _ => {}
        }
    }
}

/// Takes the present states of a file.
fn renew<B, H, G>(
    base: &mut Node<B>,
    host: &Node<H>,
    guest: &Node<G>,
    state: &mut impl FnMut(&H, &G) -> B,
) {
    if let (
        Node::File { seen, .. } | Node::Link { seen, .. },
        Node::File { seen: host, .. } | Node::Link { seen: host, .. },
        Node::File { seen: guest, .. } | Node::Link { seen: guest, .. },
    ) = (base, host, guest)
    {
        *seen = state(host, guest);
    }
}

/// The base's node for two nodes that are alike, without the content of a folder.
fn agreed<B, H, G>(
    host: &Node<H>,
    guest: &Node<G>,
    state: &mut impl FnMut(&H, &G) -> B,
) -> Node<B> {
    match (host, guest) {
        (Node::File { digest, program, seen }, Node::File { seen: other, .. }) => {
            Node::File { digest: *digest, program: *program, seen: state(seen, other) }
        }
        (Node::Link { target, seen }, Node::Link { seen: other, .. }) => {
            Node::Link { target: target.clone(), seen: state(seen, other) }
        }
        _ => Node::folder(),
    }
}

/// The base in its file.
pub struct Base {
    path: PathBuf,
    identities: Identities,
    root: BaseNode,
    /// Whether the file has the mark only.
    is_marked: bool,
    /// Whether the file has the mark, or is a list with more than one node.
    is_kept: bool,
    file: Option<File>,
    /// Records since the whole file was written.
    records: usize,
    /// Encoded records that are not saved yet.
    unsaved: Vec<u8>,
}

/// Changes that go to the file as soon as both sides are on their disks.
#[derive(Debug)]
pub struct Pending {
    bytes: Vec<u8>,
    /// Whether they replace the file.
    is_whole: bool,
    /// Whether the file tells anything then.
    is_kept: bool,
    /// Whether the file had the mark only.
    was_marked: bool,
}

impl Base {
    /// Reads the base; a file that is missing, damaged at its beginning or of another version is an
    /// empty base.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let bytes = match fs::metadata(path) {
            Ok(meta) if meta.len() <= MAX_BYTES => fs::read(path)?,
            Ok(_) => Vec::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let (mut root, mut is_marked, mut identities) = (BaseNode::folder(), false, [None; 2]);
        for record in records(&bytes) {
            if record == MARK {
                is_marked = true;
                continue;
            }
            if let Some((side, identity)) = decode_identity(record) {
                identities.get_mut(side).map(|known| known.replace(identity));
                continue;
            }
            let Some((path, node)) = decode(record) else { break };
            root.set(&path, node);
        }
        let (path, is_kept) = (path.to_owned(), is_marked || root.has_more_than(1));
        let (records, unsaved) = (0, Vec::new());
        Ok(Self { path, identities, root, is_marked, is_kept, file: None, records, unsaved })
    }

    /// Reads the base of these folders. A list of another one is replaced by the mark.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn of(path: &Path, identities: Identities) -> io::Result<Self> {
        let mut base = Self::open(path)?;
        let differs = |(known, now): (&Option<Identity>, &Option<Identity>)| {
            known.is_some() && now.is_some() && known != now
        };
        let is_other = base.identities.iter().zip(&identities).any(differs);
        base.identities = identities;
        if is_other {
            base.forget()?;
        }
        Ok(base)
    }

    /// Replaces a list by the mark.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn forget(&mut self) -> io::Result<()> {
        if self.is_new() {
            return Ok(());
        }
        (self.root, self.unsaved, self.records) = (BaseNode::folder(), Vec::new(), 0);
        self.is_kept = false;
        self.mark()
    }

    /// Whether a side has nothing of the list at its top, although it has files: another folder is
    /// in the place of the one that the list is about.
    pub fn is_about_another<S>(&self, side: &Node<S>) -> bool {
        let (Some(known), Some(present)) = (self.root.children(), side.children()) else {
            return false;
        };
        !known.is_empty()
            && !present.is_empty()
            && !known.keys().any(|name| present.contains_key(name))
    }

    /// Whether the sides never had anything in common.
    pub fn is_new(&self) -> bool {
        !self.is_marked && !self.root.has_more_than(0)
    }

    /// Whether both sides had content: a single file may be removed.
    pub fn had_content(&self) -> bool {
        self.is_marked || self.root.has_more_than(1)
    }

    /// Puts on disk that files were copied, if the file tells nothing yet. Unlike a list this may
    /// be there before the files are on their disks: it has no file removed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn mark(&mut self) -> io::Result<()> {
        if self.is_kept {
            return Ok(());
        }
        let mut out = self.begin();
        put_record(MARK, &mut out);
        self.replace(&out)?;
        // The next list is written as a whole.
        self.file = None;
        (self.is_marked, self.is_kept) = (true, true);
        Ok(())
    }

    /// The tree.
    pub fn root(&self) -> &BaseNode {
        &self.root
    }

    /// Takes what both sides have alike within `scope`; returns whether there is something to save.
    pub fn settle(&mut self, host: &SideNode, guest: &SideNode, scope: Scope<'_>) -> bool {
        let (out, records) = (&mut self.unsaved, &mut self.records);
        let mut state = |host: &Seen, guest: &Seen| Both { host: Some(*host), guest: Some(*guest) };
        settle(&mut self.root, (host, guest), scope, &mut state, &mut |path, node| {
            encode(path, node, out);
            *records += 1;
        });
        !self.unsaved.is_empty()
    }

    /// Takes what is not saved yet; both sides must be on their disks before it is written.
    pub fn take(&mut self) -> Option<Pending> {
        if self.unsaved.is_empty() {
            return None;
        }
        let too_many = self.records > MIN_RECORDS.max(self.root.count());
        let is_whole = self.file.is_none() || too_many;
        let mut bytes = std::mem::take(&mut self.unsaved);
        if is_whole {
            bytes = self.encoded();
            self.records = 0;
        }
        let (is_kept, was_marked) = (self.root.has_more_than(1), self.is_marked);
        Some(Pending { bytes, is_whole, is_kept, was_marked })
    }

    /// Writes what was taken. Returns whether there is nothing left to take.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, pending: Pending) -> io::Result<bool> {
        let Pending { bytes, is_whole, is_kept, was_marked } = pending;
        if self.is_marked != was_marked {
            // Marked meanwhile: the file has no list, and the next one is whole.
            self.unsaved.splice(..0, bytes);
            return Ok(false);
        }
        let file = self.file.take().filter(|_| !is_whole);
        self.file = Some(match file {
            // If it fails, a part of it may be there.
            Some(mut file) => file.write_all(&bytes).map(|()| file)?,
            None => self.replace(&bytes)?,
        });
        (self.is_marked, self.is_kept) = (false, is_kept);
        Ok(self.unsaved.is_empty())
    }

    /// Replaces the file, with the present states of all files. Both sides must be on their disks.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save_whole(&mut self) -> io::Result<()> {
        self.file = Some(self.replace(&self.encoded())?);
        (self.records, self.unsaved) = (0, Vec::new());
        (self.is_marked, self.is_kept) = (false, self.root.has_more_than(1));
        Ok(())
    }

    /// The whole file.
    fn encoded(&self) -> Vec<u8> {
        let mut out = self.begin();
        encode_tree(b"", &self.root, &mut out);
        out
    }

    /// The begin of each file.
    fn begin(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for (begin, identity) in IDENTITIES.iter().zip(self.identities) {
            let Some(Identity { inode, born_ns }) = identity else { continue };
            let numbers = [inode.to_le_bytes(), born_ns.to_le_bytes()].concat();
            put_record(&[begin, numbers.as_slice()].concat(), &mut out);
        }
        out
    }

    fn replace(&self, content: &[u8]) -> io::Result<File> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use banger_sync_side::{Kind, Stamp};

    use super::*;

    fn seen(size: u64) -> Seen {
        let stamp = Stamp { kind: Kind::File, size, inode: 2, mtime_ns: 3, ctime_ns: 4 };
        Seen { stamp, known_ns: 5 }
    }

    fn side(files: &[(&str, u8)]) -> SideNode {
        let mut root = SideNode::folder();
        root.set(b"d", Some(Node::folder()));
        root.set(b"l", Some(Node::Link { target: b"d".to_vec(), seen: seen(1) }));
        for (path, content) in files {
            let file = Node::File { digest: [*content; 20], program: false, seen: seen(9) };
            root.set(path.as_bytes(), Some(file));
        }
        root
    }

    fn save(base: &mut Base) -> bool {
        let pending = base.take().unwrap();
        base.write(pending).unwrap()
    }

    #[test]
    fn a_base_is_read_back_and_a_cut_record_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base");
        let mut base = Base::open(&path).unwrap();
        assert!(base.is_new());
        base.mark().unwrap();
        let marked = Base::open(&path).unwrap();
        assert!(!marked.is_new() && marked.had_content() && marked.root().count() == 0);
        let one = side(&[("a", 1), ("d/b", 2)]);
        assert!(base.settle(&one, &one, Scope::All));
        assert!(save(&mut base));
        assert!(!base.settle(&one, &one, Scope::All));
        assert!(base.root().is_same(&one));
        let two = side(&[("a", 3), ("d/c", 2)]);
        base.settle(&two, &two, Scope::All);
        assert!(save(&mut base));
        let read = Base::open(&path).unwrap();
        assert_eq!(read.root(), base.root());
        assert!(read.root().is_same(&two));
        let Some(Node::File { seen: both, .. }) = read.root().get(b"a") else { panic!() };
        assert_eq!(both.guest, Some(seen(9)));
        let whole = fs::read(&path).unwrap();
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            Base::open(&path).unwrap();
        }
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(!Base::open(&path).unwrap().root().is_same(&two));
        fs::write(&path, b"other").unwrap();
        assert_eq!(Base::open(&path).unwrap().root().count(), 0);
    }

    #[test]
    fn the_list_of_another_folder_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base");
        let [one, two] = [1, 2].map(|inode| Some(Identity { inode, born_ns: 5 }));
        let mut base = Base::of(&path, [one, two]).unwrap();
        assert!(base.is_new());
        let files = side(&[("a", 1)]);
        base.settle(&files, &files, Scope::All);
        assert!(save(&mut base));
        let same = Base::of(&path, [one, None]).unwrap();
        assert!(same.root().is_same(&files));
        let mut other = SideNode::folder();
        assert!(!same.is_about_another(&files) && !same.is_about_another(&other));
        other.set(b"x", Some(Node::folder()));
        assert!(same.is_about_another(&other));
        let whole = fs::read(&path).unwrap();
        let newer = Some(Identity { inode: 1, born_ns: 6 });
        for others in [[newer, two], [one, one]] {
            fs::write(&path, &whole).unwrap();
            for identities in [others, [one, two]] {
                let base = Base::of(&path, identities).unwrap();
                assert!(base.had_content() && base.root().count() == 0, "{identities:?}");
            }
        }
    }

    #[test]
    fn only_what_both_sides_have_is_agreed_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut base = Base::open(&dir.path().join("base")).unwrap();
        let all = side(&[("a", 1), ("d/b", 2)]);
        base.settle(&all, &all, Scope::All);
        let (host, guest) = (side(&[("a", 5), ("d/b", 2), ("x", 1)]), side(&[("a", 1)]));
        base.settle(&host, &guest, Scope::All);
        assert!(base.root().is_same(&all) && base.had_content());
        let (one, none) = (side(&[]), SideNode::folder());
        base.settle(&none, &none, Scope::All);
        assert!(!base.had_content() && base.is_new());
        base.settle(&one, &one, Scope::All);
        assert!(save(&mut base));
        base.mark().unwrap();
        assert!(base.had_content());
    }

    #[test]
    fn what_is_settled_after_a_take_waits_for_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base");
        let mut base = Base::open(&path).unwrap();
        let (one, two) = (side(&[("a", 1)]), side(&[("a", 1), ("b", 2)]));
        let three = side(&[("b", 3)]);
        // The file as a whole, then records.
        for (now, later) in [(&one, &two), (&three, &one)] {
            base.settle(now, now, Scope::All);
            let pending = base.take().unwrap();
            assert!(base.take().is_none());
            base.settle(later, later, Scope::All);
            assert!(!base.write(pending).unwrap());
            assert!(Base::open(&path).unwrap().root().is_same(now));
            assert!(save(&mut base) && base.take().is_none());
            assert!(Base::open(&path).unwrap().root().is_same(later));
        }
    }

    #[test]
    fn a_mark_made_after_a_take_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base");
        let mut base = Base::open(&path).unwrap();
        let mut single = SideNode::folder();
        single.set(b"d", Some(Node::folder()));
        base.settle(&single, &single, Scope::All);
        let pending = base.take().unwrap();
        let one = side(&[("a", 1)]);
        base.settle(&one, &one, Scope::All);
        base.mark().unwrap();
        assert!(!base.write(pending).unwrap());
        assert!(Base::open(&path).unwrap().had_content());
        assert!(save(&mut base));
        assert!(Base::open(&path).unwrap().root().is_same(&one));
    }
}
