//! Where mmdebstrap works: a temporary folder, and namespaces that end with us.
//!
//! Root's run mounts things into the tree it builds. It is given a mount and a process namespace of
//! its own, so that nothing is left mounted, and nobody is left running, however it ends. An
//! ordinary user's run makes such namespaces itself, and its files belong to ids of that namespace.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::fetch::{FetchError, NoProgress, PathContext, Progress, Tool, Tools};

/// File of the staging folder that says where the temporary folder is.
const NOTE: &str = "work-folder";
/// Longest path in it, in bytes: PATH_MAX.
const NOTE_BYTES: u64 = 4096;

/// Who runs mmdebstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Root.
    Root,
    /// An ordinary user.
    User,
}

impl Who {
    /// Who we are.
    pub fn am_i() -> Self {
        if rustix::process::geteuid().is_root() { Self::Root } else { Self::User }
    }
}

/// A temporary folder; removed when dropped.
///
/// Root's is in the staging folder. An ordinary user's must be open to the ids of the namespace,
/// which the staging folder is not, so it is beside everybody else's temporary files, and the
/// staging folder has a note of it for whoever cleans up after a crash.
pub struct WorkFolder<'a> {
    path: PathBuf,
    tools: &'a Tools,
}

impl<'a> WorkFolder<'a> {
    /// Makes one for this staging folder.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub fn new(staging: &Path, who: Who, tools: &'a Tools) -> Result<Self, FetchError> {
        let (path, mode) = match who {
            Who::Root => (staging.join("work"), 0o700),
            Who::User => {
                let name = staging.file_name().and_then(|name| name.to_str()).unwrap_or("work");
                (std::env::temp_dir().join(format!("banger-{name}")), 0o755)
            }
        };
        let note = staging.join(NOTE);
        fs::write(&note, path.as_os_str().as_encoded_bytes()).at("write", &note)?;
        let made = DirBuilder::new().mode(mode).create(&path);
        made.at("make the folder", &path)?;
        let folder = Self { path, tools };
        // Whatever the umask is.
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(&folder.path, permissions).at("open to others", &folder.path)?;
        Ok(folder)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkFolder<'_> {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next clean-up.
        let _ = remove(&self.path, self.tools);
    }
}

/// Removes the temporary folder that a staging folder tells of, after a crash.
///
/// # Errors
/// One that cannot be removed.
pub fn clean(staging: &Path, tools: &Tools) -> Result<(), FetchError> {
    let note = staging.join(NOTE);
    let length = fs::symlink_metadata(&note).map_or(0, |meta| meta.len());
    if length == 0 || length > NOTE_BYTES {
        return Ok(());
    }
    let path = PathBuf::from(fs::read_to_string(&note).at("read", &note)?);
    match fs::symlink_metadata(&path) {
        // In a folder for everybody another's could have the name by now.
        Ok(meta) if meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw() => {
            remove(&path, tools)
        }
        _ => Ok(()),
    }
}

fn remove(path: &Path, tools: &Tools) -> Result<(), FetchError> {
    match fs::remove_dir_all(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) => return Err(FetchError::io("remove", path, error)),
    }
    // Files of the namespace's ids can only be removed from within such a namespace; the folders at
    // the top, empty then, only from without.
    let entries = fs::read_dir(path).at("read the folder", path)?;
    let entries: Vec<OsString> =
        entries.flatten().map(|entry| entry.path().into_os_string()).collect();
    let helper = tools.command("mmdebstrap", "mmdebstrap")?;
    let remove = ["--unshare-helper", "rm", "-rf", "--one-file-system", "--"];
    let removed = helper.args(remove).args(entries).run(&NoProgress);
    fs::remove_dir_all(path).at("remove", path).map_err(|error| removed.err().unwrap_or(error))
}

/// A command for mmdebstrap that ends when we do.
///
/// # Errors
/// No mmdebstrap or util-linux; cancellation.
pub fn mmdebstrap(who: Who, tools: &Tools, progress: &dyn Progress) -> Result<Tool, FetchError> {
    let plain = tools.command("mmdebstrap", "mmdebstrap")?;
    let program = plain.command.get_program().to_owned();
    let setpriv = tools.command("setpriv", "util-linux")?;
    let tool = match (who, namespaces(tools, progress)?) {
        (Who::Root, Some(unshare)) => {
            setpriv.args(["--pdeathsig", "KILL", "--"]).args([unshare]).args(NAMESPACES)
        }
        // A user's run ends its own namespace when it cleans up; root without the right to make one
        // has not the right to mount either.
        (Who::User, _) | (Who::Root, None) => setpriv.args(["--pdeathsig", "TERM", "--"]),
    };
    Ok(tool.args([program]).named("mmdebstrap"))
}

/// Options of unshare(1); the program follows.
const NAMESPACES: [&str; 6] = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];

/// unshare(1), if we may use it.
fn namespaces(tools: &Tools, progress: &dyn Progress) -> Result<Option<OsString>, FetchError> {
    let unshare = tools.command("unshare", "util-linux")?;
    let program = unshare.command.get_program().to_owned();
    match unshare.args(NAMESPACES).args(["true"]).run(progress) {
        Ok(()) => Ok(Some(program)),
        Err(FetchError::ToolFailed { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
