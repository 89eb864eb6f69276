//! The guest's commits and uncommitted changes as a new branch of the host's repository. The work
//! tree, the index and other branches stay as they are.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::process::Stdio;

use banger_api::{ApiError, ErrorCode, Hint};

use crate::fetch::{self, Limits};
use crate::git::{Git, finished, started};
use crate::guest::{self, Guest, Left, State, Wanted, bad};
use crate::manifest::Entry;
use crate::names;
use crate::snapshot::new_branch;
use crate::workspace::Workspace;

/// A new branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branched {
    /// Its commit.
    pub id: String,
    /// Commits of the guest on it.
    pub commits: usize,
    /// Whether a commit with the uncommitted changes was added.
    pub has_uncommitted: bool,
    /// What is left in the guest, and is in no commit of it.
    pub left: Vec<Left>,
}

impl Workspace {
    /// Makes a branch with the guest's commits since the one that was sent, and one more for what
    /// is not committed there. `vm`: name of the machine.
    ///
    /// # Errors
    /// A branch that exists, or an invalid name; nothing new in the guest; submodules and paths
    /// that must not be checked out; the guest's, git's.
    pub fn branch(
        &mut self,
        guest: &dyn Guest,
        limits: &Limits,
        name: &str,
        vm: &str,
    ) -> Result<Branched, ApiError> {
        let reference =
            String::from_utf8_lossy(&new_branch(self.repository.git(), name)?).into_owned();
        let exists = ["rev-parse", "--verify", "--quiet", reference.as_str()];
        if self.repository.git().optional(exists)?.is_some() {
            let text =
                format!("`{}` has a branch `{name}` already", self.repository.top().display());
            return Err(ApiError::new(ErrorCode::NameTaken, text)
                .with_hint(Hint::text("choose another name")));
        }
        let sent = self.record.head.clone();
        let folder = self.record.folder.clone();
        let command = guest::look(&folder, sent.as_deref(), Wanted::Commits);
        let new = guest::with_state(guest, &command, &folder, |state, rest, mut input| {
            refuse(&state)?;
            let objects = self.store.new_objects(&self.repository)?;
            let git = self.store.bare(&objects)?;
            let files: Vec<&Entry> = state.files.0.values().collect();
            let missing: BTreeSet<String> = fetch::missing(&git, &files)?.into_iter().collect();
            let new: Vec<&Entry> =
                files.into_iter().filter(|file| missing.contains(&file.object)).collect();
            let mut list: Vec<String> = state.head.iter().cloned().collect();
            list.extend(sent.iter().map(|id| format!("^{id}")));
            list.extend(missing);
            // A guest that does not read says why at its end.
            let _ = input.write_all((list.join("\n") + "\n").as_bytes());
            drop(input);
            if !list.is_empty() {
                fetch::receive(&git, rest, limits)?;
            }
            fetch::check(&git, &new, limits)?;
            let git = git.with("GIT_ALLOC_LIMIT", "1g");
            let tip = Tip { git: &git, state: &state, sent: sent.as_deref() };
            let (new, has_uncommitted) = tip.commit(&objects.used_by(self.repository.git()), vm)?;
            let commits = tip.check(&new, limits)?;
            let branched = Branched {
                id: new,
                commits: commits - usize::from(has_uncommitted),
                has_uncommitted,
                left: state.left.clone(),
            };
            Ok((branched, git))
        })?;
        let (branched, git) = new;
        copy(&git, self.repository.git(), &branched.id, sent.as_deref())?;
        let none = "0".repeat(branched.id.len());
        let message = format!("banger: pull from {vm}");
        let update = ["update-ref", "-m", &message, &reference, &branched.id, &none];
        self.repository.git().output(update)?;
        Ok(branched)
    }
}

/// A path that stays in the guest cannot be left out of commits that have it.
fn refuse(state: &State) -> Result<(), ApiError> {
    let mut tracked = state.left.iter().filter(|left| left.is_tracked);
    let Some(Left { path, why, .. }) = tracked.next() else { return Ok(()) };
    let path = String::from_utf8_lossy(path);
    let text = format!("`{path}` {why}, and git takes it there: no branch can have it");
    Err(ApiError::new(ErrorCode::GuestFailed, text)
        .with_hint(Hint::text("`pull` without `--branch` leaves such paths out")))
}

/// The end of the new branch.
struct Tip<'a> {
    git: &'a Git,
    state: &'a State,
    /// The commit that was sent.
    sent: Option<&'a str>,
}

impl Tip<'_> {
    /// The commit for the branch, and whether it is one of the uncommitted changes. `identified`:
    /// git with the user's identity.
    fn commit(&self, identified: &Git, vm: &str) -> Result<(String, bool), ApiError> {
        let tree = fetch::tree(self.git, &self.state.files.0)?;
        let head = self.state.head.as_deref();
        if let Some(head) = head {
            let of_head = format!("{head}^{{tree}}");
            let of_head = self.git.output(["rev-parse", "--verify", of_head.as_str()])?;
            if of_head.trim_ascii() == tree.as_bytes() {
                if self.sent == Some(head) {
                    return Err(nothing(vm));
                }
                return Ok((head.to_owned(), false));
            }
        } else if self.state.files.0.is_empty() {
            return Err(nothing(vm));
        }
        let message = format!("Uncommitted changes of the machine `{vm}`");
        let mut arguments = vec!["commit-tree", "-m", &message];
        arguments.extend(head.iter().flat_map(|head| ["-p", head]));
        arguments.push(&tree);
        let id = identified.output(arguments).map_err(|error| {
            error
                .with_hint(Hint::text("`git config --global user.name` and `user.email` set yours"))
        })?;
        Ok((String::from_utf8_lossy(&id).trim().to_owned(), true))
    }

    /// Checks that everything of the new commits is here, and is nothing that must not be checked
    /// out. Returns their number.
    fn check(&self, new: &str, limits: &Limits) -> Result<usize, ApiError> {
        let mut range = vec!["rev-list".to_owned(), new.to_owned()];
        range.extend(self.sent.map(|sent| format!("^{sent}")));
        let commits = self.git.output(&range)?;
        let count = commits.iter().filter(|byte| **byte == b'\n').count();
        if count > limits.commits {
            let text = format!(
                "the machine has {count} new commits; at most {} are taken",
                limits.commits
            );
            return Err(ApiError::new(ErrorCode::GuestFailed, text));
        }
        range.extend(["--objects".to_owned(), "--quiet".to_owned()]);
        self.git.output(&range).map_err(|error| {
            let mut refused = bad("lacks objects of its commits");
            refused.causes = error.causes;
            refused
        })?;
        let arguments = [
            "diff-tree",
            "--stdin",
            "-r",
            "-m",
            "--root",
            "--raw",
            "-z",
            "--no-renames",
            "--no-commit-id",
            "--no-ext-diff",
        ];
        let raw = self.git.filter(&arguments, commits)?;
        let mut fields = raw.split(|byte| *byte == 0).filter(|field| !field.is_empty());
        while let (Some(facts), Some(path)) = (fields.next(), fields.next()) {
            let new_mode = facts.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
            let why = match (new_mode, names::check(path)) {
                (b"160000", _) => "is a repository of its own",
                (_, Err(refusal)) => refusal.text(),
                (_, Ok(())) if names::is_submodule_list(path) => "is the list of submodules",
                (_, Ok(())) => continue,
            };
            let text = format!("a commit has `{}`, which {why}", String::from_utf8_lossy(path));
            return Err(ApiError::new(ErrorCode::GuestFailed, text)
                .with_hint(Hint::text("`pull` without `--branch` brings files without commits")));
        }
        Ok(count)
    }
}

fn nothing(vm: &str) -> ApiError {
    let text = format!("`{vm}` has no commits and no changes since the repository was sent");
    ApiError::new(ErrorCode::WrongState, text)
}

/// Copies a commit with all that it needs, but for what `known` has, into a repository.
fn copy(from: &Git, to: &Git, new: &str, known: Option<&str>) -> Result<(), ApiError> {
    let mut list = format!("{new}\n");
    list.extend(known.map(|known| format!("^{known}\n")));
    let arguments = ["pack-objects", "--stdout", "-q", "--delta-base-offset", "--revs"];
    let mut packing = from.stream(arguments, list.into_bytes())?;
    let mut command = to.command(["index-pack", "--stdin", "--strict"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let (mut storing, messages) = started(command)?;
    let copied = match storing.stdin.take() {
        Some(mut input) => io::copy(&mut packing.stdout, &mut input).map(drop),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    };
    let packed = packing.finish();
    finished(storing, messages, to.folder())?;
    packed?;
    copied.map_err(|error| {
        ApiError::new(ErrorCode::Internal, "the commits cannot be stored").caused_by(&error)
    })
}
