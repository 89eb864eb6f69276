//! The files of a work tree at one time: path, kind and git object of each. The state at the
//! import, the guest's and the host's are compared as such lists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use banger_api::ApiError;
use banger_archive::beneath::{Folder, Links, split_last};
use rustix::fs::FileType;

use crate::git::Git;
use crate::repository::Repository;

/// Kind of a file, as far as git records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A regular file that can be executed.
    Program,
    /// A symbolic link.
    Link,
}

impl Kind {
    /// From the mode in an index.
    pub fn parse(mode: &[u8]) -> Option<Self> {
        match mode {
            b"100644" => Some(Self::File),
            b"100755" => Some(Self::Program),
            b"120000" => Some(Self::Link),
            _ => None,
        }
    }

    /// The mode in an index.
    pub fn mode(self) -> &'static str {
        match self {
            Self::File => "100644",
            Self::Program => "100755",
            Self::Link => "120000",
        }
    }
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its kind.
    pub kind: Kind,
    /// The git object with its content, in hexadecimal digits.
    pub object: String,
}

/// Files by path. Submodules are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest(pub BTreeMap<Vec<u8>, Entry>);

/// The objects of a repository, and a folder that receives new ones instead of it.
#[derive(Debug, Clone)]
pub struct Objects {
    /// The folder of the repository's objects.
    pub theirs: Vec<u8>,
    /// The folder for new objects; its `info/alternates` names the other one.
    pub ours: std::path::PathBuf,
}

impl Manifest {
    /// The file at a path.
    pub fn get(&self, path: &[u8]) -> Option<&Entry> {
        self.0.get(path)
    }

    /// Reads one record of `git ls-files --stage -z`, without its zero byte; none for a submodule
    /// and for what is no such record.
    pub fn record(record: &[u8]) -> Option<(Vec<u8>, Entry)> {
        let (facts, path) = record.split_at(record.iter().position(|byte| *byte == b'\t')?);
        let mut facts = facts.split(|byte| *byte == b' ');
        let kind = Kind::parse(facts.next()?)?;
        let object = String::from_utf8(facts.next()?.to_vec()).ok()?;
        let is_id = matches!(object.len(), 40 | 64)
            && object.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        is_id.then(|| (path.get(1..).unwrap_or_default().to_vec(), Entry { kind, object }))
    }

    /// Reads `git ls-files --stage -z` of an index, or [`Self::lines`].
    pub fn parse(listing: &[u8]) -> Self {
        Self(listing.split(|byte| *byte == 0).filter_map(Self::record).collect())
    }

    /// Lines for `git update-index -z --index-info` with these files.
    pub fn lines<'a>(files: impl IntoIterator<Item = (&'a Vec<u8>, &'a Entry)>) -> Vec<u8> {
        let mut lines = Vec::new();
        for (path, entry) in files {
            let facts = format!("{} {} 0\t", entry.kind.mode(), entry.object);
            lines.extend_from_slice(facts.as_bytes());
            lines.extend_from_slice(path);
            lines.push(0);
        }
        lines
    }

    /// The tracked files of a work tree and those of `also` that exist, as they are on disk. New
    /// objects go to `objects`; the index is read from a copy at `index`.
    ///
    /// # Errors
    /// git's; a file that cannot be read.
    pub fn of_host(
        repository: &Repository,
        objects: &Objects,
        index: &Path,
        also: &BTreeSet<Vec<u8>>,
    ) -> Result<Self, ApiError> {
        repository.copy_index(index)?;
        let git = objects.used_by(repository.git()).with("GIT_INDEX_FILE", index);
        let differing =
            ["diff-files", "--raw", "-z", "--no-renames", "--no-ext-diff", "--ignore-submodules"];
        let listing = git.output(differing)?;
        let mut fields = listing.split(|byte| *byte == 0).filter(|field| !field.is_empty());
        let mut paths = BTreeSet::new();
        while let (Some(_), Some(path)) = (fields.next(), fields.next()) {
            paths.insert(path.to_vec());
        }
        // What is gone first: a file may have become a folder.
        let top = repository.folder()?;
        let (there, gone): (Vec<_>, Vec<_>) = paths.iter().partition(|path| is_file(&top, path));
        update(&git, "--force-remove", gone)?;
        update(&git, "--replace", there)?;
        let list = || Ok::<_, ApiError>(Self::parse(&git.output(["ls-files", "--stage", "-z"])?));
        let tracked = list()?;
        let also: Vec<_> =
            also.iter().filter(|path| tracked.get(path).is_none() && is_file(&top, path)).collect();
        if also.is_empty() {
            return Ok(tracked);
        }
        update(&git, "--replace", also)?;
        list()
    }
}

/// Changes entries of an index.
fn update(git: &Git, change: &str, paths: Vec<&Vec<u8>>) -> Result<(), ApiError> {
    let list = paths.into_iter().flat_map(|path| [path, b"\0".as_slice()].concat()).collect();
    git.filter(&["update-index", "-z", "--add", change, "--stdin"], list).map(drop)
}

impl Objects {
    /// git with these folders of objects.
    pub fn used_by(&self, git: &Git) -> Git {
        git.with("GIT_OBJECT_DIRECTORY", &self.ours)
    }
}

/// Whether there is a regular file or symlink at this path, with no symlink on the way.
pub fn is_file(top: &Folder, path: &[u8]) -> bool {
    let Some((parent, name)) = split_last(path) else { return false };
    let found = top.folder(parent, Links::Refuse).ok().and_then(|folder| folder.kind_of(name));
    matches!(found, Some(FileType::RegularFile | FileType::Symlink))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_of_an_index_is_read() {
        let id = "a".repeat(40);
        let listing = format!(
            "100644 {id} 0\ta b\0100755 {id} 0\tdir/x\ty\0120000 {id} 0\tl\0160000 {id} 0\tsub\0"
        );
        let manifest = Manifest::parse(listing.as_bytes());
        let paths: Vec<_> = manifest.0.keys().map(Vec::as_slice).collect();
        assert_eq!(paths, [b"a b".as_slice(), b"dir/x\ty", b"l"]);
        assert_eq!(manifest.get(b"l").unwrap().kind, Kind::Link);
        assert_eq!(Manifest::parse(&Manifest::lines(&manifest.0)), manifest);
    }

    #[test]
    fn what_is_no_record_is_left_out() {
        let id = "a".repeat(40);
        for record in [
            String::new(),
            "100644".into(),
            format!("104755 {id} 0\tset-uid"),
            format!("100644 {}g 0\tx", "a".repeat(39)),
            format!("100644 {} 0\tx", "A".repeat(40)),
            "100644 abc 0\tx".into(),
        ] {
            assert_eq!(Manifest::record(record.as_bytes()), None, "{record}");
        }
    }
}
