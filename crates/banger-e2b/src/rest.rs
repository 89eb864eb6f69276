//! The REST API: sandboxes are created, listed, kept and killed.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use banger_api::boot::{Wait, WaitFor};
use banger_api::labels::{self, Labels};
use banger_api::vm::{CreateVm, Lifetime, VmDetails};
use banger_api::{ApiError, ErrorCode};
use banger_client::follow::{FollowError, Interrupts, OnInterrupt};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::failure::{Code, Failure};
use crate::guest::BOOT_TIMEOUT_MS;
use crate::listing::{list, listed};
use crate::sandboxes::{Sandbox, Wanted};
use crate::server::Server;
use crate::wire;

/// Key of the label that has the id of the server.
pub const LABEL: &str = "e2b-server";
/// The template that SDKs ask for without another one.
const DEFAULT_TEMPLATE: &str = "base";
/// Version of E2B's agent whose requests are known. Later ones have metadata of files.
pub const ENVD_VERSION: &str = "0.6.1";
/// Time to live without another one.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest time to live.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Largest body of a request.
const MAX_BODY: usize = 1024 * 1024;

/// `POST /v2/sandboxes`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewSandbox {
    #[serde(rename = "templateID")]
    template_id: String,
    timeout: Option<u64>,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
    #[serde(default)]
    env_vars: Option<BTreeMap<String, String>>,
    #[serde(rename = "allow_internet_access")]
    allow_internet_access: Option<bool>,
    auto_pause: Option<bool>,
    auto_resume: Option<Value>,
    network: Option<Value>,
    mcp: Option<Value>,
    iam: Option<Value>,
    volume_mounts: Option<Vec<Value>>,
    /// Every sandbox is accessed with a token.
    #[serde(rename = "secure")]
    _secure: Option<IgnoredAny>,
    /// Of a pause only.
    #[serde(rename = "autoPauseMemory")]
    _auto_pause_memory: Option<IgnoredAny>,
}

/// Bodies with a time in seconds.
#[derive(Deserialize)]
struct Timeout {
    timeout: Option<u64>,
    duration: Option<u64>,
}

/// Answers a request whose key was checked.
pub async fn answer(server: &Server, request: Request) -> Response {
    let path = request.uri().path().trim_matches('/').to_owned();
    let parts: Vec<&str> = path.split('/').collect();
    let parts = parts.strip_prefix(&["v2"]).unwrap_or(&parts);
    let method = request.method().clone();
    let answered = match (&method, parts) {
        (&Method::POST, ["sandboxes"]) => create(server, request).await,
        (&Method::GET, ["sandboxes"]) => list(server, request.uri()).await,
        (&Method::GET, ["sandboxes", id]) => show(server, id).await,
        (&Method::DELETE, ["sandboxes", id]) => kill(server, id).await,
        (&Method::POST, ["sandboxes", id, "connect"]) => connect(server, id, request).await,
        (&Method::POST, ["sandboxes", id, "timeout"]) => set_timeout(server, id, request).await,
        (&Method::POST, ["sandboxes", id, "refreshes"]) => refresh(server, id, request).await,
        _ => Err(missing(&method, &path)),
    };
    answered.unwrap_or_else(|failure| failure.rest())
}

/// The refusal of what this server does not have, with what to use instead.
fn missing(method: &Method, path: &str) -> Failure {
    let instead = [
        ("snapshots", "`banger image commit` makes an image of a machine"),
        ("fork", "create another sandbox; `banger image commit` makes an image of a machine"),
        ("pause", "sandboxes live until their time is over: use a longer `timeout`"),
        ("resume", "sandboxes live until their time is over: use a longer `timeout`"),
        ("metrics", "`banger vm stats` shows what machines use"),
        ("logs", "`banger vm logs` shows the log of a machine"),
        ("network", "choose `allow_internet_access` when the sandbox is created"),
        ("templates", "templates are images here: `banger image build` makes one"),
        ("volumes", "`files.write` and `banger cp` copy files into a sandbox"),
        ("secrets", "pass values as `envs`"),
    ];
    let has = |word: &str| path.split('/').any(|part| part == word);
    let instead = instead.iter().find(|(word, _)| has(word)).map(|(_, text)| *text);
    let instead = instead.unwrap_or("docs/e2b.md lists what there is");
    let text = format!("this server has no `{method} /{}`: {instead}", banger_api::excerpt(path));
    Failure::new(Code::Unimplemented, text)
}

async fn body<T: serde::de::DeserializeOwned>(request: Request) -> Result<T, Failure> {
    wire::parse(&wire::body(request.into_body(), MAX_BODY).await?)
}

/// An answer.
pub fn json(status: StatusCode, value: &Value) -> Response {
    let mut response = wire::answer(value);
    *response.status_mut() = status;
    response
}

fn nothing() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn seconds(wanted: Option<u64>) -> Result<Duration, Failure> {
    let time = wanted.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    if time > MAX_TIMEOUT {
        let (given, most) = (time.as_secs(), MAX_TIMEOUT.as_secs());
        return Err(Failure::invalid(format!(
            "the timeout is {given} s, at most {most} s is possible"
        )));
    }
    Ok(time)
}

/// What the SDK can ask for and this server does not have.
fn check(wanted: &NewSandbox) -> Result<(), Failure> {
    let is_set = |value: &Option<Value>| match value {
        None | Some(Value::Null) => false,
        Some(Value::Object(object)) => object.values().any(|value| !value.is_null()),
        Some(_) => true,
    };
    let off = json!({ "enabled": false });
    let resumes = is_set(&wanted.auto_resume) && wanted.auto_resume.as_ref() != Some(&off);
    let asked = [
        (wanted.auto_pause == Some(true), "pausing a sandbox at its timeout: it is deleted then"),
        (resumes, "resuming a sandbox"),
        (
            is_set(&wanted.network),
            "`network`: there is only `allow_internet_access`, and ports need the traffic token",
        ),
        (is_set(&wanted.mcp), "`mcp`: `banger mcp` offers machines as tools"),
        (is_set(&wanted.iam), "`iam`"),
        (
            wanted.volume_mounts.as_ref().is_some_and(|mounts| !mounts.is_empty()),
            "`volume_mounts`: copy files into the sandbox",
        ),
    ];
    match asked.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => {
            Err(Failure::new(Code::Unimplemented, format!("this server does not have {what}")))
        }
        None => Ok(()),
    }
}

fn machine(server: &Server, wanted: &NewSandbox) -> Result<CreateVm, Failure> {
    let label = labels::parse(&format!("{LABEL}={}", server.id));
    let bad = |error: labels::BadLabel| Failure::new(Code::Internal, error.to_string());
    let image = match wanted.template_id.as_str() {
        DEFAULT_TEMPLATE => server.options.image.clone(),
        image => Some(image.to_owned()),
    };
    let request = CreateVm {
        image,
        nat: wanted.allow_internet_access.filter(|allowed| !allowed),
        labels: Labels::of([label.map_err(bad)?]).map_err(bad)?,
        lifetime: Lifetime::Session,
        ..CreateVm::default()
    };
    request.check()?;
    Ok(request)
}

fn idempotency_key(headers: &HeaderMap) -> Option<String> {
    let key = headers.get("idempotency-key")?.to_str().ok()?;
    Some(key.to_owned())
}

async fn create(server: &Server, request: Request) -> Result<Response, Failure> {
    let key = idempotency_key(request.headers());
    let wanted: NewSandbox = body(request).await?;
    check(&wanted)?;
    let timeout = seconds(wanted.timeout)?;
    let create = machine(server, &wanted)?;
    let _place = server.sandboxes.place()?;
    let accepted = match key {
        // Kept apart from keys of other clients of the daemon.
        Some(key) => {
            let key = format!("e2b-{}-{key}", server.id);
            let key: String = key.chars().take(255).collect();
            server.client.create_once(&create, &key).await?
        }
        None => server.client.create(&create).await?,
    };
    let vm = accepted.vm.clone().ok_or_else(|| {
        Failure::new(Code::Internal, "the daemon's answer does not name the machine")
    })?;
    if let Some(known) = server.sandboxes.get(vm.id.as_str()) {
        return Ok(json(StatusCode::CREATED, &server.summary(&known)));
    }
    // At once: the daemon waits only a while for the holder of a machine. If the client leaves, the
    // hold ends, and with it the machine.
    let hold = match server.client.hold(&vm.id).await {
        Ok(hold) => Some(hold),
        // The creation has failed already: its operation has the reason.
        Err(error) if error.code == ErrorCode::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    started(server, &accepted).await?;
    let wait = Wait { stage: WaitFor::Booted, timeout_ms: BOOT_TIMEOUT_MS };
    server.client.wait_boot(vm.id.as_str(), wait).await?;
    let hold = hold.ok_or_else(|| Failure::gone(vm.id.as_str()))?;
    let wanted = Wanted {
        template: wanted.template_id,
        metadata: wanted.metadata.unwrap_or_default(),
        envs: wanted.env_vars.unwrap_or_default(),
        timeout,
    };
    let sandbox = server.sandboxes.add(&server.client, vm, hold, wanted)?;
    Ok(json(StatusCode::CREATED, &server.summary(&sandbox)))
}

async fn started(
    server: &Server,
    accepted: &banger_api::operation::Accepted,
) -> Result<(), ApiError> {
    let (_never, interrupts) = watch::channel(0);
    let interrupts = Interrupts::new(interrupts);
    match server.client.follow_to_end(accepted, interrupts, OnInterrupt::Cancel, &mut ()).await {
        Ok(_) => Ok(()),
        Err(FollowError::Failed(error) | FollowError::Cancelled(error)) => Err(*error),
        Err(FollowError::WaitEnded(_)) => {
            Err(ApiError::new(ErrorCode::Cancelled, "the wait was cancelled"))
        }
    }
}

/// The sandbox of a request, and its machine.
async fn find(server: &Server, id: &str) -> Result<(std::sync::Arc<Sandbox>, VmDetails), Failure> {
    let absent = || {
        let id = banger_api::excerpt(id);
        let text =
            format!("there is no sandbox `{id}`: it has ended, or this server has not made it");
        Failure::new(Code::NotFound, text)
    };
    let sandbox = server.sandboxes.get(id).ok_or_else(absent)?;
    match server.client.vm(id).await {
        Ok(details) => Ok((sandbox, details)),
        Err(error) if error.code == ErrorCode::NotFound => {
            server.sandboxes.forget(id);
            Err(absent())
        }
        Err(error) => Err(error.into()),
    }
}

async fn show(server: &Server, id: &str) -> Result<Response, Failure> {
    let (sandbox, details) = find(server, id).await?;
    let mut value = listed(server, &sandbox, &details.summary);
    if let Some(object) = value.as_object_mut() {
        object.insert("envdAccessToken".into(), json!(sandbox.token.text()));
        object.insert("domain".into(), json!(server.domain));
    }
    Ok(json(StatusCode::OK, &value))
}

async fn kill(server: &Server, id: &str) -> Result<Response, Failure> {
    find(server, id).await?;
    match server.sandboxes.kill(&server.client, id).await? {
        true => Ok(nothing()),
        false => Err(Failure::new(Code::NotFound, "the sandbox was killed meanwhile")),
    }
}

async fn connect(server: &Server, id: &str, request: Request) -> Result<Response, Failure> {
    let wanted: Timeout = body(request).await?;
    let timeout = seconds(wanted.timeout)?;
    let (sandbox, _) = find(server, id).await?;
    sandbox.extend(timeout);
    Ok(json(StatusCode::OK, &server.summary(&sandbox)))
}

async fn set_timeout(server: &Server, id: &str, request: Request) -> Result<Response, Failure> {
    let wanted: Timeout = body(request).await?;
    let timeout = seconds(wanted.timeout)?;
    find(server, id).await?.0.set_timeout(timeout);
    Ok(nothing())
}

async fn refresh(server: &Server, id: &str, request: Request) -> Result<Response, Failure> {
    let wanted: Timeout = body(request).await?;
    let timeout = seconds(wanted.duration)?;
    find(server, id).await?.0.extend(timeout);
    Ok(nothing())
}

impl Server {
    /// A sandbox as `create` and `connect` answer it.
    fn summary(&self, sandbox: &Sandbox) -> Value {
        json!({
            "sandboxID": sandbox.id(),
            "templateID": sandbox.wanted.template,
            "alias": sandbox.wanted.template,
            "clientID": self.id,
            "envdVersion": ENVD_VERSION,
            "envdAccessToken": sandbox.token.text(),
            "trafficAccessToken": sandbox.port_token.text(),
            "domain": self.domain,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let wanted = |more: Value| {
            let mut value = json!({ "templateID": "base", "metadata": {}, "envVars": {} });
            value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            check(&serde_json::from_value(value).unwrap())
        };
        wanted(json!({ "autoPause": false, "network": null, "autoResume": { "enabled": false } }))
            .unwrap();
        for more in [
            json!({ "autoPause": true }),
            json!({ "network": { "denyOut": ["0.0.0.0/0"] } }),
            json!({ "mcp": { "browserbase": {} } }),
            json!({ "volumeMounts": [{ "name": "v", "path": "/v" }] }),
        ] {
            assert_eq!(wanted(more.clone()).unwrap_err().code, Code::Unimplemented, "{more}");
        }
        let failure = missing(&Method::POST, "sandboxes/x/pause");
        assert!(failure.message.contains("longer `timeout`"), "{failure:?}");
    }

    #[test]
    fn times_have_a_limit() {
        assert_eq!(seconds(None).unwrap().as_secs(), 300);
        assert_eq!(seconds(Some(86_400)).unwrap(), MAX_TIMEOUT);
        assert!(seconds(Some(86_401)).unwrap_err().message.contains("at most 86400 s"));
    }
}
