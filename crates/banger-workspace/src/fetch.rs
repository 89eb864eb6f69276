//! Objects of a guest: received into a repository of this command only, within limits, and checked
//! by git before anything uses them.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::process::Stdio;

use banger_api::{ApiError, ErrorCode, Hint};

use crate::compare::Change;
use crate::git::{Git, finished, started};
use crate::guest::bad;
use crate::manifest::{Entry, Manifest};

/// Most that is taken from a guest at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a pack.
    pub pack_bytes: u64,
    /// Bytes of all files.
    pub file_bytes: u64,
    /// Commits.
    pub commits: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pack_bytes: 2 << 30, file_bytes: 8 << 30, commits: 10_000 }
    }
}

/// Bytes read at once.
const PIECE: usize = 64 << 10;
/// git allocates no more than this at once: a small pack can claim a large object.
const MAX_ALLOCATION: &str = "1g";

/// Stores a pack from a guest in the repository of this command.
///
/// # Errors
/// A pack that is too large, cut off or wrong in any way that git looks for.
pub fn receive(git: &Git, from: &mut dyn Read, limits: &Limits) -> Result<(), ApiError> {
    let git = git.with("GIT_ALLOC_LIMIT", MAX_ALLOCATION);
    let size = format!("--max-input-size={}", limits.pack_bytes);
    let stored = feed(&git, &["index-pack", "--stdin", "--strict", size.as_str()], from)
        .map_err(|error| bad("cannot be read").caused_by(&error))?;
    stored.map_err(|error| {
        let is_large = error.causes.iter().any(|cause| cause.contains("exceeds maximum"));
        let mut refused = ApiError::new(
            ErrorCode::GuestFailed,
            "git refuses the objects that the machine has sent",
        );
        refused.causes = error.causes;
        if is_large {
            let text = format!(
                "at most {} MiB are taken at once: `banger cp` copies large files",
                limits.pack_bytes >> 20
            );
            return refused.with_hint(Hint::text(text));
        }
        refused
    })
}

/// Copies objects of one repository into another, each to a file of its own.
///
/// # Errors
/// git's.
pub fn copy(from: &Git, to: &Git, objects: &[String]) -> Result<(), ApiError> {
    let list: String = objects.iter().flat_map(|name| [name, "\n"]).collect();
    let mut pack = from.stream(["pack-objects", "--stdout", "-q"], list.into_bytes())?;
    feed(to, &["unpack-objects", "-q"], &mut pack.stdout)
        .map_err(|error| bad("cannot be read").caused_by(&error))??;
    pack.finish()
}

/// Runs git with an input. The outer error is that of the reading.
fn feed(git: &Git, arguments: &[&str], from: &mut dyn Read) -> io::Result<Result<(), ApiError>> {
    let mut command = git.command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let (mut child, messages) = match started(command) {
        Ok(started) => started,
        Err(error) => return Ok(Err(error)),
    };
    let mut input = child.stdin.take();
    let mut piece = vec![0; PIECE];
    let mut cut = None;
    while let Some(to) = &mut input {
        match from.read(&mut piece) {
            Ok(0) => input = None,
            // git has ended, and says why.
            Ok(length) if to.write_all(piece.get(..length).unwrap_or_default()).is_err() => {
                input = None;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                cut = Some(error);
                input = None;
            }
        }
    }
    let ended = finished(child, messages, git.folder());
    cut.map_or(Ok(ended), Err)
}

/// The objects of changed files that are not here yet.
///
/// # Errors
/// git's.
pub fn missing(git: &Git, entries: &[&Entry]) -> Result<Vec<String>, ApiError> {
    let names: BTreeSet<&str> = entries.iter().map(|entry| entry.object.as_str()).collect();
    let list: Vec<u8> = names.iter().flat_map(|name| format!("{name}\n").into_bytes()).collect();
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let known = git.filter(&["cat-file", "--batch-check"], list)?;
    let known = String::from_utf8_lossy(&known).into_owned();
    let missing = known.lines().filter_map(|line| line.strip_suffix(" missing"));
    Ok(missing.map(str::to_owned).collect())
}

/// Checks that the objects of files are here, are files, and are not too large together.
///
/// # Errors
/// Which one is not.
pub fn check(git: &Git, entries: &[&Entry], limits: &Limits) -> Result<(), ApiError> {
    let list: Vec<u8> =
        entries.iter().flat_map(|entry| format!("{}\n", entry.object).into_bytes()).collect();
    if list.is_empty() {
        return Ok(());
    }
    let format = "--batch-check=%(objecttype) %(objectsize) %(objectname)";
    let found = git.filter(&["cat-file", format], list)?;
    let mut sum: u64 = 0;
    for line in String::from_utf8_lossy(&found).lines() {
        let mut words = line.split(' ');
        let size = words.next().filter(|kind| *kind == "blob").and(words.next());
        let Some(size) = size.and_then(|size| size.parse::<u64>().ok()) else {
            return Err(bad(&format!("lacks the content of a file (`{line}`)")));
        };
        sum = sum.saturating_add(size);
    }
    if sum > limits.file_bytes {
        let text = format!(
            "the changed files of the machine have {} MiB, and at most {} MiB are taken at once",
            sum >> 20,
            limits.file_bytes >> 20
        );
        let hint = Hint::text("`banger cp` copies large files; `.gitignore` leaves files out");
        return Err(ApiError::new(ErrorCode::GuestFailed, text).with_hint(hint));
    }
    Ok(())
}

/// The trees before and after changes, with the changed files only.
///
/// # Errors
/// git's.
pub fn trees(git: &Git, changes: &[Change]) -> Result<(String, String), ApiError> {
    let side = |side: fn(&Change) -> Option<&Entry>| {
        tree(git, changes.iter().filter_map(|change| Some((&change.path, side(change)?))))
    };
    Ok((side(|change| change.base.as_ref())?, side(|change| change.now.as_ref())?))
}

/// A tree of these files.
///
/// # Errors
/// git's: two paths that exclude each other, or that git does not take.
pub fn tree<'a>(
    git: &Git,
    files: impl IntoIterator<Item = (&'a Vec<u8>, &'a Entry)>,
) -> Result<String, ApiError> {
    git.output(["read-tree", "--empty"])?;
    git.filter(&["update-index", "-z", "--index-info"], Manifest::lines(files))?;
    let tree = git.output(["write-tree", "--missing-ok"])?;
    Ok(String::from_utf8_lossy(&tree).trim().to_owned())
}
