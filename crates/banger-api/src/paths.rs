//! The folders of an installation: a pure function of the environment, shared by all programs.
//!
//! `BANGER_HOME=DIR` places all folders under `DIR`; `BANGER_STATE_DIR` moves the state folder;
//! otherwise the XDG Base Directory Specification applies. If the state folder is not the user's
//! default one, the run folder is inside it, so that two daemons never use the same socket.

use std::path::{Path, PathBuf};

use crate::VmId;
use crate::error::{ApiError, ErrorCode};
use crate::hint::{Hint, SetupAdvice};

/// The folders of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Configuration.
    pub config: PathBuf,
    /// Database, logs, VMs.
    pub state: PathBuf,
    /// Images and kernels.
    pub data: PathBuf,
    /// Files that can be fetched or built again.
    pub cache: PathBuf,
    /// Sockets of the daemon.
    pub run: PathBuf,
}

impl Paths {
    /// Resolves the folders from environment variables, read through `env`, and a user id.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] for a relative `BANGER_HOME` or `BANGER_STATE_DIR`,
    /// [`ErrorCode::HostNotReady`] if neither `BANGER_HOME` nor `HOME` is set.
    pub fn resolve<T: Into<PathBuf>>(
        env: impl Fn(&str) -> Option<T>,
        uid: u32,
    ) -> Result<Self, ApiError> {
        let folder = |name: &str| env(name).map(Into::into).filter(|p| !p.as_os_str().is_empty());
        let ours = |name: &str| match folder(name) {
            Some(path) if path.is_relative() => {
                let text = format!("`{name}` is `{}`, which is not absolute", path.display());
                Err(ApiError::new(ErrorCode::BadRequest, text)
                    .with_hint(SetupAdvice::UseAbsolutePath { variable: name.to_owned() }))
            }
            other => Ok(other),
        };
        let state_dir = ours("BANGER_STATE_DIR")?;
        let mut paths = match ours("BANGER_HOME")? {
            Some(home) => Self::under(&home),
            None => Self::xdg(folder, uid)?,
        };
        if let Some(state) = state_dir {
            paths.run = state.join("run");
            paths.state = state;
        }
        Ok(paths)
    }

    fn under(home: &Path) -> Self {
        Self {
            config: home.join("config"),
            state: home.join("state"),
            data: home.join("data"),
            cache: home.join("cache"),
            run: home.join("run"),
        }
    }

    fn xdg(folder: impl Fn(&str) -> Option<PathBuf>, uid: u32) -> Result<Self, ApiError> {
        // The specification requires that relative values are ignored.
        let absolute = |name: &str| folder(name).filter(|path| path.is_absolute());
        let home = absolute("HOME").or_else(|| (uid == 0).then(|| PathBuf::from("/root")));
        let base = |name: &str, below: &str| {
            absolute(name).or_else(|| home.as_ref().map(|home| home.join(below))).ok_or_else(|| {
                ApiError::new(ErrorCode::HostNotReady, "neither `HOME` nor `BANGER_HOME` is set")
                    .with_hint(Hint::UseFolder { variable: "BANGER_HOME".into() })
            })
        };
        let state = base("XDG_STATE_HOME", ".local/state")?.join("banger");
        let run = match absolute("XDG_RUNTIME_DIR").filter(|_| uid != 0) {
            Some(runtime) => runtime.join("banger"),
            None => state.join("run"),
        };
        Ok(Self {
            config: base("XDG_CONFIG_HOME", ".config")?.join("banger"),
            data: base("XDG_DATA_HOME", ".local/share")?.join("banger"),
            cache: base("XDG_CACHE_HOME", ".cache")?.join("banger"),
            state,
            run,
        })
    }

    /// The API's socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("bangerd.sock")
    }

    /// The session socket, see [`crate::session`].
    pub fn session_socket(&self) -> PathBuf {
        self.run.join("session.sock")
    }

    /// Folder with the record of a VM's workspace: which repository of this host is in it. The
    /// daemon removes it with the VM.
    pub fn workspace(&self, vm: &VmId) -> PathBuf {
        self.state.join("vms").join(vm.as_str()).join("workspace")
    }

    /// Folder of the user's ssh key for all VMs, known host keys and the ssh configuration.
    pub fn ssh_folder(&self) -> PathBuf {
        self.state.join("ssh")
    }

    /// Symlink to the private part of the user's ssh key for all VMs.
    pub fn ssh_identity(&self) -> PathBuf {
        self.ssh_folder().join("identity")
    }

    /// Host keys of VMs, as in sshd(8).
    pub fn ssh_known_hosts(&self) -> PathBuf {
        self.ssh_folder().join("known_hosts")
    }

    /// Configuration for ssh(1) with all VMs.
    pub fn ssh_config(&self) -> PathBuf {
        self.ssh_folder().join("config")
    }

    /// Log folder.
    pub fn log_folder(&self) -> PathBuf {
        self.state.join("log")
    }

    /// The daemon's log.
    pub fn daemon_log(&self) -> PathBuf {
        self.log_folder().join("bangerd.log")
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.config.join("config.toml")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(env: &[(&str, &str)], uid: u32) -> Result<Paths, ApiError> {
        let get = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
        Paths::resolve(get, uid)
    }

    #[test]
    fn banger_home_contains_all_folders() {
        let paths = resolve(&[("BANGER_HOME", "/b"), ("HOME", "/h")], 1000).unwrap();
        assert_eq!(paths, Paths::under(Path::new("/b")));
        assert_eq!(paths.socket(), Path::new("/b/run/bangerd.sock"));
        assert_eq!(paths.session_socket(), Path::new("/b/run/session.sock"));
        assert_eq!(paths.daemon_log(), Path::new("/b/state/log/bangerd.log"));
    }

    #[test]
    fn banger_state_dir_moves_the_sockets() {
        for home in [("BANGER_HOME", "/b"), ("HOME", "/h")] {
            let paths = resolve(&[home, ("BANGER_STATE_DIR", "/s")], 1000).unwrap();
            assert_eq!(paths.state, Path::new("/s"));
            assert_eq!(paths.run, Path::new("/s/run"));
            assert!(!paths.data.starts_with("/s"));
        }
    }

    #[test]
    fn xdg_is_followed() {
        let plain = resolve(&[("HOME", "/h")], 1000).unwrap();
        assert_eq!(plain.state, Path::new("/h/.local/state/banger"));
        assert_eq!(plain.run, Path::new("/h/.local/state/banger/run"));
        assert_eq!(plain.config_file(), Path::new("/h/.config/banger/config.toml"));
        let env = [("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/user/7"), ("XDG_DATA_HOME", "/d")];
        let moved = resolve(&env, 7).unwrap();
        assert_eq!(moved.run, Path::new("/run/user/7/banger"));
        assert_eq!(moved.data, Path::new("/d/banger"));
        // A root shell often inherits the user's run folder, which is removed when the user logs
        // out.
        assert_eq!(resolve(&env, 0).unwrap().run, Path::new("/h/.local/state/banger/run"));
        let relative = resolve(&[("HOME", "/h"), ("XDG_STATE_HOME", "x")], 7).unwrap();
        assert_eq!(relative.state, plain.state);
        assert_eq!(resolve(&[], 0).unwrap().cache, Path::new("/root/.cache/banger"));
    }

    #[test]
    fn relative_and_missing_homes_are_errors() {
        let relative = resolve(&[("BANGER_HOME", "b"), ("HOME", "/h")], 1).unwrap_err();
        assert_eq!(relative.message, "`BANGER_HOME` is `b`, which is not absolute");
        assert_eq!(resolve(&[], 1).unwrap_err().code, ErrorCode::HostNotReady);
        let empty = resolve(&[("BANGER_HOME", ""), ("HOME", "/h")], 1).unwrap();
        assert_eq!(empty.state, Path::new("/h/.local/state/banger"));
    }
}
