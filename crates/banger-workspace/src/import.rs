//! The commands that make a repository in the guest, with what they read from standard input. They
//! need `sh` and git.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use crate::snapshot::Snapshot;

/// Makes an empty repository in the folder `$1`, which must not have any files.
const INIT: &str = r#"set -eu
command -v git >/dev/null || { echo "git is not installed in the machine" >&2; exit 127; }
mkdir -p -- "$1"
cd -- "$1"
[ -z "$(ls -A)" ] || { echo "the folder $1 is not empty" >&2; exit 73; }
git init -q --template= .
mkdir -p .git/hooks .git/info
"#;

/// The folder of packs in a repository, into which those of [`crate::pack::packs`] are unpacked.
pub const PACKS: &str = ".git/objects/pack";

/// Exit code of [`INIT`] if the folder has files.
pub const NOT_EMPTY: u8 = 73;

/// `$2` the commit or nothing, `$3` the branch or nothing, `$4` the commits with parents that are
/// not there, then names and values of settings. Reads the index.
const STATE: &str = r#"set -eu
cd -- "$1"
head=$2 branch=$3
[ -z "$4" ] || printf '%s\n' "$4" >.git/shallow
shift 4
if [ -n "$branch" ]; then
  git symbolic-ref HEAD "$branch"
  [ -z "$head" ] || git update-ref "$branch" "$head"
else
  git update-ref --no-deref HEAD "$head"
fi
while [ $# -gt 1 ]; do
  git config "$1" "$2"
  shift 2
done
git update-index -z --index-info
"#;

/// Marks entries that a sparse checkout leaves out.
const SPARSE: &str = r#"cd -- "$1" && git update-index -z --skip-worktree --stdin"#;

/// Writes the files of the index, and notes their state in it: git need not read them again.
const CHECKOUT: &str = r#"cd -- "$1" && git checkout-index --all --index --quiet"#;

/// Removes files.
const DELETE: &str = r#"cd -- "$1" && xargs -0 rm -f --"#;

/// Writes a file of the repository's state, `$2`.
const PUT: &str = r#"cd -- "$1/.git" && mkdir -p -- "$(dirname -- "$2")" && cat >"$2""#;

/// Forgets the state of files that were written after the checkout: git reads them again.
const FORGET: &str = r#"cd -- "$1" && git update-index -z --index-info"#;

/// Adds intents to add.
const INTEND: &str = r#"cd -- "$1" && GIT_LITERAL_PATHSPECS=1 \
  git add --force --intent-to-add --pathspec-from-file=- --pathspec-file-nul"#;

/// Has git know the files as they are.
const REFRESH: &str = r#"cd -- "$1" && { git update-index -q --refresh || true; }"#;

/// A command, and what it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Its standard input.
    pub input: Input,
}

/// Standard input of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Nothing.
    None,
    /// These bytes.
    Bytes(Vec<u8>),
}

/// One part of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Run this command.
    Run(Step),
    /// Unpack the archive of packs in [`PACKS`] below the folder.
    Objects,
    /// Unpack the archive of files in the folder.
    Files,
}

/// The parts of an import to this folder of the guest, in order. `has_objects`: whether there is
/// anything to pack.
pub fn parts(snapshot: &Snapshot, folder: &OsStr, has_objects: bool) -> Vec<Part> {
    let run = |script: &str, arguments: &[&OsStr], input: Input| {
        let mut command: Vec<OsString> =
            ["sh", "-c", script, "sh"].map(OsString::from).into_iter().collect();
        command.push(folder.to_owned());
        command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Part::Run(Step { command, input })
    };
    let list = |paths: &[Vec<u8>]| {
        Input::Bytes(
            paths.iter().flat_map(|path| [path.as_slice(), b"\0"]).flatten().copied().collect(),
        )
    };
    let mut parts = vec![run(INIT, &[], Input::None)];
    if has_objects {
        parts.push(Part::Objects);
    }
    let lines = snapshot.index.iter().flat_map(|entry| [entry.line.as_slice(), b"\0"]);
    let index = Input::Bytes(lines.flatten().copied().collect());
    let shallow = snapshot.shallow.join("\n");
    let mut arguments = vec![
        OsStr::new(snapshot.head.as_deref().unwrap_or_default()),
        OsStr::from_bytes(snapshot.branch.as_deref().unwrap_or_default()),
        OsStr::new(&shallow),
    ];
    for (name, value) in &snapshot.settings {
        arguments.push(OsStr::new(name));
        arguments.push(OsStr::from_bytes(value));
    }
    parts.push(run(STATE, &arguments, index));
    for (name, content) in &snapshot.state {
        parts.push(run(PUT, &[OsStr::new(name)], Input::Bytes(content.clone())));
    }
    if !snapshot.sparse.is_empty() {
        parts.push(run(SPARSE, &[], list(&snapshot.sparse)));
    }
    parts.push(run(CHECKOUT, &[], Input::None));
    if !snapshot.deleted.is_empty() {
        parts.push(run(DELETE, &[], list(&snapshot.deleted)));
    }
    if snapshot.files().next().is_some() {
        parts.push(Part::Files);
        let written: HashSet<&[u8]> = snapshot.files().collect();
        let entries = snapshot.index.iter().filter(|entry| written.contains(entry.path()));
        let lines = entries.flat_map(|entry| [entry.line.as_slice(), b"\0"]);
        parts.push(run(FORGET, &[], Input::Bytes(lines.flatten().copied().collect())));
    }
    if !snapshot.intent_to_add.is_empty() {
        parts.push(run(INTEND, &[], list(&snapshot.intent_to_add)));
    }
    parts.push(run(REFRESH, &[], Input::None));
    parts
}
