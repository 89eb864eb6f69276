//! Git identity: `user.name` and `user.email` of the host's global git configuration, which git's
//! own program reads, with the files that it includes.
//!
//! A start does not wait for that program: it runs beside the boot, and its answer is good as long
//! as the files are unchanged. The agent writes the values before the guest's init runs.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use banger_agent_proto::boot::{GuestFile, WriteWhen};
use banger_api::ApiError;
use banger_api::handover::{HandoverKind, HandoverState};
use banger_engine::capabilities::git_identity::CAPABILITY;
use banger_engine::capability::{Effects, Preflight, VmContext};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::process::Command;
use tokio::sync::Mutex;

use super::{HostCapability, Parts};
use crate::handover::{Handover, HandoverSettings};
use crate::probe;

/// Where git of the guest looks first.
const GUEST_FILE: &str = "/root/.gitconfig";
/// Time limit for git.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest value, in bytes.
const MAX_VALUE: usize = 1024;
/// Largest configuration file that is looked into for includes, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// An identity: what `[user]` gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Identity {
    name: Option<Vec<u8>>,
    email: Option<Vec<u8>>,
}

/// What git answered, or why it did not.
type Answer = Result<Identity, String>;

/// Device, inode, size and change of each file; absent if there is none.
type Stamps = Vec<Option<(u64, u64, u64, SystemTime)>>;

struct GitIdentity {
    settings: HandoverSettings,
    /// The last answer and the state of the files before it. Locked while git runs.
    last: Mutex<Option<(Stamps, Answer)>>,
}

/// The capability on this host.
pub fn capability(parts: &Parts) -> HostCapability {
    let settings = parts.handover.clone();
    let identity = Arc::new(GitIdentity { settings, last: Mutex::default() });
    let early = Arc::new(ReadEarly(identity.clone()));
    HostCapability {
        effects: Effects { name: CAPABILITY.name, preflight: Some(early), ..Effects::default() },
        guest: Some(Arc::new(move |vm, _devices, config| {
            let mut handover = Handover::default();
            if vm.build.is_none() {
                // On a thread that may block.
                let answer = tokio::runtime::Handle::current().block_on(identity.current());
                config.files.extend(file(answer, &mut handover));
            }
            Ok(handover)
        })),
    }
}

struct ReadEarly(Arc<GitIdentity>);

#[async_trait]
impl Preflight for ReadEarly {
    /// Nothing is checked: the answer is there when the guest asks for its configuration.
    async fn check(&self, context: VmContext<'_>) -> Result<(), ApiError> {
        if context.vm.build.is_none() {
            let identity = self.0.clone();
            tokio::spawn(async move { drop(identity.current().await) });
        }
        Ok(())
    }
}

impl GitIdentity {
    /// The present identity.
    async fn current(&self) -> Answer {
        let mut last = self.last.lock().await;
        let files = self.files();
        let stamps: Stamps = files.iter().map(|path| stamp(path)).collect();
        if let Some((known, answer)) = &*last
            && *known == stamps
            && !files.iter().any(|path| may_include(path))
        {
            return answer.clone();
        }
        let answer = self.ask().await;
        *last = Some((stamps, answer.clone()));
        answer
    }

    /// The files that `git config --global` may read, git-config(1).
    fn files(&self) -> Vec<PathBuf> {
        let HandoverSettings { home, config_home, git_config, .. } = &self.settings;
        if let Some(path) = git_config {
            return vec![path.clone()];
        }
        let config_home = config_home.clone();
        let config_home = config_home.or_else(|| home.as_ref().map(|home| home.join(".config")));
        let home = home.iter().map(|home| home.join(".gitconfig"));
        home.chain(config_home.map(|folder| folder.join("git/config"))).collect()
    }

    /// Asks git. It reads its own configuration only: in `/`, with no other variables.
    async fn ask(&self) -> Answer {
        let HandoverSettings { home, config_home, git_config, search_path, .. } = &self.settings;
        let git = probe::find_program("git".as_ref(), search_path);
        let git = git.ok_or_else(|| "git is not installed on this host".to_owned())?;
        let mut command = Command::new(git);
        command.args(["config", "--global", "--includes", "--null", "--get-regexp"]);
        command.arg(r"^user\.(name|email)$");
        command.env_clear().env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0");
        for (name, value) in
            [("HOME", home), ("XDG_CONFIG_HOME", config_home), ("GIT_CONFIG_GLOBAL", git_config)]
        {
            command.envs(value.as_ref().map(|value| (name, value)));
        }
        command.current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(TIMEOUT, command.output()).await;
        let output = output.map_err(|_| "git did not answer in time".to_owned())?;
        let output = output.map_err(|error| format!("git cannot be run: {error}"))?;
        // 1: no such variable, or no file.
        match output.status.code() {
            Some(0 | 1) => parse(&output.stdout),
            _ => {
                let message = String::from_utf8_lossy(&output.stderr);
                let line = message.lines().next().unwrap_or("git failed");
                Err(crate::guest::clean(line))
            }
        }
    }
}

fn stamp(path: &Path) -> Option<(u64, u64, u64, SystemTime)> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = path.metadata().ok()?;
    let changed = Duration::new(
        u64::try_from(meta.ctime()).unwrap_or_default(),
        u32::try_from(meta.ctime_nsec()).unwrap_or_default(),
    );
    Some((meta.dev(), meta.ino(), meta.len(), SystemTime::UNIX_EPOCH + changed))
}

/// Whether a file may include others, whose changes its stamp does not show.
fn may_include(path: &Path) -> bool {
    let Ok(meta) = path.metadata() else { return false };
    if !meta.is_file() || meta.len() > MAX_FILE {
        return true;
    }
    let content = std::fs::read(path).unwrap_or_default().to_ascii_lowercase();
    content.windows(b"[include".len()).any(|window| window == b"[include")
}

/// Reads `key\nvalue\0` entries; the last value of a key counts.
fn parse(output: &[u8]) -> Answer {
    let mut identity = Identity::default();
    for entry in output.split(|byte| *byte == 0) {
        let Some(end) = entry.iter().position(|byte| *byte == b'\n') else { continue };
        let (key, value) = (entry.get(..end), entry.get(end + 1..).unwrap_or_default());
        let place = match key {
            Some(b"user.name") => &mut identity.name,
            Some(b"user.email") => &mut identity.email,
            _ => continue,
        };
        if value.len() > MAX_VALUE {
            return Err(format!("a value of `user` has more than {MAX_VALUE} bytes"));
        }
        *place = (!value.is_empty()).then(|| value.to_vec());
    }
    Ok(identity)
}

fn file(answer: Answer, handover: &mut Handover) -> Option<GuestFile> {
    let kind = HandoverKind::GitIdentity;
    let identity = match answer {
        Ok(identity) if identity == Identity::default() => {
            let why = "`git config --global` has neither `user.name` nor `user.email`";
            handover.report(kind, GUEST_FILE, HandoverState::Missing, why.to_owned());
            return None;
        }
        Ok(identity) => identity,
        Err(why) => {
            let text = format!("git identity: {why}; the guest keeps what it has");
            tracing::warn!("{text}");
            if !why.contains("not installed") {
                handover.warnings.push(text);
            }
            handover.report(kind, GUEST_FILE, HandoverState::Unreadable, why);
            return None;
        }
    };
    let mut content = b"[user]\n".to_vec();
    for (name, value) in [("name", &identity.name), ("email", &identity.email)] {
        if let Some(value) = value {
            content.extend_from_slice(format!("\t{name} = ").as_bytes());
            content.extend(quoted(value));
            content.push(b'\n');
        }
    }
    handover.report(kind, GUEST_FILE, HandoverState::Copied, None);
    Some(GuestFile {
        path: GUEST_FILE.into(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        content: BASE64.encode(content),
        when: WriteWhen::GitVariables,
    })
}

/// A value as git writes it.
fn quoted(value: &[u8]) -> Vec<u8> {
    let edge = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let inner = value.iter().any(|byte| matches!(byte, b';' | b'#' | b'\r'));
    let quotes: &[u8] =
        if inner || edge(value.first()) || edge(value.last()) { b"\"" } else { b"" };
    let mut text = quotes.to_vec();
    for byte in value {
        match byte {
            b'\n' => text.extend_from_slice(b"\\n"),
            b'\t' => text.extend_from_slice(b"\\t"),
            b'"' | b'\\' => text.extend([b'\\', *byte]),
            byte => text.push(*byte),
        }
    }
    text.extend_from_slice(quotes);
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn identity_of(home: &Path) -> GitIdentity {
        let settings = HandoverSettings {
            home: Some(home.into()),
            search_path: std::env::var_os("PATH").unwrap(),
            ..HandoverSettings::default()
        };
        GitIdentity { settings, last: Mutex::default() }
    }

    fn is(name: &str, email: &str) -> Answer {
        let value = |text: &str| (!text.is_empty()).then(|| text.as_bytes().to_vec());
        Ok(Identity { name: value(name), email: value(email) })
    }

    #[tokio::test]
    async fn the_identity_is_that_of_git_config_global() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let identity = identity_of(home.path());
        assert_eq!(identity.current().await, is("", ""));
        fs::create_dir_all(at(".config/git")).unwrap();
        fs::write(at(".config/git/config"), "[user]\n\tname = Xdg\n").unwrap();
        assert_eq!(identity.current().await, is("Xdg", ""));
        fs::write(at(".gitconfig"), "[user]\n\tname = A\n\tname = \"Ö ; B\"\n\temail = a@b\n")
            .unwrap();
        assert_eq!(identity.current().await, is("Ö ; B", "a@b"));
        fs::write(at(".gitconfig"), "[user\n").unwrap();
        assert!(identity.current().await.unwrap_err().contains("bad config"));
        let path = Some(at("other"));
        let settings = HandoverSettings { git_config: path, ..identity.settings };
        fs::write(at("other"), "[user]\n\tname = Other\n").unwrap();
        let identity = GitIdentity { settings, last: Mutex::default() };
        assert_eq!(identity.current().await, is("Other", ""));
        let settings = HandoverSettings { search_path: "/none".into(), ..identity.settings };
        let identity = GitIdentity { settings, last: Mutex::default() };
        assert!(identity.current().await.unwrap_err().contains("not installed"));
    }

    #[tokio::test]
    async fn included_files_count_and_their_changes_are_seen() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let identity = identity_of(home.path());
        fs::write(
            at(".gitconfig"),
            "[user]\n\tname = A\n[include]\n\tpath = mine\n[includeIf \"gitdir:~/src/\"]\n\
             \tpath = work\n[alias]\n\tx = !touch /tmp/never\n",
        )
        .unwrap();
        fs::write(at("mine"), "[user]\n\tname = Mine\n").unwrap();
        fs::write(at("work"), "[user]\n\tname = Work\n").unwrap();
        assert_eq!(identity.current().await, is("Mine", ""));
        fs::write(at("mine"), "[user]\n\tname = Later\n").unwrap();
        assert_eq!(identity.current().await, is("Later", ""));
    }

    #[tokio::test]
    async fn git_runs_once_for_unchanged_files() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::write(at(".gitconfig"), "[user]\n\tname = A\n").unwrap();
        let script = "#!/bin/sh\necho x >>\"$HOME/runs\"\nprintf 'user.name\\nA\\0'\n";
        fs::write(at("git"), script).unwrap();
        fs::set_permissions(at("git"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut identity = identity_of(home.path());
        identity.settings.search_path = home.path().into();
        for _ in 0..3 {
            assert_eq!(identity.current().await, is("A", ""));
        }
        let runs = || fs::read_to_string(at("runs")).unwrap().lines().count();
        assert_eq!(runs(), 1);
        fs::write(at(".gitconfig"), "[user]\n\tname = AA\n").unwrap();
        identity.current().await.unwrap();
        assert_eq!(runs(), 2);
    }

    #[test]
    fn git_reads_quoted_values_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        for value in ["Ann", " a ", "a;b", "a#b", "q\"\\", "tab\tnew\nline", "\u{e9}\r", "[x]"] {
            let mut content = b"[user]\n\tname = ".to_vec();
            content.extend(quoted(value.as_bytes()));
            fs::write(&path, [content, b"\n".to_vec()].concat()).unwrap();
            let git = std::process::Command::new("git")
                .args(["config", "-f"])
                .arg(&path)
                .args(["-z", "--get", "user.name"])
                .output()
                .unwrap();
            assert_eq!(git.stdout, [value.as_bytes(), b"\0"].concat(), "{value:?}");
        }
    }

    #[tokio::test]
    async fn a_guest_gets_the_section_and_a_report() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(".gitconfig"), "[user]\n\tname = Ann\n\temail = a@b\n").unwrap();
        let identity = identity_of(home.path());
        let mut handover = Handover::default();
        let file = file(identity.current().await, &mut handover).unwrap();
        assert_eq!(file.when, WriteWhen::GitVariables);
        let content = BASE64.decode(&file.content).unwrap();
        assert_eq!(content, b"[user]\n\tname = Ann\n\temail = a@b\n");
        assert_eq!(handover.reports[0].state, HandoverState::Copied);
        assert!(!format!("{handover:?}").contains("Ann"));
    }
}
