//! `banger run PATH`: a repository of this host in a machine.

mod send;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use banger_api::{ApiError, Hint};
use banger_workspace::{Options, Repository, Snapshot, pack};

use crate::context::{Context, Format};
use crate::errors::{Failure, usage};
use crate::render::{plain, to_stderr, warning};

pub use send::import;

/// Home folder of the guest, where repositories are put.
const HOME: &str = "/root";

/// A repository, and what is sent of it.
pub struct Prepared {
    repository: Repository,
    snapshot: Snapshot,
    /// Ids of git objects, one in a line.
    objects: Vec<u8>,
    /// The folder in the guest.
    pub folder: PathBuf,
}

/// Looks at the repository of this folder.
///
/// # Errors
/// No repository, or one that cannot be sent; git's.
pub async fn prepare(path: &Path, options: Options) -> Result<Prepared, Failure> {
    let path = path.to_owned();
    let looking = tokio::task::spawn_blocking(move || {
        let repository = Repository::find(&path)?;
        let snapshot = Snapshot::of(&repository, &options)?;
        let objects = pack::objects(repository.git(), &snapshot)?;
        let name = repository.top().file_name().unwrap_or(OsStr::new("repository"));
        let folder = Path::new(HOME).join(name);
        Ok::<_, ApiError>(Prepared { repository, snapshot, objects, folder })
    });
    let prepared = looking.await.map_err(|error| usage("git failed").caused_by(&error))??;
    prepared.snapshot.warnings.iter().for_each(|text| warning(text));
    Ok(prepared)
}

impl Prepared {
    /// One line about untracked files that stay here.
    pub fn report_left_out(&self, context: &Context) {
        let count = self.snapshot.left_out;
        if count > 0 && context.format == Format::Text {
            let (files, are) = if count == 1 { ("file", "is") } else { ("files", "are") };
            to_stderr(&format!(
                "{count} untracked {files} {are} not sent: `--include-untracked` sends them"
            ));
        }
    }

    /// Prints what would be sent.
    ///
    /// # Errors
    /// Standard output's.
    pub fn show(&self, context: &Context) -> Result<(), Failure> {
        let Self { repository, snapshot, objects, folder } = self;
        let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let list = |paths: &[Vec<u8>]| paths.iter().map(|path| text(path)).collect::<Vec<_>>();
        let objects = objects.iter().filter(|byte| **byte == b'\n').count();
        let branch = snapshot
            .branch
            .as_deref()
            .map(|name| text(name.strip_prefix(b"refs/heads/").unwrap_or(name)));
        if context.format == Format::Json {
            return context.json(&serde_json::json!({
                "repository": repository.top().display().to_string(),
                "folder": folder.display().to_string(),
                "head": snapshot.head,
                "branch": branch,
                "objects": objects,
                "changed": list(&snapshot.changed),
                "deleted": list(&snapshot.deleted),
                "untracked": list(&snapshot.untracked),
                "left_out": snapshot.left_out,
            }));
        }
        let head = snapshot.head.as_deref().map_or("no commit", |id| id.get(..12).unwrap_or(id));
        let branch = branch.unwrap_or_else(|| "detached".to_owned());
        let mut lines = vec![
            format!("{} -> {}", repository.top().display(), folder.display()),
            format!("HEAD       {head} ({branch})"),
            format!("objects    {objects}"),
        ];
        let kinds = [
            ("changed", &snapshot.changed),
            ("deleted", &snapshot.deleted),
            ("untracked", &snapshot.untracked),
        ];
        for (kind, paths) in kinds {
            lines.extend(list(paths).iter().map(|path| format!("{kind:<10} {path}")));
        }
        lines.push(format!("not sent   {} untracked files", snapshot.left_out));
        context.print(
            &(lines.iter().map(|line| plain::line(line)).collect::<Vec<_>>().join("\n") + "\n"),
        )
    }
}

/// The folder of this host that stands in place of a command, unless it follows `--`.
pub fn folder_of(command: &[OsString], arguments: &[OsString]) -> Option<PathBuf> {
    let path = command.first()?;
    // The command extends to the end of the command line.
    let before = arguments.len().checked_sub(command.len() + 1);
    let escaped = before.and_then(|place| arguments.get(place)).map(OsString::as_os_str);
    let is_path = matches!(path.as_bytes().first(), Some(b'.' | b'/'));
    let is_folder = is_path && escaped != Some(OsStr::new("--")) && Path::new(path).is_dir();
    is_folder.then(|| PathBuf::from(path))
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
