//! `--sync` and its companions: live folders on the command line.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use banger_api::ByteString;
use banger_api::sync::SyncFolder;

/// Live folders of a new machine.
#[derive(Debug, Clone, clap::Args)]
pub struct SyncOptions {
    /// Keep a folder of this host and one of the machine alike, both ways; repeatable
    ///
    /// The machine's folder is /root/NAME unless another one is given. It is made if it is
    /// missing. Files that `.gitignore` names and `.git` stay where they are.
    #[arg(long, value_name = "PATH[:GUEST]", value_parser = folder, help_heading = "Machine")]
    pub sync: Vec<SyncFolder>,
    /// Leave files out of live folders, as a line of `.gitignore` does; repeatable
    #[arg(long, value_name = "PATTERN", requires = "sync", help_heading = "Machine")]
    pub sync_ignore: Vec<String>,
}

impl SyncOptions {
    /// The folders with their patterns.
    pub fn folders(&self) -> Vec<SyncFolder> {
        let with =
            |folder: &SyncFolder| SyncFolder { ignore: self.sync_ignore.clone(), ..folder.clone() };
        self.sync.iter().map(with).collect()
    }
}

/// Takes out the live folders that share files of the machine with a folder of it. The daemon fills
/// live folders as soon as the machine runs, and an import needs an empty one.
pub fn take_shared(folders: &mut Vec<SyncFolder>, folder: &Path) -> Vec<SyncFolder> {
    let is_shared = |live: &SyncFolder| {
        let live = Path::new(OsStr::from_bytes(live.guest.as_bytes()));
        live.starts_with(folder) || folder.starts_with(live)
    };
    let (shared, others) = std::mem::take(folders).into_iter().partition(is_shared);
    *folders = others;
    shared
}

/// A live folder, `PATH[:GUEST]`. A colon is the separator only before a `/` or `~`.
pub fn folder(text: &str) -> Result<SyncFolder, String> {
    let split = text.rfind(":/").or_else(|| text.rfind(":~"));
    let (path, guest) = match split {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..)),
        None => (text, None),
    };
    let host = Path::new(path).canonicalize().map_err(|error| match path.rsplit_once(':') {
        Some((_, rest)) if split.is_none() => format!(
            "`{path}`: {error}; the machine's folder begins with `/` or `~`, as in `:/root/{rest}`"
        ),
        _ => format!("`{path}`: {error}"),
    })?;
    if !host.is_dir() {
        return Err(format!("`{path}` is not a folder"));
    }
    let home = std::env::var_os("HOME").map(PathBuf::from);
    if home.and_then(|home| home.canonicalize().ok()).is_some_and(|home| home.starts_with(&host)) {
        return Err("a machine could change every setting in it: name a folder in it".into());
    }
    let guest = match guest {
        Some(guest) => match guest.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("/root{rest}").into(),
            _ => ByteString::from(guest),
        },
        None => Path::new("/root").join(host.file_name().unwrap_or_default()).into(),
    };
    Ok(SyncFolder { host: host.into(), guest, ignore: Vec::new() })
}

/// A live folder to remove: its path in the machine, or on this host.
pub fn removed(text: &str) -> Result<ByteString, String> {
    match std::path::absolute(text) {
        // The folder of the host may be gone.
        Ok(path) => Ok(path.canonicalize().unwrap_or(path).into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_folders_that_share_files_with_a_folder_are_taken_out() {
        let live = |guest: &str| SyncFolder {
            host: "/host".into(),
            guest: guest.into(),
            ignore: Vec::new(),
        };
        let all = ["/root/app", "/root/app2", "/root/app/assets", "/root", "/srv"];
        let mut folders: Vec<_> = all.map(live).into();
        let shared = take_shared(&mut folders, Path::new("/root/app"));
        assert_eq!(shared, ["/root/app", "/root/app/assets", "/root"].map(live));
        assert_eq!(folders, ["/root/app2", "/srv"].map(live));
    }

    #[test]
    fn the_machines_folder_follows_the_last_colon() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("a:b");
        std::fs::create_dir(&host).unwrap();
        let host = host.canonicalize().unwrap();
        let text = host.to_str().unwrap();
        for (added, guest) in
            [("", "/root/a:b"), (":/srv/x", "/srv/x"), (":~", "/root"), (":~/x", "/root/x")]
        {
            let folder = folder(&format!("{text}{added}")).unwrap();
            assert_eq!(folder.guest, *guest, "{added}");
            assert_eq!(folder.host, ByteString::from(host.clone()));
        }
        let relative = folder(&format!("{text}:app")).unwrap_err();
        assert!(relative.ends_with("begins with `/` or `~`, as in `:/root/app`"), "{relative}");
        assert!(folder("/no/such/folder").is_err() && folder("/").is_err());
    }
}
