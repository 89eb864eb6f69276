//! The Agent Client Protocol between an editor of the host and an agent in a machine
//! (agentclientprotocol.com, protocol version 1): JSON-RPC messages, one in a line.
//!
//! A message is carried byte for byte, but for paths of the workspace, which are those of the host
//! on one side and those of the machine on the other, and for offers of the editor to run programs
//! on the host, which the agent does not see. Requests that would reach out of the workspace are
//! answered here.

mod scan;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use banger_api::excerpt;
use scan::{Step, Unreadable, scan, string};
use serde_json::json;

/// Longest message in bytes.
pub const MAX_MESSAGE: usize = 32 * 1024 * 1024;

/// Error codes of JSON-RPC 2.0 and of the protocol.
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;
const RESOURCE_NOT_FOUND: i32 = -32002;

/// The host's side of a workspace.
pub trait Files {
    /// Path beneath the workspace of a path of this host; none for one outside.
    fn beneath(&self, path: &Path) -> Option<PathBuf>;

    /// Whether an agent may have the editor read or write this file, whose path is beneath the
    /// workspace.
    ///
    /// # Errors
    /// Why not, as a part of a sentence.
    fn admit(&self, beneath: &Path) -> Result<(), String>;
}

/// Carries messages between an editor and an agent.
pub struct Relay<F> {
    /// Folder of this host that the editor works in.
    pub host: String,
    /// The same folder in the machine.
    pub guest: String,
    /// The host's files.
    pub files: F,
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Passed<'a> {
    /// It goes on.
    On(Cow<'a, [u8]>),
    /// This answer goes to its sender instead.
    Back(Vec<u8>),
    /// It goes nowhere; why.
    Nowhere(String),
}

/// A value of a message that may have to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A path or a `file:` URI.
    Place,
    /// The same in the parameters themselves, where a session or a request to the file system has
    /// it.
    OwnPlace,
    /// An offer of the editor to run programs.
    Offer,
    /// A command line of a login.
    Login(&'static str),
}

/// A message in which the values with a role are known.
struct Message<'a> {
    text: &'a [u8],
    method: Option<String>,
    id: Option<Range<usize>>,
    values: Vec<(Role, Range<usize>)>,
    /// Whether a name occurs twice where it decides: readers would differ about its value.
    is_ambiguous: bool,
}

impl<'a> Message<'a> {
    fn read(text: &'a [u8]) -> Result<Self, Unreadable> {
        let mut message =
            Self { text, method: None, id: None, values: Vec::new(), is_ambiguous: false };
        let mut names: HashSet<Vec<String>> = HashSet::new();
        scan(text, |path, range| {
            if let [steps @ .., Step::Key(_)] = path
                && steps.len() < 2
                && steps.iter().all(|step| matches!(step, Step::Key(_)))
            {
                message.is_ambiguous |= !names.insert(path.iter().map(name_of).collect());
            }
            match path {
                [step] if step.is("method") => {
                    message.method = string(text.get(range).unwrap_or_default())
                }
                [step] if step.is("id") => message.id = Some(range),
                _ => message.values.extend(role(path).map(|role| (role, range))),
            }
        })?;
        Ok(message)
    }

    fn value(&self, range: &Range<usize>) -> &'a [u8] {
        self.text.get(range.clone()).unwrap_or_default()
    }

    /// The message with some of its values replaced.
    fn with(&self, replace: impl Fn(Role, &[u8]) -> Option<Vec<u8>>) -> Cow<'a, [u8]> {
        let mut edits: Vec<(&Range<usize>, Vec<u8>)> = self
            .values
            .iter()
            .filter_map(|(role, range)| Some((range, replace(*role, self.value(range))?)))
            .collect();
        if edits.is_empty() {
            return Cow::Borrowed(self.text);
        }
        // Of a value within another that is replaced nothing is left.
        edits.sort_by_key(|(range, _)| (range.start, Reverse(range.end)));
        let (mut new, mut done) = (Vec::with_capacity(self.text.len()), 0);
        for (range, text) in edits {
            if range.start >= done {
                new.extend_from_slice(self.value(&(done..range.start)));
                new.extend(text);
                done = range.end;
            }
        }
        new.extend_from_slice(self.value(&(done..self.text.len())));
        Cow::Owned(new)
    }

    /// Answers a request with an error; a notification has no answer.
    fn refused<'b>(&self, code: i32, why: &str) -> Passed<'b> {
        let Some(id) = &self.id else { return Passed::Nowhere(why.to_owned()) };
        let id = String::from_utf8_lossy(self.value(id));
        let error = json!({ "code": code, "message": format!("banger: {why}") });
        Passed::Back(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{error}}}").into_bytes())
    }
}

fn name_of(step: &Step) -> String {
    match step {
        Step::Key(name) => name.clone(),
        Step::Element => String::new(),
    }
}

/// The role of the value at this place.
fn role(path: &[Step]) -> Option<Role> {
    let (top, rest) = path.split_first()?;
    if !top.is("params") && !top.is("result") {
        return None;
    }
    let named = |names: &[&str]| {
        rest.len() == names.len() && rest.iter().zip(names).all(|(step, name)| step.is(name))
    };
    if top.is("params")
        && (named(&["clientCapabilities", "terminal"])
            || named(&["clientCapabilities", "auth", "terminal"])
            || named(&["clientCapabilities", "_meta", "terminal-auth"]))
    {
        return Some(Role::Offer);
    }
    if let [methods, Step::Element, login @ ..] = rest
        && top.is("result")
        && methods.is("authMethods")
    {
        return match login {
            [step] if step.is("args") => Some(Role::Login("[]")),
            [step] if step.is("env") => Some(Role::Login("{}")),
            [meta, step] if meta.is("_meta") && step.is("terminal-auth") => {
                Some(Role::Login("null"))
            }
            _ => None,
        };
    }
    // What tools get and return is their own.
    if rest.iter().any(|step| ["rawInput", "rawOutput", "_meta"].iter().any(|name| step.is(name))) {
        return None;
    }
    let is_place = match rest {
        [.., list, Step::Element] => list.is("additionalDirectories"),
        [.., step] => ["cwd", "path", "oldPath", "uri"].iter().any(|name| step.is(name)),
        [] => false,
    };
    let is_own = top.is("params")
        && match rest {
            [step] => !step.is("uri"),
            [list, Step::Element] => list.is("additionalDirectories"),
            _ => false,
        };
    is_place.then_some(if is_own { Role::OwnPlace } else { Role::Place })
}

impl<F: Files> Relay<F> {
    /// Carries a message of the editor, without the end of its line.
    pub fn from_editor<'a>(&self, line: &'a [u8]) -> Passed<'a> {
        let Ok(message) = Message::read(line) else { return Passed::On(Cow::Borrowed(line)) };
        if is_batch(line) {
            return Passed::Back(batch_refused());
        }
        if message.is_ambiguous {
            return message.refused(INVALID_REQUEST, "a name occurs twice in the message");
        }
        let is_session = message.method.as_deref().is_some_and(|name| name.starts_with("session/"));
        for (role, range) in message.values.iter().filter(|_| is_session) {
            let Some(path) = string(message.value(range)) else { continue };
            if *role == Role::OwnPlace && self.to_guest(&path).is_none() {
                let why = format!(
                    "`{}` is not in `{}`, which the machine has as `{}`",
                    excerpt(&path),
                    self.host,
                    self.guest
                );
                return message.refused(INVALID_PARAMS, &why);
            }
        }
        Passed::On(message.with(|role, value| match role {
            Role::Offer => (value != b"null").then(|| b"false".to_vec()),
            Role::Login(_) => None,
            Role::Place | Role::OwnPlace => quoted(self.to_guest(&string(value)?)?),
        }))
    }

    /// Carries a message of the agent, without the end of its line. An agent may be hostile.
    pub fn from_agent<'a>(&self, line: &'a [u8]) -> Passed<'a> {
        let message = match Message::read(line) {
            Ok(message) => message,
            Err(_) => return Passed::Nowhere(excerpt(&String::from_utf8_lossy(line))),
        };
        if is_batch(line) {
            return Passed::Back(batch_refused());
        }
        if message.is_ambiguous {
            return message.refused(INVALID_REQUEST, "a name occurs twice in the message");
        }
        let method = message.method.as_deref().unwrap_or_default();
        if method.starts_with("terminal/") {
            let why = "the editor runs no commands: run them in the machine";
            return message.refused(METHOD_NOT_FOUND, why);
        }
        if method.starts_with("fs/")
            && let Err(why) = self.admit(&message)
        {
            return message.refused(RESOURCE_NOT_FOUND, &why);
        }
        Passed::On(message.with(|role, value| match role {
            Role::Offer => None,
            Role::Login(nothing) => Some(nothing.as_bytes().to_vec()),
            Role::Place | Role::OwnPlace => quoted(self.to_host(&string(value)?)?),
        }))
    }

    /// Checks the files of a request to the editor's file system.
    fn admit(&self, message: &Message) -> Result<(), String> {
        let paths = message.values.iter().filter(|(role, _)| *role == Role::OwnPlace);
        let mut count = 0;
        for (_, range) in paths {
            count += 1;
            let path = string(message.value(range)).unwrap_or_default();
            let Some(beneath) = self.beneath_guest(Path::new(&path)) else {
                let path = excerpt(&path);
                return Err(format!("`{path}` is not in `{}`", self.guest));
            };
            self.files.admit(&beneath).map_err(|why| format!("`{}` {why}", excerpt(&path)))?;
        }
        if count == 0 { Err("the request names no file".to_owned()) } else { Ok(()) }
    }

    fn beneath_guest(&self, path: &Path) -> Option<PathBuf> {
        plain(path.strip_prefix(&self.guest).ok()?)
    }

    /// A path or URI of the editor as the agent knows it; none if it is not in the workspace.
    fn to_guest(&self, text: &str) -> Option<String> {
        mapped(text, |path| joined(&self.guest, &plain(&self.files.beneath(path)?)?))
    }

    /// A path or URI of the agent as the editor knows it; none if it is not in the workspace.
    fn to_host(&self, text: &str) -> Option<String> {
        mapped(text, |path| joined(&self.host, &self.beneath_guest(path)?))
    }
}

/// The path if it only goes down.
fn plain(path: &Path) -> Option<PathBuf> {
    let goes_down = path.components().all(|part| matches!(part, Component::Normal(_)));
    goes_down.then(|| path.to_owned())
}

fn joined(folder: &str, beneath: &Path) -> Option<String> {
    let path = match beneath.as_os_str().is_empty() {
        true => PathBuf::from(folder),
        false => Path::new(folder).join(beneath),
    };
    path.into_os_string().into_string().ok()
}

/// Maps a path, or the path of a `file:` URI (RFC 8089).
fn mapped(text: &str, map: impl Fn(&Path) -> Option<String>) -> Option<String> {
    let Some(rest) = text.strip_prefix("file://") else {
        return text.starts_with('/').then(|| map(Path::new(text)))?;
    };
    let rest = rest.strip_prefix("localhost").unwrap_or(rest);
    let (path, end) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    let path = decoded(path)?;
    if !path.starts_with('/') {
        return None;
    }
    Some(format!("file://{}{end}", encoded(&map(Path::new(&path))?)))
}

/// Resolves percent-encoding (RFC 3986); none for what is not UTF-8.
fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let value = digit(rest.next())? * 16 + digit(rest.next())?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn encoded(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn quoted(text: String) -> Option<Vec<u8>> {
    serde_json::to_vec(&text).ok()
}

fn is_batch(line: &[u8]) -> bool {
    line.trim_ascii_start().first() == Some(&b'[')
}

fn batch_refused() -> Vec<u8> {
    let message = "banger: batches of messages are not carried";
    let error = json!({ "code": INVALID_REQUEST, "message": message });
    json!({ "jsonrpc": "2.0", "id": null, "error": error }).to_string().into_bytes()
}

#[cfg(test)]
mod tests;
