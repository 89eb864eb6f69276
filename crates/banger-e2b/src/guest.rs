//! Programs that this server runs in a sandbox for requests about files, and what they print.

use std::io;

use axum::http::{HeaderMap, header};
use banger_api::boot::{Wait, WaitFor};
use banger_api::{ApiError, ErrorCode};
use banger_client::{AgentSession, Client, Exec, ExecRequest, Output};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::failure::{Code, Failure};
use crate::sandboxes::Sandbox;

/// Time limit for the init of a new machine; commands run after it too.
pub const BOOT_TIMEOUT_MS: u64 = 60_000;
/// Most bytes of error output that are kept.
const MAX_ERRORS: usize = 4096;
/// Most bytes of output.
const MAX_OUTPUT: usize = 8 * 1024 * 1024;

/// `stat`'s format of an entry: a byte that begins it, mode in hexadecimal digits, size, time of
/// modification, owner, group and path, and after another byte the path with the target of a link.
pub const FORMAT: &str = "\x01%f %s %Y %U %G %n\x02%N";

/// The user of a request, `USER:` in its credentials; absent: the superuser.
///
/// # Errors
/// Credentials of another kind, a password.
pub fn user(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let decoded = value.to_str().ok().and_then(|text| text.strip_prefix("Basic "));
    let decoded = decoded.and_then(|text| BASE64_STANDARD.decode(text).ok());
    let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    match text.as_deref().and_then(|text| text.strip_suffix(':')) {
        Some("") => Ok(None),
        Some(user) if !user.contains(':') => Ok(Some(user.to_owned())),
        _ => Err(Failure::invalid("`Authorization` must be a user without password")),
    }
}

/// A connection to the sandbox's agent, once it has booted.
///
/// # Errors
/// The sandbox has ended; the agent or the daemon does not answer.
pub async fn session(client: &Client, sandbox: &Sandbox) -> Result<AgentSession, Failure> {
    let wait = Wait { stage: WaitFor::Booted, timeout_ms: BOOT_TIMEOUT_MS };
    let connected = client.agent_session_at(sandbox.id(), wait).await;
    connected.map(|(session, _)| session).map_err(|error| failure(sandbox, error))
}

/// An error of the daemon about a sandbox: one that is not running has ended.
pub fn failure(sandbox: &Sandbox, error: ApiError) -> Failure {
    match error.code {
        ErrorCode::NotFound | ErrorCode::WrongState => Failure::gone(sandbox.id()),
        _ => error.into(),
    }
}

/// What a program has done.
pub struct Ran {
    /// Exit code as a shell reports it.
    pub code: u8,
    /// Its output.
    pub output: Vec<u8>,
    /// The beginning of its error output.
    pub errors: String,
}

impl Ran {
    /// Its success.
    ///
    /// # Errors
    /// The kind of failure that its message names.
    pub fn ok(self) -> Result<Vec<u8>, Failure> {
        match self.code {
            0 => Ok(self.output),
            _ => Err(refusal(&self.errors)),
        }
    }
}

/// A program for [`run`] and others: in English, with the sandbox's default user.
pub fn program(words: &[&str], user: Option<&str>) -> ExecRequest {
    let variables = [("LC_ALL", "C"), ("QUOTING_STYLE", "literal")];
    ExecRequest {
        argv: words.iter().map(|word| (*word).into()).collect(),
        env: variables.map(|(name, value)| (name.into(), value.into())).to_vec(),
        user: user.map(str::to_owned),
        ..ExecRequest::default()
    }
}

/// Runs a program to its end.
///
/// # Errors
/// As [`session`]; more output than expected; an unknown user.
pub async fn run(
    client: &Client,
    sandbox: &Sandbox,
    user: Option<&str>,
    words: &[&str],
) -> Result<Ran, Failure> {
    let session = session(client, sandbox).await?;
    let failed = |error| failure(sandbox, error);
    let mut exec = Exec::start(session, &program(words, user)).await.map_err(failed)?;
    let mut ran = Ran { code: 0, output: Vec::new(), errors: String::new() };
    loop {
        match exec.output.next().await.map_err(failed)? {
            Output::Stdout(data) => ran.output.extend(data),
            Output::Stderr(data) => keep(&mut ran.errors, &data),
            Output::Exit(status) => {
                if let banger_client::ExitStatus::NotStarted { message, .. } = &status {
                    keep(&mut ran.errors, message.as_bytes());
                }
                ran.code = status.shell_code();
                return Ok(ran);
            }
        }
        if ran.output.len() > MAX_OUTPUT {
            let text = format!("the answer has more than {MAX_OUTPUT} bytes: ask for less");
            return Err(Failure::new(Code::ResourceExhausted, text));
        }
    }
}

/// Keeps the beginning of error output.
pub fn keep(errors: &mut String, data: &[u8]) {
    let room = MAX_ERRORS.saturating_sub(errors.len());
    errors.extend(String::from_utf8_lossy(data).chars().take(room));
}

/// The error of a program, by the words of strerror(3).
pub fn refusal(errors: &str) -> Failure {
    let text = errors.trim_end();
    let code = match text {
        text if text.contains("No such file or directory") => Code::NotFound,
        text if text.contains("File exists") => Code::AlreadyExists,
        text if text.contains("Permission denied") => Code::PermissionDenied,
        text if text.contains("No space left") => Code::ResourceExhausted,
        text if text.contains("ot a directory") || text.contains("s a directory") => {
            Code::InvalidArgument
        }
        _ => Code::Internal,
    };
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = if text.is_empty() { "a program in the sandbox failed".to_owned() } else { text };
    Failure::new(code, text)
}

/// A path of a request as an absolute one: others are those of the user's home.
///
/// # Errors
/// An empty path, a zero byte, or the guest's.
pub async fn absolute(
    client: &Client,
    sandbox: &Sandbox,
    user: Option<&str>,
    path: &str,
) -> Result<String, Failure> {
    if path.is_empty() || path.contains('\0') {
        return Err(Failure::invalid("`path` is empty or has a zero byte"));
    }
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    let home = run(client, sandbox, user, &["pwd"]).await?.ok()?;
    let home = String::from_utf8_lossy(&home);
    let rest = path.strip_prefix("~/").unwrap_or(path.strip_prefix('~').unwrap_or(path));
    let joined = format!("{}/{rest}", home.trim_end_matches(['\n', '/']));
    Ok(joined.trim_end_matches('/').to_owned())
}

/// The name at the end of a path, and the folder that it is in.
pub fn split(path: &str) -> (&str, &str) {
    let path = path.trim_end_matches('/');
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((folder, name)) => (folder, name),
        None => (".", path),
    }
}

/// A file as `stat` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Type and permissions.
    pub mode: u32,
    /// Size in bytes.
    pub size: u64,
    modified_s: i64,
    owner: String,
    group: String,
    /// Path.
    pub path: String,
    target: Option<String>,
}

impl Entry {
    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }

    fn is_link(&self) -> bool {
        self.mode & 0o170_000 == 0o120_000
    }

    /// `filesystem.EntryInfo`.
    pub fn message(&self) -> Value {
        let kind = match self.mode & 0o170_000 {
            0o040_000 => "FILE_TYPE_DIRECTORY",
            0o120_000 => "FILE_TYPE_SYMLINK",
            _ => "FILE_TYPE_FILE",
        };
        let modified = Timestamp::from_second(self.modified_s).unwrap_or_default();
        let mut value = json!({
            "name": split(&self.path).1,
            "type": kind,
            "path": self.path,
            "size": self.size.to_string(),
            "mode": self.mode & 0o7777,
            "permissions": permissions(self.mode),
            "owner": self.owner,
            "group": self.group,
            "modifiedTime": modified.to_string(),
            "isSymlink": self.is_link(),
        });
        if let (Some(target), Some(object)) = (&self.target, value.as_object_mut()) {
            object.insert("symlinkTarget".into(), json!(target));
        }
        value
    }
}

/// Permissions as `ls -l` shows them.
fn permissions(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'L',
        _ => '-',
    };
    let bits = (0..9).rev().map(|bit| (mode >> bit & 1, "xwr".as_bytes()[bit % 3]));
    let bits = bits.map(|(set, letter)| if set == 1 { char::from(letter) } else { '-' });
    std::iter::once(kind).chain(bits).collect()
}

/// The entries that `stat` has printed in [`FORMAT`].
pub fn entries(output: &[u8]) -> Vec<Entry> {
    let text = String::from_utf8_lossy(output);
    text.split('\x01').filter_map(entry).collect()
}

fn entry(record: &str) -> Option<Entry> {
    let (head, quoted) = record.split_once('\x02')?;
    let mut words = head.splitn(6, ' ');
    let mode = u32::from_str_radix(words.next()?, 16).ok()?;
    let size = words.next()?.parse().ok()?;
    let modified_s = words.next()?.parse().ok()?;
    let (owner, group) = (words.next()?.to_owned(), words.next()?.to_owned());
    let path = words.next()?.to_owned();
    let entry = Entry { mode, size, modified_s, owner, group, path, target: None };
    let target = entry.is_link().then(|| target(quoted, &entry.path)).flatten();
    Some(Entry { target, ..entry })
}

/// The target in `PATH -> TARGET`, both perhaps in quotes.
fn target(quoted: &str, path: &str) -> Option<String> {
    let quoted = quoted.strip_suffix('\n').unwrap_or(quoted);
    let bare = |text: &str| text.strip_prefix(path)?.strip_prefix(" -> ").map(str::to_owned);
    let in_quotes = || {
        let rest = quoted.strip_prefix('\'')?.strip_prefix(path)?.strip_prefix("' -> '")?;
        rest.strip_suffix('\'').map(str::to_owned)
    };
    bare(quoted).or_else(in_quotes)
}

/// Reports an error of a stream that has begun: the connection ends early.
pub fn broken(failure: &Failure) -> io::Error {
    io::Error::other(failure.message.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_stat_is_read() {
        let output = b"\x0181a4 5 1700000000 root staff /a b\nc\x02/a b\nc\n\
            \x01a1ff 3 1 root root /l\x02'/l' -> 'to it'\n\x0141ed 4096 2 0 0 /d\x02/d\n\x01junk";
        let found = entries(output);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!((found[0].path.as_str(), found[0].size), ("/a b\nc", 5));
        assert_eq!(found[0].message()["permissions"], "-rw-r--r--");
        assert_eq!(found[0].message()["size"], "5");
        assert_eq!(found[0].message()["modifiedTime"], "2023-11-14T22:13:20Z");
        assert_eq!(found[1].message()["symlinkTarget"], "to it");
        assert_eq!(found[1].message()["type"], "FILE_TYPE_SYMLINK");
        assert!(found[2].is_folder());
        assert_eq!(target("/l -> x -> y\n", "/l").as_deref(), Some("x -> y"));
    }

    #[test]
    fn users_come_without_passwords() {
        let user = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, text.parse().unwrap());
            user(&headers)
        };
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        assert_eq!(user(&basic("dev:")).unwrap().as_deref(), Some("dev"));
        assert_eq!(user(&basic(":")).unwrap(), None);
        for wrong in [basic("dev:secret"), basic("dev"), "Bearer x".into(), "Basic !".into()] {
            assert!(user(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn failures_have_the_kind_that_the_sdk_looks_for() {
        let code = |text: &str| refusal(text).code;
        assert_eq!(code("stat: cannot statx '/x': No such file or directory\n"), Code::NotFound);
        assert_eq!(code("mkdir: cannot create directory '/x': File exists"), Code::AlreadyExists);
        assert_eq!(code("dd: failed to open '/x': Is a directory"), Code::InvalidArgument);
        assert_eq!(code(""), Code::Internal);
    }

    #[test]
    fn paths_are_split() {
        for (path, folder, name) in
            [("/a/b", "/a", "b"), ("/a", "/", "a"), ("/a/b/", "/a", "b"), ("a", ".", "a")]
        {
            assert_eq!(split(path), (folder, name), "{path}");
        }
    }
}
