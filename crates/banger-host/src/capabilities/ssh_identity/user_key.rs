//! The user's ssh key, which root of every VM accepts: the one of the configuration, or one that is
//! created at the first start of a VM.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use banger_api::doctor::{Check, Verdict};
use banger_api::hint::SetupAdvice;
use banger_api::{ApiError, ErrorCode, Hint};
use banger_engine::capability::Doctor;
use ssh_key::PublicKey;

use super::key;
use crate::failure::{blocking, on_path};
use crate::layout::Layout;

/// Comment of the key, by which users recognise it in `authorized_keys`.
const COMMENT: &str = "banger";

/// Maximum size of a configured key in bytes.
const MAX_KEY: u64 = 64 * 1024;

/// The user's key.
#[derive(Debug, Clone)]
pub struct UserKey {
    /// `ssh_key_path` of the configuration.
    configured: Option<PathBuf>,
    /// The key that is created if none is configured.
    own: PathBuf,
    /// Symlink to the key, for ssh(1): its configuration stays valid if the key changes.
    identity: PathBuf,
    /// Held while the symlinks change: starts at once use the same temporary names.
    linking: Arc<Mutex<()>>,
}

impl UserKey {
    /// The key of a daemon with this configuration.
    pub fn new(layout: &Layout, configured: Option<PathBuf>) -> Self {
        let (own, identity) = (layout.user_key(), layout.user_identity());
        Self { configured, own, identity, linking: Arc::default() }
    }

    /// The public half as one line. Creates the key if none is configured and it is missing.
    ///
    /// # Errors
    /// A full disk; a configured key that is missing; a file that is not a key.
    pub fn public_line(&self) -> Result<String, ApiError> {
        match &self.configured {
            Some(path) => configured_line(path),
            None => own_line(&self.own),
        }
    }

    /// Makes the symlinks for ssh(1) lead to the key: `identity`, and `identity.pub` if the
    /// configured key has a file with its public half.
    ///
    /// # Errors
    /// symlink(2), rename(2), unlink(2).
    pub fn link(&self) -> Result<(), ApiError> {
        let _held = self.linking.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = self.identity.parent().unwrap_or(Path::new("/"));
        make_folder(folder)?;
        // Relative, so that the state folder can be moved.
        let own = Path::new(self.own.file_name().unwrap_or_default());
        let target = self.configured.as_deref().unwrap_or(own);
        point(&self.identity, target).map_err(|e| on_path("create", &self.identity, &e))?;
        let (public, link) = (public_path(target), public_path(&self.identity));
        let linked = match self.configured.is_some() && public.exists() {
            true => point(&link, &public),
            false => fs::remove_file(&link).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            }),
        };
        linked.map_err(|error| on_path("change", &link, &error))
    }
}

#[async_trait]
impl Doctor for UserKey {
    async fn checks(&self) -> Vec<Check> {
        let Some(path) = self.configured.clone() else { return Vec::new() };
        let seen = format!("root of VMs accepts the key `{}`", path.display());
        let read = blocking(move || configured_line(&path)).await;
        let (verdict, seen, hints) = match read {
            Ok(_) => (Verdict::Ok, seen, Vec::new()),
            Err(error) => (Verdict::Missing, error.to_string(), error.hints),
        };
        vec![Check {
            code: "ssh_key".into(),
            verdict,
            seen,
            hints,
            needed_for: vec!["start".into()],
        }]
    }
}

/// `PATH.pub`, where ssh-keygen(1) writes the public half.
fn public_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".pub");
    name.into()
}

/// Makes `link` a symlink to `target` in one step.
fn point(link: &Path, target: &Path) -> io::Result<()> {
    if fs::read_link(link).is_ok_and(|found| found == target) {
        return Ok(());
    }
    // Left by a daemon that was killed.
    let temporary = link.with_extension("new");
    let _ = fs::remove_file(&temporary);
    symlink(target, &temporary).and_then(|()| fs::rename(&temporary, link))
}

/// The public half of the configured key: `PATH.pub`, which keys of any format have, or else that
/// in the private half, which OpenSSH's format does not encrypt.
fn configured_line(path: &Path) -> Result<String, ApiError> {
    let public = public_path(path);
    let parsed = match read_key(&public) {
        Ok(text) => (PublicKey::from_openssh(text.trim()).and_then(|key| key.to_openssh()), public),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match read_key(path) {
            Ok(text) => (key::parse(&text).map(|line| line.trim_end().to_owned()), path.to_owned()),
            Err(error) => return Err(unreadable(path, &error)),
        },
        Err(error) => return Err(unreadable(&public, &error)),
    };
    match parsed {
        (Ok(line), _) => Ok(line + "\n"),
        (Err(error), path) => {
            let text = format!("`{}` of `ssh_key_path` is not an ssh key", path.display());
            let hint = "only the private half of OpenSSH's own format contains the public half: \
                `ssh-keygen -y -f KEY >KEY.pub` writes it beside any other key";
            let error = ApiError::new(ErrorCode::HostNotReady, text).caused_by(&error);
            Err(error.with_hint(Hint::text(hint)))
        }
    }
}

/// Reads a regular file of at most [`MAX_KEY`] bytes.
fn read_key(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = String::new();
    File::open(path)?.take(MAX_KEY + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_KEY {
        return Err(io::Error::other("too large for an ssh key"));
    }
    Ok(text)
}

fn unreadable(path: &Path, error: &io::Error) -> ApiError {
    let shown = path.display();
    let text = format!("cannot read the ssh key `{shown}` of `ssh_key_path`");
    let failed = ApiError::new(ErrorCode::HostNotReady, text).caused_by(error);
    if error.kind() != io::ErrorKind::NotFound {
        return failed;
    }
    let hint = format!(
        "`ssh-keygen -t ed25519 -f {shown}` creates it; without `ssh_key_path` \
        banger uses a key of its own"
    );
    failed.with_hint(Hint::text(hint))
}

/// The public half of the key at `path`, which is created if it is missing.
fn own_line(path: &Path) -> Result<String, ApiError> {
    let private = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(path)?;
            fs::read_to_string(path)
        }
        read => read,
    };
    let private = private.map_err(|error| on_path("read", path, &error))?;
    key::parse(&private).map_err(|error| {
        let text = format!("the ssh key `{}` is damaged", path.display());
        ApiError::new(ErrorCode::Corrupt, text)
            .caused_by(&error)
            .with_hint(SetupAdvice::RemoveFile { path: path.display().to_string() })
    })
}

/// Creates the key whole under another name first, so that it is never seen in part. Two at once
/// agree on one key, since link(2) replaces nothing.
fn create(path: &Path) -> Result<(), ApiError> {
    make_folder(path.parent().unwrap_or(Path::new("/")))?;
    let random = getrandom::u64().map_err(|error| {
        let text = format!("cannot get random numbers for `{}`: {error}", path.display());
        ApiError::new(ErrorCode::Internal, text)
    })?;
    let made = path.with_file_name(format!(".new-{random:016x}"));
    let linked = key::create(&made, COMMENT).map(|_| fs::hard_link(&made, path));
    key::remove(&made)?;
    match linked? {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(on_path("create", path, &error))
        }
        _ => Ok(()),
    }
}

fn make_folder(folder: &Path) -> Result<(), ApiError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(folder).map_err(|error| on_path("create", folder, &error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const PUBLIC: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAgEB a comment";

    fn user_key(state: &Path, configured: Option<PathBuf>) -> UserKey {
        let layout = Layout { state: state.into(), data: state.into(), cache: state.into() };
        UserKey::new(&layout, configured)
    }

    #[test]
    fn the_key_is_created_once_also_by_many_at_once() {
        let state = tempfile::tempdir().unwrap();
        let key = user_key(state.path(), None);
        let path = state.path().join("ssh/id_ed25519");
        let makers: Vec<_> = (0..8)
            .map(|_| {
                let key = key.clone();
                std::thread::spawn(move || {
                    let line = key.public_line().unwrap();
                    key.link().unwrap();
                    line
                })
            })
            .collect();
        let lines: Vec<String> = makers.into_iter().map(|maker| maker.join().unwrap()).collect();
        assert!(lines[0].starts_with("ssh-ed25519 ") && lines[0].ends_with(" banger\n"));
        assert!(lines.iter().all(|line| *line == lines[0]), "{lines:?}");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let identity = state.path().join("ssh/identity");
        assert_eq!(fs::read(&identity).unwrap(), fs::read(&path).unwrap());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
        fs::write(&path, "nonsense").unwrap();
        let error = key.public_line().unwrap_err();
        assert_eq!(error.code, ErrorCode::Corrupt);
        assert!(error.hint().unwrap().starts_with("remove `"));
    }

    #[tokio::test]
    async fn a_configured_key_is_used_and_no_other_is_created() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("mine");
        let key = user_key(state.path(), Some(path.clone()));
        let missing = key.public_line().unwrap_err();
        assert_eq!(missing.code, ErrorCode::HostNotReady);
        assert!(missing.hint().unwrap().starts_with("`ssh-keygen -t ed25519 -f "), "{missing:?}");

        key::create(&path, "of mine").unwrap();
        assert!(key.public_line().unwrap().ends_with(" of mine\n"));
        key.link().unwrap();
        let ssh = state.path().join("ssh");
        assert_eq!(fs::read_link(ssh.join("identity")).unwrap(), path);
        assert!(!ssh.join("identity.pub").exists() && !ssh.join("id_ed25519").exists());

        // The private half may be in any format, or in an ssh agent only.
        assert_eq!(key.checks().await[0].verdict, Verdict::Ok);
        fs::write(&path, "-----BEGIN RSA PRIVATE KEY-----\n").unwrap();
        let other = key.public_line().unwrap_err();
        assert!(other.hint().unwrap().contains("ssh-keygen -y -f KEY >KEY.pub"), "{other:?}");
        assert_eq!(key.checks().await[0].verdict, Verdict::Missing);
        fs::write(state.path().join("mine.pub"), format!("{PUBLIC}\n")).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(key.public_line().unwrap(), format!("{PUBLIC}\n"));
        key.link().unwrap();
        assert!(fs::read_to_string(ssh.join("identity.pub")).unwrap().starts_with("ssh-rsa "));

        let own = user_key(state.path(), None);
        own.public_line().unwrap();
        own.link().unwrap();
        assert_eq!(fs::read_link(ssh.join("identity")).unwrap(), Path::new("id_ed25519"));
        assert!(!ssh.join("identity.pub").exists());
    }

    #[test]
    fn files_that_are_no_keys_are_refused() {
        let state = tempfile::tempdir().unwrap();
        let public = state.path().join("key.pub");
        let key = user_key(state.path(), Some(state.path().join("key")));
        for text in ["", "nonsense", "ssh-rsa AAAA\nssh-rsa BBBB", "command=\"x\" ssh-rsa AAAA"] {
            fs::write(&public, text).unwrap();
            assert_eq!(key.public_line().unwrap_err().code, ErrorCode::HostNotReady, "{text}");
        }
        fs::write(&public, vec![b'x'; 100_000]).unwrap();
        assert!(key.public_line().unwrap_err().to_string().contains("cannot read"));
        fs::remove_file(&public).unwrap();
        fs::create_dir(&public).unwrap();
        assert!(key.public_line().unwrap_err().causes[0].contains("not a regular file"));
    }
}
