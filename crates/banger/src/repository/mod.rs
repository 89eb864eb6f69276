//! `banger run PATH`: a repository of this host in a machine.

mod folder;
mod in_workspace;
mod options;
mod record;
mod send;
mod talk;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use banger_api::operation::VmTag;
use banger_api::{ApiError, Hint};
use banger_client::Client;
use banger_workspace::{Options, Repository, Snapshot, pack, place, submodules};

use crate::context::{Context, Format};
use crate::errors::{Failure, usage};
use crate::render::progress::Track;
use crate::render::{plain, to_stderr, warning};

use folder::Folder;
pub use in_workspace::InWorkspace;
pub use options::Sending;
pub use talk::{Machine, store_folder};

/// Home folder of the guest, where repositories are put.
const HOME: &str = "/root";

/// A repository, and what is sent of it.
pub struct Prepared {
    repository: Repository,
    snapshot: Snapshot,
    /// Ids of git objects, one in a line.
    objects: Vec<u8>,
    /// Whether untracked files are sent.
    include_untracked: bool,
    /// The folder in the guest.
    folder: PathBuf,
    /// Its submodules, and theirs.
    submodules: Vec<Prepared>,
}

/// What is put in a machine.
pub enum Content {
    /// A git repository.
    Repository(Box<Prepared>),
    /// A folder with everything in it.
    Folder(Folder),
}

impl Content {
    /// Looks at what is to be sent of this folder.
    ///
    /// # Errors
    /// Not a folder, no repository, or one that cannot be sent; git's.
    pub async fn prepare(path: &Path, sending: &Sending) -> Result<Self, Failure> {
        if sending.copy {
            return Ok(Self::Folder(Folder::find(path)?));
        }
        Ok(Self::Repository(Box::new(prepare(path, sending.options()).await?)))
    }

    /// The folder in the guest.
    pub fn folder(&self) -> &Path {
        match self {
            Self::Repository(prepared) => &prepared.folder,
            Self::Folder(folder) => &folder.guest,
        }
    }

    /// Prints what would be sent.
    ///
    /// # Errors
    /// Standard output's; a file that cannot be read.
    pub async fn show(&self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Repository(prepared) => prepared.show(context),
            Self::Folder(folder) => folder.show(context).await,
        }
    }

    /// One line about files that stay here.
    pub fn report_left_out(&self, context: &Context) {
        if let Self::Repository(prepared) = self {
            prepared.report_left_out(context);
        }
    }

    /// Puts it in a machine. What was made before an error stays. `store` is the folder of its
    /// record, if there is one.
    ///
    /// # Errors
    /// A command that fails in the guest; git's on this host; the connection's.
    pub async fn send(
        &self,
        client: &Client,
        vm: &VmTag,
        store: &Path,
        track: &mut Track,
    ) -> Result<(), Failure> {
        match self {
            Self::Repository(prepared) => {
                let scratch = if store.is_dir() { store.into() } else { std::env::temp_dir() };
                Ok(send::import(client, vm, (prepared, &scratch), track).await?)
            }
            Self::Folder(folder) => folder.send(client, vm.id.as_str(), track).await,
        }
    }
}

/// Looks at the repository of this folder.
///
/// # Errors
/// No repository, or one that cannot be sent; git's.
async fn prepare(path: &Path, options: Options) -> Result<Prepared, Failure> {
    let path = path.to_owned();
    let looking = tokio::task::spawn_blocking(move || {
        let repository = Repository::find(&path)?;
        place::recover(&repository)?;
        let mut snapshot = Snapshot::of(&repository, &options)?;
        let submodules = submodules::collect(&repository, &mut snapshot, &options)?;
        let name = repository.top().file_name().unwrap_or(OsStr::new("repository"));
        let folder = Path::new(HOME).join(name);
        let submodules = submodules
            .into_iter()
            .map(|one| Prepared::of(one.repository, one.snapshot, folder.join(one.path)));
        let submodules = submodules.collect::<Result<Vec<_>, _>>()?;
        let prepared = Prepared::of(repository, snapshot, folder)?;
        let include_untracked = options.include_untracked;
        Ok::<_, ApiError>(Prepared { submodules, include_untracked, ..prepared })
    });
    let prepared = looking.await.map_err(|error| usage("git failed").caused_by(&error))??;
    prepared.all().flat_map(|one| &one.snapshot.warnings).for_each(|text| warning(text));
    Ok(prepared)
}

impl Prepared {
    fn of(repository: Repository, snapshot: Snapshot, folder: PathBuf) -> Result<Self, ApiError> {
        let objects = pack::objects(repository.git(), &snapshot)?;
        Ok(Self {
            repository,
            snapshot,
            objects,
            include_untracked: false,
            folder,
            submodules: Vec::new(),
        })
    }

    /// The repository and its submodules, outer ones first.
    fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.submodules)
    }

    /// One line about untracked files that stay here.
    fn report_left_out(&self, context: &Context) {
        let count: usize = self.all().map(|one| one.snapshot.left_out).sum();
        if count > 0 && context.format == Format::Text {
            let (files, are) = if count == 1 { ("file", "is") } else { ("files", "are") };
            to_stderr(&format!(
                "{count} untracked {files} {are} not sent: `--include-untracked` sends them"
            ));
        }
    }

    /// Prints what would be sent.
    fn show(&self, context: &Context) -> Result<(), Failure> {
        if context.format == Format::Json {
            let mut document = self.document();
            if !self.submodules.is_empty() {
                document["submodules"] = self.submodules.iter().map(Self::document).collect();
            }
            return context.json(&document);
        }
        let lines: Vec<String> = self.all().flat_map(Self::lines).collect();
        context.print(
            &(lines.iter().map(|line| plain::line(line)).collect::<Vec<_>>().join("\n") + "\n"),
        )
    }

    fn document(&self) -> serde_json::Value {
        let Self { repository, snapshot, folder, .. } = self;
        serde_json::json!({
            "repository": repository.top().display().to_string(),
            "folder": folder.display().to_string(),
            "head": snapshot.head,
            "branch": self.branch(),
            "objects": self.object_count(),
            "staged": texts(&snapshot.staged),
            "changed": texts(&snapshot.changed),
            "deleted": texts(&snapshot.deleted),
            "untracked": texts(&snapshot.untracked),
            "left_out": snapshot.left_out,
        })
    }

    fn lines(&self) -> Vec<String> {
        let Self { repository, snapshot, folder, .. } = self;
        let head = snapshot.head.as_deref().map_or("no commit", |id| id.get(..12).unwrap_or(id));
        let branch = self.branch().unwrap_or_else(|| "detached".to_owned());
        let mut lines = vec![
            format!("{} -> {}", repository.top().display(), folder.display()),
            format!("HEAD       {head} ({branch})"),
            format!("objects    {}", self.object_count()),
        ];
        let kinds = [
            ("staged", &snapshot.staged),
            ("changed", &snapshot.changed),
            ("deleted", &snapshot.deleted),
            ("untracked", &snapshot.untracked),
        ];
        for (kind, paths) in kinds {
            lines.extend(texts(paths).iter().map(|path| format!("{kind:<10} {path}")));
        }
        if snapshot.left_out > 0 {
            let files = if snapshot.left_out == 1 { "file" } else { "files" };
            lines.push(format!("not sent   {} untracked {files}", snapshot.left_out));
        }
        lines
    }

    fn branch(&self) -> Option<String> {
        let name = self.snapshot.branch.as_deref()?;
        let name = name.strip_prefix(b"refs/heads/").unwrap_or(name);
        Some(String::from_utf8_lossy(name).into_owned())
    }

    fn object_count(&self) -> usize {
        self.objects.iter().filter(|byte| **byte == b'\n').count()
    }
}

fn texts(paths: &[Vec<u8>]) -> Vec<String> {
    paths.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
}

/// The folder of this host that stands in place of a command, unless it follows `--`.
pub fn folder_of(command: &[OsString], arguments: &[OsString]) -> Option<PathBuf> {
    let path = command.first()?;
    let is_path = matches!(path.as_bytes().first(), Some(b'.' | b'/'));
    let is_folder = is_path && !follows_dashes(command, arguments) && Path::new(path).is_dir();
    is_folder.then(|| PathBuf::from(path))
}

/// Whether a command, which extends to the end of the command line, follows `--`.
fn follows_dashes(command: &[OsString], arguments: &[OsString]) -> bool {
    let before = arguments.len().checked_sub(command.len() + 1);
    before.and_then(|place| arguments.get(place)).is_some_and(|word| word == "--")
}

/// Refuses a command that is meant as a folder: a relative path of a file, or one that leads
/// nowhere, or the mere name of a folder, with `--` after it; not with `--` before it.
///
/// # Errors
/// Such a path.
pub fn refuse_missing(command: &[OsString], arguments: &[OsString]) -> Result<(), ApiError> {
    let Some((path, rest)) = command.split_first() else { return Ok(()) };
    let has_dashes = rest.iter().any(|word| word == "--");
    let is_name = !matches!(path.as_bytes().first(), Some(b'.' | b'/'));
    if is_name && has_dashes && Path::new(path).is_dir() && !follows_dashes(command, arguments) {
        let shown = path.display();
        let text = format!("`{shown}` is a folder here, and would be run as a command");
        let hint = format!(
            "`banger run ./{shown}` puts the folder in a machine, `banger run -- {shown}` runs the \
             command"
        );
        return Err(usage(text).with_hint(Hint::text(hint)));
    }
    let is_relative = path.as_bytes().starts_with(b"./") || path.as_bytes().starts_with(b"../");
    let is_file = Path::new(path).is_file();
    let is_meant = is_relative && (is_file || has_dashes);
    if !is_meant || follows_dashes(command, arguments) || Path::new(path).is_dir() {
        return Ok(());
    }
    let text = match is_file {
        true => format!("`{}` is a file of this host and no folder", path.display()),
        false => format!("there is no folder `{}`", path.display()),
    };
    let hint = "`banger run -- CMD` runs a command of this name in a machine";
    Err(usage(text).with_hint(Hint::text(hint)))
}

/// The command line without the folder: flags may follow it, and the command follows `--`.
///
/// # Errors
/// A second folder.
pub fn without_folder(
    command: &[OsString],
    arguments: &[OsString],
) -> Result<Vec<OsString>, ApiError> {
    let rest = command.get(1..).unwrap_or_default();
    if let Some(second) = folder_of(rest, rest) {
        let text = format!("`{}` is a second folder", second.display());
        return Err(usage(text).with_hint(Hint::text("a machine gets one repository")));
    }
    let before = arguments.len().saturating_sub(command.len());
    Ok(arguments.iter().take(before).chain(rest).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(Into::into).collect()
    }

    #[test]
    fn a_folder_is_a_repository_unless_it_follows_dashes() {
        let folder = |line: &str, command: &str| folder_of(&words(command), &words(line));
        assert_eq!(folder("banger run . --rm", ". --rm"), Some(".".into()));
        assert_eq!(folder("banger run --rm /tmp", "/tmp"), Some("/tmp".into()));
        assert_eq!(folder("banger run -- /tmp", "/tmp"), None);
        let in_line = |before: &str, command: &str| {
            refuse_missing(&words(command), &words(&format!("{before} {command}"))).is_err()
        };
        let refused = |command: &str| in_line("banger run", command);
        assert!(refused("./porj --rm -- make") && refused("../no -- make"));
        assert!(!refused("./porj --rm make") && !refused("make -- x") && !refused("/no -- x"));
        assert!(!refused("./. -- make"));
        assert!(refused("src --rm -- make") && !refused("src --rm make"));
        assert!(!in_line("banger run --", "src -- make"), "as the hint says");
        assert!(refused("./Cargo.toml --dry-run") && !in_line("banger run --", "./Cargo.toml"));
        assert!(!in_line("banger run --", "./script -- make"), "as the hint says");
        assert_eq!(folder("banger run /bin/sh", "/bin/sh"), None);
        assert_eq!(folder("banger run uname -a", "uname -a"), None);
        assert_eq!(folder_of(&[], &words("banger run")), None);
    }

    #[test]
    fn flags_may_follow_the_folder() {
        let without = |line: &str, command: &str| without_folder(&words(command), &words(line));
        let line = without("banger run -q . --rm -- make test", ". --rm -- make test").unwrap();
        assert_eq!(line, words("banger run -q --rm -- make test"));
        assert_eq!(without("banger run . uname", ". uname").unwrap(), words("banger run uname"));
        assert!(without("banger run . /tmp", ". /tmp").unwrap_err().message.contains("second"));
    }
}
