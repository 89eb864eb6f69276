//! The environment of mmdebstrap: a temporary folder, and namespaces that end with this process.
//!
//! As root, mmdebstrap mounts file systems into the tree. It gets its own mount and PID namespaces,
//! so that no mount and no process remains however it ends. For an ordinary user mmdebstrap creates
//! the namespaces itself, and its files belong to ids of that user namespace.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::Privilege;
use crate::fetch::{FetchError, NoProgress, PathContext, Progress, Tool, Tools};

/// File in the staging folder with the path of the temporary folder.
const PATH_FILE: &str = "work-folder";
/// Maximum size of that file: PATH_MAX.
const PATH_BYTES: u64 = 4096;

/// A temporary folder; removed when dropped.
///
/// For root it is in the staging folder, unless the path has characters that apt(8) refuses. For an
/// ordinary user it must be accessible to the ids of the namespace, which the staging folder is
/// not. Otherwise it is in the system's temporary folder, and a file in the staging folder names it
/// for the clean-up after a crash.
pub struct WorkFolder<'a> {
    path: PathBuf,
    tools: &'a Tools,
}

impl<'a> WorkFolder<'a> {
    /// Creates one for this staging folder.
    ///
    /// # Errors
    /// mkdir(2), write(2).
    pub fn new(staging: &Path, privilege: Privilege, tools: &'a Tools) -> Result<Self, FetchError> {
        let name = staging.file_name().and_then(|name| name.to_str()).unwrap_or("work");
        let temporary = std::env::temp_dir().join(format!("banger-{name}"));
        let (path, mode) = match privilege {
            Privilege::Root if is_plain(staging) => (staging.join("work"), 0o700),
            Privilege::Root => (temporary, 0o700),
            Privilege::User => (temporary, 0o755),
        };
        let path_file = staging.join(PATH_FILE);
        fs::write(&path_file, path.as_os_str().as_encoded_bytes()).at("write", &path_file)?;
        let made = DirBuilder::new().mode(mode).create(&path);
        made.at("make the folder", &path)?;
        let folder = Self { path, tools };
        // Independent of the umask.
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(&folder.path, permissions).at("open to others", &folder.path)?;
        Ok(folder)
    }

    /// Creates one in the system's temporary folder, which any user may enter.
    ///
    /// # Errors
    /// mkdir(2), write(2).
    pub fn for_anyone(staging: &Path, tools: &'a Tools) -> Result<Self, FetchError> {
        Self::new(staging, Privilege::User, tools)
    }

    /// Removes the folder that belongs to a staging folder, after a crash.
    ///
    /// # Errors
    /// The folder cannot be removed.
    pub fn clean(staging: &Path, tools: &Tools) -> Result<(), FetchError> {
        clean(staging, tools)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkFolder<'_> {
    fn drop(&mut self) {
        // On failure the next clean-up removes it.
        let _ = remove(&self.path, self.tools);
    }
}

/// Whether a path has only characters that apt's configuration takes as they are.
fn is_plain(path: &Path) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+@=,~".contains(byte);
    path.as_os_str().as_encoded_bytes().iter().all(plain)
}

/// Removes the temporary folder that belongs to a staging folder, after a crash.
///
/// # Errors
/// The folder cannot be removed.
pub fn clean(staging: &Path, tools: &Tools) -> Result<(), FetchError> {
    let path_file = staging.join(PATH_FILE);
    let length = fs::symlink_metadata(&path_file).map_or(0, |meta| meta.len());
    if length == 0 || length > PATH_BYTES {
        return Ok(());
    }
    let path = PathBuf::from(OsString::from_vec(fs::read(&path_file).at("read", &path_file)?));
    match fs::symlink_metadata(&path) {
        // In a shared folder another user's folder may have this name by now.
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
    // Only a process in such a namespace can remove files of its ids; the empty folders at the top
    // belong to this user.
    let entries = fs::read_dir(path).at("read the folder", path)?;
    let entries: Vec<OsString> =
        entries.flatten().map(|entry| entry.path().into_os_string()).collect();
    let helper = tools.command("mmdebstrap", "mmdebstrap")?;
    let remove = ["--unshare-helper", "rm", "-rf", "--one-file-system", "--"];
    let removed = helper.args(remove).args(entries).run(&NoProgress);
    fs::remove_dir_all(path).at("remove", path).map_err(|error| removed.err().unwrap_or(error))
}

/// A command for mmdebstrap that ends with this process.
///
/// # Errors
/// No mmdebstrap or util-linux; cancellation.
pub fn mmdebstrap(
    privilege: Privilege,
    tools: &Tools,
    progress: &dyn Progress,
) -> Result<Tool, FetchError> {
    let plain = tools.command("mmdebstrap", "mmdebstrap")?;
    let program = plain.command.get_program().to_owned();
    let setpriv = tools.command("setpriv", "util-linux")?;
    let tool = match (privilege, namespaces(tools, progress)?) {
        (Privilege::Root, Some(unshare)) => {
            setpriv.args(["--pdeathsig", "KILL", "--"]).args([unshare]).args(NAMESPACES)
        }
        // For a user mmdebstrap ends its own namespace; a root that may not create namespaces may
        // not mount either.
        (Privilege::User, _) | (Privilege::Root, None) => {
            setpriv.args(["--pdeathsig", "TERM", "--"])
        }
    };
    Ok(tool.args([program]).named("mmdebstrap"))
}

/// Options of unshare(1); the program follows.
const NAMESPACES: [&str; 6] = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];

/// unshare(1), if this process is allowed to create the namespaces.
fn namespaces(tools: &Tools, progress: &dyn Progress) -> Result<Option<OsString>, FetchError> {
    let unshare = tools.command("unshare", "util-linux")?;
    let program = unshare.command.get_program().to_owned();
    match unshare.args(NAMESPACES).args(["true"]).run(progress) {
        Ok(()) => Ok(Some(program)),
        Err(FetchError::ToolFailed { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
