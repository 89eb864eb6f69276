//! What is sent of a repository: HEAD, the index, and the files that differ from it.
//!
//! The commit at HEAD comes without its history. The index comes whole, with conflicts, intents to
//! add and sparse entries. Files of the work tree come as they are on disk where they differ from
//! the index by their stat(2) data, so that no filter has to run.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use banger_api::{ApiError, ErrorCode, Hint};

use crate::git::Git;
use crate::repository::Repository;

/// Other repositories that are named.
const NAMED: usize = 10;

/// Mode of a submodule in an index.
const SUBMODULE: &[u8] = b"160000";

/// Files of a work tree's state that hold a commit, in a merge, cherry-pick or revert in progress.
const OTHER_HEADS: [&str; 3] = ["MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD"];
/// Other files of that state.
const MESSAGES: [&str; 3] = ["MERGE_MSG", "MERGE_MODE", "info/sparse-checkout"];
/// State that is not sent.
const NOT_SENT: [&str; 3] = ["rebase-merge", "rebase-apply", "BISECT_LOG"];

/// Settings that decide how files look in a work tree.
const OF_FILES: [&str; 4] = ["core.autocrlf", "core.eol", "core.sparseCheckout", "core.fileMode"];

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Also files that are neither tracked nor ignored.
    pub include_untracked: bool,
    /// A new branch for the guest, instead of the present one.
    pub branch: Option<String>,
    /// Where the new branch begins: a revision, without the changes of the work tree.
    pub from: Option<String>,
    /// What happens to a repository with submodules.
    pub submodules: Submodules,
    /// Also list the paths whose index differs from HEAD, which only a person reads.
    pub list_staged: bool,
}

/// What happens to a repository with submodules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Submodules {
    /// It is refused.
    #[default]
    Refuse,
    /// They are sent, too: [`crate::submodules`].
    Send,
}

/// An entry of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// As `git ls-files --stage` shows it: mode, object, stage, path.
    pub line: Vec<u8>,
}

impl IndexEntry {
    /// The object.
    pub fn object(&self) -> &[u8] {
        self.line.split(|byte| *byte == b' ').nth(1).unwrap_or_default()
    }

    /// Whether it is a submodule, whose object is a commit of another repository.
    pub fn is_submodule(&self) -> bool {
        self.line.starts_with(SUBMODULE)
    }

    /// The path.
    pub fn path(&self) -> &[u8] {
        self.line.splitn(2, |byte| *byte == b'\t').nth(1).unwrap_or_default()
    }
}

/// What is sent.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The commit at HEAD; none before the first commit.
    pub head: Option<String>,
    /// The branch (`refs/heads/…`); none if HEAD is detached.
    pub branch: Option<Vec<u8>>,
    /// Commits that are sent and have parents, which are not.
    pub shallow: Vec<String>,
    /// The index, without intents to add.
    pub index: Vec<IndexEntry>,
    /// Paths of files that are to be added.
    pub intent_to_add: Vec<Vec<u8>>,
    /// Paths whose index differs from HEAD, if they were asked for.
    pub staged: Vec<Vec<u8>>,
    /// Paths that a sparse checkout leaves out.
    pub sparse: Vec<Vec<u8>>,
    /// Paths of tracked files that differ from the index.
    pub changed: Vec<Vec<u8>>,
    /// Paths of tracked files that do not exist.
    pub deleted: Vec<Vec<u8>>,
    /// Paths of untracked files, if they were asked for.
    pub untracked: Vec<Vec<u8>>,
    /// Number of untracked files that are not sent.
    pub left_out: usize,
    /// Commits of a merge in progress.
    pub other_heads: Vec<String>,
    /// Files of the work tree's state: name in `.git`, content.
    pub state: Vec<(String, Vec<u8>)>,
    /// Settings: name, value.
    pub settings: Vec<(String, Vec<u8>)>,
    /// Path and commit of each submodule.
    pub submodules: Vec<(Vec<u8>, String)>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Snapshot {
    /// Looks at a repository, without changing anything in it.
    ///
    /// # Errors
    /// Submodules, a revision that does not exist, an invalid name of a branch; git's.
    pub fn of(repository: &Repository, options: &Options) -> Result<Self, ApiError> {
        let git = repository.git();
        let mut snapshot = Self { branch: branch(git)?, ..Self::default() };
        if let Some(name) = &options.branch {
            snapshot.branch = Some(new_branch(git, name)?);
        }
        match &options.from {
            Some(revision) => {
                snapshot.read_head(git, revision)?;
                let head = snapshot.head.clone().ok_or_else(|| no_commit(git, revision))?;
                snapshot.read_tree(git, &head)?;
            }
            None => {
                snapshot.read_head(git, "HEAD")?;
                snapshot.read_index(git)?;
                if options.list_staged {
                    snapshot.read_staged(git)?;
                }
                snapshot.read_files(repository, options)?;
                snapshot.read_state(repository)?;
            }
        }
        snapshot.read_submodules(git, options.submodules)?;
        snapshot.read_settings(repository)?;
        Ok(snapshot)
    }

    fn read_head(&mut self, git: &Git, revision: &str) -> Result<(), ApiError> {
        let commit = format!("{revision}^{{commit}}");
        let asked = ["rev-parse", "--verify", "--quiet", "--end-of-options", commit.as_str()];
        let head = match git.optional(asked)? {
            Some(head) => String::from_utf8_lossy(&head).trim().to_owned(),
            None if revision == "HEAD" => return Ok(()),
            None => return Err(no_commit(git, revision)),
        };
        self.shallow.extend(has_parents(git, &head)?.then(|| head.clone()));
        self.head = Some(head);
        Ok(())
    }

    fn read_index(&mut self, git: &Git) -> Result<(), ApiError> {
        let listing = git.output(["ls-files", "--stage", "-z"])?;
        self.index = records(&listing).map(|line| IndexEntry { line: line.to_vec() }).collect();
        let tagged = git.output(["ls-files", "-t", "-z"])?;
        let sparse = records(&tagged).filter_map(|line| line.strip_prefix(b"S "));
        self.sparse = sparse.map(<[u8]>::to_vec).collect();
        Ok(())
    }

    fn read_staged(&mut self, git: &Git) -> Result<(), ApiError> {
        self.staged = match &self.head {
            Some(head) => {
                let asked = ["diff-index", "--cached", "--name-only", "-z", "--no-renames"];
                let listing = git.output(asked.iter().copied().chain([head.as_str(), "--"]))?;
                records(&listing).map(<[u8]>::to_vec).collect()
            }
            None => self.index.iter().map(|entry| entry.path().to_vec()).collect(),
        };
        Ok(())
    }

    /// The index as a checkout of a revision makes it.
    fn read_tree(&mut self, git: &Git, revision: &str) -> Result<(), ApiError> {
        let listing = git.output(["ls-tree", "-r", "-z", "--full-tree", revision])?;
        // Mode, type and object become mode, object and stage.
        let entry = |line: &[u8]| {
            let (facts, path) = line.split_at(line.iter().position(|byte| *byte == b'\t')?);
            let mut facts = facts.split(|byte| *byte == b' ');
            let (mode, object) = (facts.next()?, facts.nth(1)?);
            Some(IndexEntry { line: [mode, b" ", object, b" 0", path].concat() })
        };
        self.index = records(&listing).filter_map(entry).collect();
        Ok(())
    }

    fn read_submodules(&mut self, git: &Git, wanted: Submodules) -> Result<(), ApiError> {
        let submodules = self.index.iter().filter(|entry| entry.is_submodule());
        let of = |entry: &IndexEntry| {
            (entry.path().to_vec(), String::from_utf8_lossy(entry.object()).into_owned())
        };
        self.submodules = submodules.map(of).collect();
        match (wanted, self.submodules.first()) {
            (Submodules::Refuse, Some((first, _))) => {
                let text = format!(
                    "`{}` has submodules ({}), such as `{}`: they are not sent",
                    git.folder().display(),
                    self.submodules.len(),
                    String::from_utf8_lossy(first)
                );
                Err(ApiError::new(ErrorCode::BadRequest, text)
                    .with_hint(Hint::text("`--recurse-submodules` sends those checked out here"))
                    .with_hint(crate::submodules::by_copy()))
            }
            _ => Ok(()),
        }
    }

    fn read_files(&mut self, repository: &Repository, options: &Options) -> Result<(), ApiError> {
        let git = repository.git();
        let asked = ["diff-files", "--raw", "-z", "--no-renames", "--no-ext-diff"];
        let listing = git.output(asked.iter().chain(&["--ignore-submodules=all"]))?;
        let mut fields = records(&listing);
        let (mut changed, mut deleted, mut added) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        while let (Some(meaning), Some(path)) = (fields.next(), fields.next()) {
            match meaning.last() {
                Some(b'D') => drop(deleted.insert(path.to_vec())),
                Some(b'A') => drop(added.insert(path.to_vec())),
                _ => drop(changed.insert(path.to_vec())),
            }
        }
        // A conflict may have no file.
        let (there, gone): (Vec<_>, Vec<_>) = changed.into_iter().partition(|path| {
            git.folder().join(OsStr::from_bytes(path)).symlink_metadata().is_ok()
        });
        let there = there.into_iter().chain(self.other_line_ends(git)?).collect::<BTreeSet<_>>();
        self.index.retain(|entry| !added.contains(entry.path()));
        self.changed = there.into_iter().chain(added.iter().cloned()).collect();
        self.deleted = deleted.into_iter().chain(gone).collect();
        self.intent_to_add = added.into_iter().collect();
        let [untracked, nested] = repository.untracked()?;
        if !options.include_untracked {
            self.left_out = untracked.len();
            return Ok(());
        }
        self.untracked = untracked;
        self.warnings.extend(nested.iter().take(NAMED).map(|path| {
            let path = String::from_utf8_lossy(path.strip_suffix(b"/").unwrap_or(path));
            format!("`{path}` is a repository of its own, which is not sent")
        }));
        if let Some(more) = nested.len().checked_sub(NAMED).filter(|more| *more > 0) {
            self.warnings.push(format!("nor are {more} more repositories in this one"));
        }
        Ok(())
    }

    /// Paths of files whose line ends a checkout in the guest would change.
    fn other_line_ends(&self, git: &Git) -> Result<Vec<Vec<u8>>, ApiError> {
        let set = |name: &str, value: &str| {
            let has = git.optional(["config", "--get", name]);
            Ok::<bool, ApiError>(has?.is_some_and(|found| found.trim_ascii() == value.as_bytes()))
        };
        let writes_crlf = set("core.autocrlf", "true")? || set("core.eol", "crlf")?;
        let has_attributes =
            self.index.iter().any(|entry| entry.path().ends_with(b".gitattributes"));
        if !writes_crlf && !has_attributes && !set("core.autocrlf", "input")? {
            return Ok(Vec::new());
        }
        let listing = git.output(["ls-files", "--eol", "-z"])?;
        let differs = |line: &[u8]| {
            let (facts, path) = line.split_at(line.iter().position(|byte| *byte == b'\t')?);
            let facts = String::from_utf8_lossy(facts).into_owned();
            let mut words = facts.split_whitespace();
            let (index, tree) =
                (words.next()?.strip_prefix("i/")?, words.next()?.strip_prefix("w/")?);
            let is_converted = tree == "lf" && (writes_crlf || facts.contains("eol=crlf"));
            let differs = !tree.is_empty() && (index != tree || is_converted);
            differs.then(|| path.get(1..).unwrap_or_default().to_vec())
        };
        let of_submodules: BTreeSet<&[u8]> =
            self.index.iter().filter(|entry| entry.is_submodule()).map(IndexEntry::path).collect();
        let differing = records(&listing).filter_map(differs);
        Ok(differing.filter(|path| !of_submodules.contains(path.as_slice())).collect())
    }

    fn read_state(&mut self, repository: &Repository) -> Result<(), ApiError> {
        for name in OTHER_HEADS {
            let Some(content) = repository.state(name) else { continue };
            for commit in String::from_utf8_lossy(&content).lines() {
                let has_parents = has_parents(repository.git(), commit)?;
                self.shallow.extend(has_parents.then(|| commit.to_owned()));
                self.other_heads.push(commit.to_owned());
            }
            self.state.push((name.to_owned(), content));
        }
        for name in MESSAGES {
            self.state.extend(repository.state(name).map(|content| (name.to_owned(), content)));
        }
        for name in NOT_SENT.into_iter().filter(|name| repository.has_state(name)) {
            let what = if name.starts_with("rebase") { "rebase" } else { "bisection" };
            self.warnings.push(format!("the {what} in progress is not sent, its files are"));
        }
        Ok(())
    }

    /// Also sends a commit, if the repository has it.
    pub(crate) fn add_commit(&mut self, repository: &Repository, id: &str) -> Result<(), ApiError> {
        let git = repository.git();
        let asked = format!("{id}^{{commit}}");
        let is_there =
            git.optional(["rev-parse", "--verify", "--quiet", asked.as_str()])?.is_some();
        if is_there && self.head.as_deref() != Some(id) {
            self.shallow.extend(has_parents(git, id)?.then(|| id.to_owned()));
            self.other_heads.push(id.to_owned());
        }
        Ok(())
    }

    fn read_settings(&mut self, repository: &Repository) -> Result<(), ApiError> {
        for name in OF_FILES {
            let value = repository.setting(name, false)?;
            self.settings.extend(value.map(|value| (name.to_owned(), value)));
        }
        for name in ["user.name", "user.email"] {
            let value = repository.setting(name, true)?;
            self.settings.extend(value.map(|value| (name.to_owned(), value)));
        }
        if !self.submodules.is_empty() {
            // Only names and addresses: `submodule.NAME.update` may be a command.
            let known = repository.local_settings(r"^submodule\..*\.(url|active)$")?;
            self.settings.extend(known);
        }
        if let Some(url) = repository.setting("remote.origin.url", false)? {
            self.settings.push(("remote.origin.url".into(), url));
            let fetch = b"+refs/heads/*:refs/remotes/origin/*".to_vec();
            self.settings.push(("remote.origin.fetch".into(), fetch));
        }
        Ok(())
    }

    /// Paths of the files that are sent as they are.
    pub fn files(&self) -> impl Iterator<Item = &[u8]> {
        self.changed.iter().chain(&self.untracked).map(Vec::as_slice)
    }
}

/// Whether a commit has parents, also those that a shallow repository lacks.
fn has_parents(git: &Git, commit: &str) -> Result<bool, ApiError> {
    let raw = git.output(["cat-file", "commit", commit])?;
    let mut header = raw.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
    Ok(header.any(|line| line.starts_with(b"parent ")))
}

fn no_commit(git: &Git, revision: &str) -> ApiError {
    let text = format!("`{}` has no commit `{revision}`", git.folder().display());
    ApiError::new(ErrorCode::NotFound, text)
        .with_hint(Hint::text("`git log` shows commits, `git branch -a` branches"))
}

/// The full name of a branch.
pub(crate) fn new_branch(git: &Git, name: &str) -> Result<Vec<u8>, ApiError> {
    let full = format!("refs/heads/{name}");
    match git.optional(["check-ref-format", full.as_str()])? {
        Some(_) if !name.starts_with('-') => Ok(full.into_bytes()),
        _ => Err(ApiError::new(ErrorCode::BadRequest, format!("`{name}` is no name of a branch"))
            .with_hint(Hint::text("git-check-ref-format(1) has the rules"))),
    }
}

/// The branch of HEAD, which may not exist yet.
fn branch(git: &Git) -> Result<Option<Vec<u8>>, ApiError> {
    let name = git.optional(["symbolic-ref", "--quiet", "HEAD"])?;
    Ok(name.map(|mut name| {
        name.pop();
        name
    }))
}

/// Fields that end with a zero byte.
fn records(listing: &[u8]) -> impl Iterator<Item = &[u8]> {
    listing.split(|byte| *byte == 0).filter(|field| !field.is_empty())
}
