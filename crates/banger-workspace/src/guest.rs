//! The guest's side of a workspace: one command per question, which reads the work tree through a
//! temporary index and temporary objects, so that neither index nor history nor references change.
//! Answers are untrusted: each has a limit, and each path is checked.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt as _;

use banger_api::{ApiError, ErrorCode, Hint};

use crate::manifest::{Entry, Manifest};
use crate::names;

/// Most bytes of a listing.
const MAX_LISTING: u64 = 256 << 20;
/// Most files of a listing.
const MAX_FILES: usize = 2_000_000;
/// Most bytes of one field.
const MAX_FIELD: u64 = 64 << 10;
/// Most commits that are listed.
pub const MAX_COMMITS: usize = 100;

/// Begins all commands: the functions and variables that the rest uses. The variables are those of
/// `git rev-parse --local-env-vars`. Each start of git takes as long as a small change takes, so
/// what the shell can do is not asked of git.
const BEGIN: &str = include_str!("guest/begin.sh");

/// Follows [`BEGIN`]: a copy of the index and a folder for objects. Everything temporary is in
/// `$t`, on the disk if possible, since `/tmp` may be memory.
const TEMPORARY: &str = include_str!("guest/temporary.sh");

/// `$2` the commit that was sent, or nothing; `$3` what follows: `none`, `objects` or `commits`,
/// whose names are read from standard input.
const LOOK: &str = include_str!("guest/look.sh");

/// Changes files, whose present state must be the expected one. A pack with everything comes on
/// standard input. `$2` has the paths, `$3` their entries in the index, `$4` the changes of them
/// and `$5` the paths of new files, each an object of the pack or the [`inline`] list itself; `$6`
/// tells which files are looked at before.
/// git writes the files. It replaces ignored files without a word, so those are looked for before.
const PUSH: &str = include_str!("guest/push.sh");

/// Replaces the content of a few files, which must have the expected one, without an index, so that
/// the time does not depend on the size of the work tree. A pack with the new ones comes on
/// standard input. `$2` has the expected objects, one in a line; `$3` in the same order lines of
/// the present mode, the new mode and the new object; all further arguments are the paths.
const REPLACE: &str = include_str!("guest/replace.sh");

/// A list as an argument of [`PUSH`], in the escapes of `printf %b`.
pub(crate) fn inline(list: &[u8]) -> String {
    let escape = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b' ' => {
            char::from(*byte).to_string()
        }
        byte => format!("\\0{byte:03o}"),
    };
    let escaped: String = list.iter().map(escape).collect();
    format!("={escaped}")
}

/// Exit code of [`PUSH`] if a file has another state than the expected one.
pub(crate) const CHANGED: u8 = 75;

/// Exit code of [`PUSH`] if something that the guest's git ignores is where a file comes; it prints
/// the path.
const IGNORED: u8 = 76;

/// The same for another repository, which the file would be in.
const IN_REPOSITORY: u8 = 77;

/// Which files a push looks at before it changes any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// All of the work tree.
    AtAll,
    /// Those that it changes; ignored ones count as well.
    AtChanges,
}

/// What is asked of the guest beside the state of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    State,
    /// Objects, one in a line.
    Objects,
    /// Commits with all that they need, and other objects (git-pack-objects(1), `--revs`).
    Commits,
}

/// A machine's end of a command.
pub trait Guest {
    /// Starts a command in the guest.
    ///
    /// # Errors
    /// The machine does not run, or cannot be reached.
    fn start(&self, command: &[OsString]) -> Result<Talk, ApiError>;
}

/// A running command of a guest.
pub struct Talk {
    /// Its output.
    pub output: Box<dyn Read + Send>,
    /// Its input.
    pub input: Box<dyn Write + Send>,
    /// Waits for the end: the exit code, and the first messages.
    pub end: End,
}

/// Waits for the end of a command: its exit code, and its first messages.
pub type End = Box<dyn FnOnce() -> Result<(u8, Vec<u8>), ApiError> + Send>;

/// A commit of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its object.
    pub id: String,
    /// First line of its message, in any bytes.
    pub subject: Vec<u8>,
}

/// The guest's side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The commit at HEAD.
    pub head: Option<String>,
    /// The branch, in any bytes.
    pub branch: Option<Vec<u8>>,
    /// Commits since the one that was sent, newest first; at most [`MAX_COMMITS`] and one.
    pub commits: Vec<Commit>,
    /// The files.
    pub files: Manifest,
    /// What is left in the guest.
    pub left: Vec<Left>,
}

/// A path that stays in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Path in the work tree.
    pub path: Vec<u8>,
    /// Why, as the end of a sentence about it.
    pub why: String,
    /// Whether the guest's git takes it, and so has it in a commit, or in the next one.
    pub is_tracked: bool,
}

/// The command for a question.
pub fn look(folder: &[u8], head: Option<&str>, wanted: Wanted) -> Vec<OsString> {
    let wanted = match wanted {
        Wanted::State => "none",
        Wanted::Objects => "objects",
        Wanted::Commits => "commits",
    };
    command(&[TEMPORARY, LOOK], folder, &[OsStr::new(head.unwrap_or_default()), OsStr::new(wanted)])
}

/// The command for a push, with its four lists.
pub(crate) fn push(folder: &[u8], lists: &[String], look: Look) -> Vec<OsString> {
    let look = match look {
        Look::AtAll => "all",
        Look::AtChanges => "changes",
    };
    let arguments: Vec<&OsStr> =
        lists.iter().map(String::as_str).chain([look]).map(OsStr::new).collect();
    command(&[TEMPORARY, PUSH], folder, &arguments)
}

/// The command that replaces the content of files; each has its path, its present and its new
/// state.
pub(crate) fn replace(folder: &[u8], files: &[(&[u8], &Entry, &Entry)]) -> Vec<OsString> {
    let lines = |line: &dyn Fn(&Entry, &Entry) -> String| {
        let lines: Vec<String> = files.iter().map(|(_, was, now)| line(was, now)).collect();
        lines.join("\n")
    };
    let expected = lines(&|was, _| was.object.clone());
    let facts =
        lines(&|was, now| format!("{} {} {}", was.kind.mode(), now.kind.mode(), now.object));
    let paths = files.iter().map(|(path, ..)| OsStr::from_bytes(path));
    let arguments: Vec<&OsStr> =
        [OsStr::new(&expected), OsStr::new(&facts)].into_iter().chain(paths).collect();
    command(&[REPLACE], folder, &arguments)
}

/// A command that begins with [`BEGIN`].
fn command(scripts: &[&str], folder: &[u8], arguments: &[&OsStr]) -> Vec<OsString> {
    let script = [&[BEGIN], scripts].concat().concat();
    let mut command: Vec<OsString> = ["sh".into(), "-c".into(), script.into(), "sh".into()].into();
    command.push(OsStr::from_bytes(folder).into());
    command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    command
}

/// Reads the state at the begin of an answer.
///
/// # Errors
/// An answer that is cut off, has another form, or is larger than a limit.
pub fn read_state(output: impl Read) -> Result<(State, impl Read), ApiError> {
    let mut from = Fields { output: BufReader::new(output), left: MAX_LISTING };
    if from.next()? != b"banger workspace 1" {
        return Err(bad("begins with other words"));
    }
    let mut state = State { head: id(&from.next()?)?, ..State::default() };
    let branch = from.next()?;
    state.branch = (!branch.is_empty()).then_some(branch);
    loop {
        let record = from.next()?;
        if record.is_empty() {
            break;
        }
        let place = record.iter().position(|byte| *byte == b' ').unwrap_or(record.len());
        let (name, subject) = record.split_at(place);
        let id = id(name)?.ok_or_else(|| bad("has a commit without a name"))?;
        if state.commits.len() > MAX_COMMITS {
            return Err(bad("has too many commits"));
        }
        state.commits.push(Commit { id, subject: subject.get(1..).unwrap_or_default().to_vec() });
    }
    loop {
        let record = from.next()?;
        if record.is_empty() {
            break;
        }
        if state.files.0.len() + state.left.len() >= MAX_FILES {
            return Err(bad("has too many files"));
        }
        match file(&record)? {
            Ok((path, entry)) => drop(state.files.0.insert(path, entry)),
            Err(left) => state.left.push(left),
        }
    }
    Ok((state, from.output))
}

/// A file, or a path that stays in the guest.
type Listed = Result<(Vec<u8>, Entry), Left>;

/// A record of the listing.
fn file(record: &[u8]) -> Result<Listed, ApiError> {
    if let Some(rest) = record.strip_prefix(b"160000 ") {
        let path = rest.splitn(2, |byte| *byte == b'\t').nth(1).unwrap_or_default();
        let path = path.strip_suffix(b"/").unwrap_or(path).to_vec();
        let why = "is a repository of its own".to_owned();
        return Ok(Err(Left { path, why, is_tracked: !rest.starts_with(b"0 ") }));
    }
    let (path, entry) =
        Manifest::record(record).ok_or_else(|| bad("has a file in another form"))?;
    let is_tracked = entry.object.bytes().any(|digit| digit != b'0');
    let why = match names::check(&path) {
        Ok(()) if is_tracked => return Ok(Ok((path, entry))),
        Ok(()) => "is not taken by git there",
        Err(refusal) => refusal.text(),
    };
    Ok(Err(Left { path, why: why.to_owned(), is_tracked }))
}

/// The name of an object; none if empty.
fn id(field: &[u8]) -> Result<Option<String>, ApiError> {
    let is_id = matches!(field.len(), 40 | 64)
        && field.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    match field {
        [] => Ok(None),
        field if is_id => Ok(Some(String::from_utf8_lossy(field).into_owned())),
        _ => Err(bad("has a commit with another name than git's")),
    }
}

/// Fields that end with a zero byte.
struct Fields<R> {
    output: BufReader<R>,
    left: u64,
}

impl<R: Read> Fields<R> {
    fn next(&mut self) -> Result<Vec<u8>, ApiError> {
        let mut field = Vec::new();
        let limit = MAX_FIELD.min(self.left);
        let read = self.output.by_ref().take(limit).read_until(0, &mut field);
        let length = read.map_err(|error| bad("cannot be read").caused_by(&error))?;
        self.left -= length as u64;
        match field.pop() {
            Some(0) => Ok(field),
            Some(_) if length as u64 == limit => Err(bad("is larger than its limit")),
            _ => Err(bad("is cut off")),
        }
    }
}

pub(crate) fn bad(what: &str) -> ApiError {
    ApiError::new(ErrorCode::GuestFailed, format!("the machine's answer about its files {what}"))
}

/// Waits for a command's end.
///
/// # Errors
/// It failed, with its messages.
pub fn ended(end: End, folder: &[u8]) -> Result<(), ApiError> {
    let (code, messages) = end()?;
    if code == 0 {
        return Ok(());
    }
    if code == CHANGED {
        let text = "files of the machine were changed at the same time";
        return Err(ApiError::new(ErrorCode::Busy, text));
    }
    let folder = String::from_utf8_lossy(folder);
    if matches!(code, IGNORED | IN_REPOSITORY) {
        let path = String::from_utf8_lossy(&messages).trim_end().to_owned();
        let why = match code {
            IGNORED => "or has files that are: git ignores them there",
            _ => "as a repository of its own",
        };
        let text =
            format!("`{path}` in `{folder}` of the machine is in the way, {why}; nothing was sent");
        let hint = "move or remove it in the machine, or leave the file out of git on this host";
        return Err(ApiError::new(ErrorCode::WrongState, text).with_hint(Hint::text(hint)));
    }
    let text = format!("git failed in `{folder}` of the machine (exit code {code})");
    let mut error = ApiError::new(ErrorCode::GuestFailed, text);
    let messages = String::from_utf8_lossy(&messages);
    error.causes.extend(messages.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned));
    if code == 74 {
        let hint = "`banger run PATH` puts a repository in a new machine";
        return Err(error.with_hint(Hint::text(hint)));
    }
    Err(error)
}

/// Asks for the state.
///
/// # Errors
/// Those of [`Guest::start`], [`read_state`] and [`ended`].
pub fn state(guest: &dyn Guest, folder: &[u8], head: Option<&str>) -> Result<State, ApiError> {
    with_state(guest, &look(folder, head, Wanted::State), folder, |state, _, _| Ok(state))
}

/// Runs a question, whose answer begins with the state; `talk` gets the rest of output and the
/// input, and drops both.
///
/// # Errors
/// As [`state`]; those of `talk`.
pub fn with_state<T>(
    guest: &dyn Guest,
    command: &[OsString],
    folder: &[u8],
    talk: impl FnOnce(State, &mut dyn Read, Box<dyn Write + Send>) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let Talk { output, input, end } = guest.start(command)?;
    let talked = read_state(output).and_then(|(state, mut rest)| {
        let result = talk(state, &mut rest, input)?;
        // The command must not wait for a reader.
        io::copy(&mut rest.by_ref().take(MAX_FIELD), &mut io::sink())
            .map_err(|error| bad("cannot be read").caused_by(&error))?;
        Ok(result)
    });
    match talked {
        Ok(result) => ended(end, folder).map(|()| result),
        // The guest's own reason comes first, if it has one.
        Err(error) => match end() {
            // 129, 141: it ended because its reader did.
            Ok((0 | 129 | 141, _)) | Err(_) => Err(error),
            Ok(failed) => ended(Box::new(|| Ok(failed)), folder).and(Err(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(rest: &str) -> Vec<u8> {
        let id = "a".repeat(40);
        format!("banger workspace 1\0{id}\0refs/heads/x\0{id} one two\0\0{rest}").into_bytes()
    }

    #[test]
    fn an_answer_has_state_files_and_a_rest() {
        let id = "b".repeat(40);
        let zeros = "0".repeat(40);
        let listing = format!(
            "100644 {id} 0\ta\0160000 {id} 0\tsub\0160000 0 0\tnew/\0100644 {id} 0\t.Git/x\0\
             100644 {zeros} 0\t.GIT/y\0\0PACK"
        );
        let answer = answer(&listing);
        let (state, mut rest) = read_state(answer.as_slice()).unwrap();
        assert_eq!(state.head.as_deref(), Some("a".repeat(40).as_str()));
        assert_eq!(state.commits[0].subject, b"one two");
        assert_eq!(state.files.0.len(), 1);
        let left: Vec<_> =
            state.left.iter().map(|left| (left.why.as_str(), left.is_tracked)).collect();
        let own = "is a repository of its own";
        assert_eq!(
            left,
            [(own, true), (own, false), ("leads into `.git`", true), ("leads into `.git`", false)]
        );
        let mut left = Vec::new();
        rest.read_to_end(&mut left).unwrap();
        assert_eq!(left, b"PACK");
    }

    #[test]
    fn answers_in_another_form_are_refused() {
        let id = "b".repeat(40);
        for (bytes, expected) in [
            (b"hello\0".to_vec(), "other words"),
            (b"banger workspace 1\0".to_vec(), "cut off"),
            (b"banger workspace 1\0--upload-pack=x\0".to_vec(), "another name"),
            (answer(&format!("100644 {id} 0\ta\0")), "cut off"),
            (answer(&format!("104755 {id} 0\ta\0\0")), "another form"),
            (answer(&format!("100644 {id} 0\t{}\0\0", "x".repeat(70_000))), "larger"),
        ] {
            let error = read_state(bytes.as_slice()).map(drop).unwrap_err();
            assert!(error.message.contains(expected), "{expected}: {error:?}");
        }
    }
}
