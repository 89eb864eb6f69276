//! The service `filesystem.Filesystem` of a sandbox, carried out by programs of the guest: `stat`,
//! `find`, `mkdir`, `mv` and `rm`, of coreutils or busybox.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use banger_client::Client;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::failure::{Code, Failure};
use crate::guest::{self, Entry, FORMAT};
use crate::process_rpc::unknown;
use crate::sandboxes::Sandbox;
use crate::{watch, wire};

/// Deepest listing, in levels of folders.
const MAX_DEPTH: u32 = 32;
/// Most entries of a listing.
const MAX_ENTRIES: usize = 20_000;

/// A request.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct About {
    path: String,
    depth: u32,
    source: String,
    destination: String,
}

/// The guest of a request, and who asks.
pub struct Guest<'a> {
    /// The daemon.
    pub client: &'a Client,
    /// The sandbox.
    pub sandbox: &'a Arc<Sandbox>,
    /// User of the guest.
    pub user: Option<&'a str>,
}

/// Answers a request of the service.
pub async fn answer(
    client: &Client,
    sandbox: &Arc<Sandbox>,
    method: &str,
    request: Request,
) -> Response {
    let user = match guest::user(request.headers()) {
        Ok(user) => user,
        Err(failure) => return failure.rpc(),
    };
    let guest = Guest { client, sandbox, user: user.as_deref() };
    if method == "WatchDir" {
        let watched = watch::stream(&guest, request).await;
        return watched.unwrap_or_else(|failure| wire::failed(&failure));
    }
    match unary(&guest, method, request).await {
        Ok(message) => wire::answer(&message),
        Err(failure) => failure.rpc(),
    }
}

async fn unary(guest: &Guest<'_>, method: &str, request: Request) -> Result<Value, Failure> {
    match method {
        "CreateWatcher" => return watch::create(guest, wire::message(request).await?).await,
        "GetWatcherEvents" => return watch::events(guest, wire::message(request).await?),
        "RemoveWatcher" => return watch::remove(guest, wire::message(request).await?),
        _ => {}
    }
    let about: About = wire::message(request).await?;
    match method {
        "Stat" => {
            let path = guest.absolute(&about.path).await?;
            Ok(json!({ "entry": guest.stat(&path).await?.message() }))
        }
        "ListDir" => guest.list(&about.path, about.depth).await,
        "MakeDir" => guest.make(&about.path).await,
        "Move" => guest.rename(&about.source, &about.destination).await,
        "Remove" => {
            let path = guest.absolute(&about.path).await?;
            guest.run(&["rm", "-rf", &path]).await?;
            Ok(json!({}))
        }
        _ => Err(unknown("filesystem.Filesystem", method)),
    }
}

impl Guest<'_> {
    /// A path of the request as an absolute one.
    pub async fn absolute(&self, path: &str) -> Result<String, Failure> {
        guest::absolute(self.client, self.sandbox, self.user, path).await
    }

    /// Runs a program that must succeed.
    async fn run(&self, words: &[&str]) -> Result<Vec<u8>, Failure> {
        guest::run(self.client, self.sandbox, self.user, words).await?.ok()
    }

    /// What is at a path; a symlink is not followed.
    pub async fn stat(&self, path: &str) -> Result<Entry, Failure> {
        self.entry(&["stat", "-c", FORMAT, path]).await
    }

    /// The same for what a symlink leads to.
    pub async fn stat_target(&self, path: &str) -> Result<Entry, Failure> {
        self.entry(&["stat", "-L", "-c", FORMAT, path]).await
    }

    async fn entry(&self, words: &[&str]) -> Result<Entry, Failure> {
        let output = self.run(words).await?;
        let entry = guest::entries(&output).into_iter().next();
        entry.ok_or_else(|| Failure::new(Code::Internal, "cannot read what `stat` has printed"))
    }

    /// Makes the folder that a path is in.
    pub async fn make_parent(&self, path: &str) -> Result<(), Failure> {
        self.run(&["mkdir", "-p", guest::split(path).0]).await.map(drop)
    }

    async fn list(&self, path: &str, depth: u32) -> Result<Value, Failure> {
        if depth > MAX_DEPTH {
            let text = format!("`depth` is {depth}, at most {MAX_DEPTH} is possible");
            return Err(Failure::invalid(text));
        }
        let path = self.absolute(path).await?;
        if !self.stat_target(&path).await?.is_folder() {
            return Err(Failure::invalid(format!("`{}` is not a directory", shown(&path))));
        }
        let depth = depth.max(1).to_string();
        let words = [
            &["find", "-H", &path, "-mindepth", "1", "-maxdepth", &depth][..],
            &["-exec", "stat", "-c", FORMAT, "{}", "+"],
        ];
        let ran = guest::run(self.client, self.sandbox, self.user, &words.concat()).await?;
        let mut entries = guest::entries(&ran.output);
        // Files may have disappeared meanwhile.
        if ran.code != 0 && entries.is_empty() {
            return Err(guest::refusal(&ran.errors));
        }
        if entries.len() > MAX_ENTRIES {
            let text = format!("the folder has more than {MAX_ENTRIES} entries: use a command");
            return Err(Failure::new(Code::ResourceExhausted, text));
        }
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        let entries: Vec<Value> = entries.iter().map(Entry::message).collect();
        Ok(json!({ "entries": entries }))
    }

    async fn make(&self, path: &str) -> Result<Value, Failure> {
        let path = self.absolute(path).await?;
        match self.stat_target(&path).await {
            Ok(entry) if entry.is_folder() => {
                let text = format!("`{}` exists already", shown(&path));
                return Err(Failure::new(Code::AlreadyExists, text));
            }
            Ok(_) => {
                let text = format!("`{}` exists and is not a directory", shown(&path));
                return Err(Failure::invalid(text));
            }
            Err(failure) if failure.code == Code::NotFound => {}
            Err(failure) => return Err(failure),
        }
        self.run(&["mkdir", "-p", &path]).await?;
        Ok(json!({ "entry": self.stat(&path).await?.message() }))
    }

    async fn rename(&self, source: &str, destination: &str) -> Result<Value, Failure> {
        let (source, destination) =
            (self.absolute(source).await?, self.absolute(destination).await?);
        self.stat(&source).await?;
        match self.stat(&destination).await {
            // `mv` would move into it.
            Ok(entry) if entry.is_folder() => {
                let text = format!("`{}` exists and is a directory", shown(&destination));
                return Err(Failure::new(Code::AlreadyExists, text));
            }
            Ok(_) => {}
            Err(failure) if failure.code == Code::NotFound => {
                self.make_parent(&destination).await?
            }
            Err(failure) => return Err(failure),
        }
        self.run(&["mv", "-f", &source, &destination]).await?;
        Ok(json!({ "entry": self.stat(&destination).await?.message() }))
    }
}

/// A path for a message.
pub fn shown(path: &str) -> String {
    banger_api::excerpt(path)
}
