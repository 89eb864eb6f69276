//! The page of one VM, and its forms.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Extension, Json};
use banger_api::publish::PortForward;
use banger_api::set::{SetVm, Unpublish};
use banger_api::size::{MIB, human_size};
use banger_api::vm::{DEFAULT_GRACE_MS, StartReport, Timing, VmAction, VmDetails, VmState};
use banger_api::{ApiError, ErrorCode};
use banger_client::text::{self, stopped_because};

use crate::form::{Fields, bad};
use crate::live::{Log, LogChoice};
use crate::page::{Answer, Chrome, Section, back, render};
use crate::routes::Routes;
use crate::site::{Session, Shared};

/// The routes of this module.
pub fn routes() -> Routes {
    Routes::new()
        .route("/vms/{vm}", get(show))
        .route("/vms/{vm}/usage", get(usage))
        .route("/vms/{vm}/actions", post(act))
        .route("/vms/{vm}/ports", post(ports))
        .route("/vms/{vm}/settings", post(settings))
}

/// A VM that an action is for.
pub struct Target {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: VmState,
}

#[derive(Template)]
#[template(path = "vm.html")]
struct VmPage {
    page: Chrome,
    parts: Vec<Part>,
    vm: VmDetails,
    log: Log,
}

/// A part of the page that is replaced when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Id of its element.
    pub id: &'static str,
    /// The element.
    pub html: String,
}

#[derive(Template)]
#[template(path = "vm_head.html")]
struct Head<'a> {
    vm: &'a VmDetails,
    csrf: &'a str,
    why: String,
}

#[derive(Template)]
#[template(path = "vm_facts.html")]
struct Facts<'a> {
    vm: &'a VmDetails,
}

#[derive(Template)]
#[template(path = "vm_start.html")]
struct Start<'a> {
    report: Option<&'a StartReport>,
}

#[derive(Template)]
#[template(path = "vm_ports.html")]
struct Ports<'a> {
    vm: &'a VmDetails,
    csrf: &'a str,
}

/// The parts of the page that change with the VM.
///
/// # Errors
/// A value cannot be formatted.
pub fn parts(vm: &VmDetails, csrf: &str) -> Result<Vec<Part>, ApiError> {
    let failed = |error: askama::Error| {
        ApiError::new(ErrorCode::Internal, "the page cannot be rendered").caused_by(&error)
    };
    let why = vm.stopped_because.as_ref();
    let why = why.map(|because| sentence(&text::line(&stopped_because(because))));
    let why = why.unwrap_or_default();
    Ok(vec![
        Part { id: "vm-head", html: Head { vm, csrf, why }.render().map_err(failed)? },
        Part { id: "vm-ports", html: Ports { vm, csrf }.render().map_err(failed)? },
        Part {
            id: "vm-start",
            html: Start { report: vm.start.as_ref() }.render().map_err(failed)?,
        },
        Part { id: "vm-facts", html: Facts { vm }.render().map_err(failed)? },
    ])
}

impl Head<'_> {
    fn can(&self, action: &str) -> bool {
        use VmState::{Broken, Deleting, Paused, Running, Starting, Stopped, Stopping};
        let state = self.vm.summary.state;
        match action {
            "start" | "reset" => state == Stopped,
            "stop" => matches!(state, Running | Paused | Starting),
            "restart" | "pause" => state == Running,
            "resume" => state == Paused,
            "kill" => matches!(state, Running | Paused | Starting | Stopping),
            "repair" => state == Broken,
            "delete" => state != Deleting,
            _ => false,
        }
    }
}

impl Facts<'_> {
    fn sizes(&self) -> String {
        let memory = self.vm.summary.memory_mib.map(|mib| human_size(mib * MIB));
        let vcpus = self.vm.summary.vcpus.map(|count| format!("{count} vCPUs"));
        let known: Vec<String> = vcpus.into_iter().chain(memory).collect();
        known.join(", ")
    }

    fn disk(&self, used: &u64, size: &u64) -> String {
        format!("{} of {}", human_size(*used), human_size(*size))
    }
}

/// A stage as a bar.
struct Bar<'a> {
    timing: &'a Timing,
    /// Where it begins and how long it is, in steps of 1 percent of the whole.
    begin: u64,
    length: u64,
}

impl Start<'_> {
    fn bars<'a>(&self, stages: &'a [Timing]) -> Vec<Bar<'a>> {
        let whole = stages.iter().map(|stage| stage.ms).sum::<u64>().max(1);
        let mut done = 0;
        let bar = |timing: &'a Timing| {
            let begin = done * 100 / whole;
            done += timing.ms;
            let length = (done * 100 / whole).saturating_sub(begin).max(1);
            Bar { timing, begin: begin.min(99), length: length.min(100 - begin.min(99)) }
        };
        stages.iter().map(bar).collect()
    }
}

impl Ports<'_> {
    /// A link to a published port, under another name than that of this page: cookies do not tell
    /// ports apart, and the session's cookie is not for the guest.
    fn link(&self, port: &PortForward) -> String {
        let host = match port.listen {
            ip if ip.is_loopback() || ip.is_unspecified() => "localhost".to_owned(),
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        };
        format!("http://{host}:{}/", port.host_port)
    }
}

/// A fragment as a sentence.
fn sentence(fragment: &str) -> String {
    let mut characters = fragment.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), characters.as_str())
}

async fn show(
    State(site): Shared,
    Extension(session): Session,
    Path(vm): Path<String>,
    Query(choice): Query<LogChoice>,
) -> Answer {
    let vm = site.client.vm(&vm).await?;
    let page = Chrome::new(&site, &session, Section::Vms);
    let parts = parts(&vm, &page.csrf)?;
    render(&VmPage { page, parts, vm, log: choice.log })
}

/// `GET /vms/{vm}/usage`: the last hour, for the charts.
async fn usage(State(site): Shared, Path(vm): Path<String>) -> Answer {
    let vm = site.client.vm(&vm).await?;
    Ok(Json(site.history.columns(&vm.summary.id)).into_response())
}

/// The action of a form.
///
/// # Errors
/// An unknown action or a bad value.
pub fn action_of(name: &str, fields: &Fields) -> Result<VmAction, ApiError> {
    let grace_ms = match fields.number("grace", "Grace period")? {
        Some(seconds) => u64::from(seconds) * 1000,
        None => DEFAULT_GRACE_MS,
    };
    Ok(match name {
        "start" => VmAction::Start {},
        "stop" => VmAction::Stop { grace_ms },
        "restart" => VmAction::Restart { grace_ms },
        "kill" => VmAction::Kill {},
        "pause" => VmAction::Pause {},
        "resume" => VmAction::Resume {},
        "delete" => VmAction::Delete { force: fields.ticked("force") },
        "repair" => VmAction::Repair {},
        "reset" => VmAction::Reset {},
        _ => return Err(bad("there is no such action")),
    })
}

/// An action in progress, in words.
pub fn progressive(action: &VmAction) -> &'static str {
    match action {
        VmAction::Start {} => "Starting",
        VmAction::Stop { .. } => "Stopping",
        VmAction::Restart { .. } => "Restarting",
        VmAction::Kill {} => "Killing",
        VmAction::Pause {} => "Pausing",
        VmAction::Resume {} => "Resuming",
        VmAction::Delete { .. } => "Deleting",
        VmAction::Repair {} => "Repairing",
        VmAction::Reset {} => "Resetting",
        VmAction::Set(_) => "Changing",
        VmAction::Rename { .. } => "Renaming",
    }
}

/// The question before an action that loses data.
#[derive(Template)]
#[template(path = "confirm.html")]
struct ConfirmPage {
    page: Chrome,
    to: String,
    action: &'static str,
    title: &'static str,
    consequence: &'static str,
    targets: Vec<Target>,
    /// Whether a VM must be killed for it.
    forced: bool,
}

/// The page that asks before an action that loses data.
///
/// # Errors
/// A value cannot be formatted.
pub fn confirmation(page: Chrome, to: &str, action: &VmAction, targets: Vec<Target>) -> Answer {
    let (title, consequence) = match action {
        VmAction::Delete { .. } => ("Delete", "Its disks are removed, with everything on them."),
        VmAction::Reset {} => {
            ("Reset", "Its root disk is replaced by a fresh one. The work disk stays.")
        }
        _ => ("Kill", "The guest does not shut down: what it has not written is lost."),
    };
    let forced = matches!(action, VmAction::Delete { .. })
        && targets.iter().any(|vm| vm.state != VmState::Stopped);
    let (to, action) = (to.to_owned(), action.as_str());
    render(&ConfirmPage { page, to, action, title, consequence, targets, forced })
}

async fn act(
    State(site): Shared,
    Extension(session): Session,
    Path(vm): Path<String>,
    fields: Fields,
) -> Answer {
    let name = fields.required("action", "The action")?;
    let action = action_of(&name, &fields)?;
    let asks = matches!(action, VmAction::Kill {} | VmAction::Delete { .. } | VmAction::Reset {});
    let here = format!("/vms/{}", banger_api::routes::encode(&vm));
    if asks && !fields.ticked("confirmed") {
        let vm = site.client.vm(&vm).await?.summary;
        let target = Target { id: vm.id.to_string(), name: vm.name.to_string(), state: vm.state };
        let page = Chrome::new(&site, &session, Section::Vms);
        return confirmation(page, &format!("{here}/actions"), &action, vec![target]);
    }
    let result = site.client.act(&vm, action.clone()).await;
    let is_gone = matches!(action, VmAction::Delete { .. }) && result.is_ok();
    let result = result.map(|accepted| {
        let name = accepted.vm.map_or(vm, |vm| vm.name.to_string());
        match accepted.operation {
            Some(_) => format!("{} {name}", progressive(&action)),
            None => format!("{name} is in that state already"),
        }
    });
    Ok(back(&site, &session, if is_gone { "/" } else { &here }, result))
}

/// `POST /vms/{vm}/ports`: publishes a port, or ends that.
async fn ports(
    State(site): Shared,
    Extension(session): Session,
    Path(vm): Path<String>,
    fields: Fields,
) -> Answer {
    let here = format!("/vms/{}", banger_api::routes::encode(&vm));
    let result = match port_change(&fields) {
        Ok(set) => site.client.act(&vm, VmAction::Set(Box::new(set))).await,
        Err(error) => Err(error),
    };
    let result = result.map(|_| "The published ports were changed".to_owned());
    Ok(back(&site, &session, &here, result))
}

fn port_change(fields: &Fields) -> Result<SetVm, ApiError> {
    if let Some(port) = fields.get("unpublish") {
        let port: PortForward = port.parse().map_err(|error| bad(format!("{error}")))?;
        let (listen, host_port) = (Some(port.listen), port.host_port);
        let unpublish = vec![Unpublish::Port { listen, host_port }];
        return Ok(SetVm { unpublish, ..SetVm::default() });
    }
    let publish = fields.ports("publish")?;
    if publish.is_empty() {
        return Err(bad("no port is given: write HOST:GUEST, such as 8080:80"));
    }
    Ok(SetVm { publish, ..SetVm::default() })
}

/// `POST /vms/{vm}/settings`: changes the specification or the name.
async fn settings(
    State(site): Shared,
    Extension(session): Session,
    Path(vm): Path<String>,
    fields: Fields,
) -> Answer {
    let here = format!("/vms/{}", banger_api::routes::encode(&vm));
    let result = match setting_change(&fields) {
        Ok(action) => site.client.act(&vm, action).await,
        Err(error) => Err(error),
    };
    // A renamed VM has another path; its id stays.
    let here = match &result {
        Ok(accepted) => accepted.vm.as_ref().map_or(here, |vm| format!("/vms/{}", vm.id)),
        Err(_) => here,
    };
    let result = result.map(|accepted| match accepted.warnings.is_empty() {
        true => "The settings were changed".to_owned(),
        false => format!("The settings were changed: {}", accepted.warnings.join("; ")),
    });
    Ok(back(&site, &session, &here, result))
}

fn setting_change(fields: &Fields) -> Result<VmAction, ApiError> {
    if let Some(name) = fields.get("name") {
        let name = name.parse().map_err(|error| bad(format!("{error}")))?;
        return Ok(VmAction::Rename { name });
    }
    Ok(VmAction::Set(Box::new(SetVm {
        vcpus: fields.number("vcpus", "vCPUs")?,
        memory_mib: fields.size_mib("memory", "Memory")?,
        root_bytes: fields.size("root", "Root disk")?,
        work_bytes: fields.size("work", "Work disk")?,
        nat: fields.choice("nat"),
        autostart: fields.choice("autostart"),
        ..SetVm::default()
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_a_guest_has_another_host_than_the_page() {
        let port = |text: &str| text.parse::<PortForward>().unwrap();
        let vm: VmDetails = serde_json::from_value(crate::vm::tests::details()).unwrap();
        let ports = Ports { vm: &vm, csrf: "" };
        assert_eq!(ports.link(&port("8080:80")), "http://localhost:8080/");
        assert_eq!(ports.link(&port("[::1]:8080:80")), "http://localhost:8080/");
        assert_eq!(ports.link(&port("192.0.2.1:8080:80")), "http://192.0.2.1:8080/");
    }

    #[test]
    fn bars_fill_the_whole() {
        let stage = |ms| Timing { name: "x".into(), ms };
        let stages = [stage(100), stage(0), stage(300)];
        let start = Start { report: None };
        let bars: Vec<(u64, u64)> =
            start.bars(&stages).iter().map(|bar| (bar.begin, bar.length)).collect();
        assert_eq!(bars, [(0, 25), (25, 1), (25, 75)]);
        assert!(start.bars(&[stage(0), stage(0)]).iter().all(|bar| bar.length == 1));
        assert!(start.bars(&[stage(9), stage(0)]).iter().all(|b| b.begin + b.length <= 100));
    }

    #[test]
    fn text_of_a_guest_is_no_markup() {
        let mut details = details();
        details["stopped_because"] =
            serde_json::json!({"reason": "vmm_died", "story": "<script>alert(1)</script>"});
        details["problems"] = serde_json::json!(["<img src=x onerror=alert(1)>"]);
        details["notices"] = serde_json::json!(["<style>"]);
        details["boot"] = serde_json::json!({"state": "degraded", "failed": ["<img\u{1b}[2J"]});
        let vm: VmDetails = serde_json::from_value(details).unwrap();
        for part in parts(&vm, "token").unwrap() {
            for markup in ["<script", "<img", "<style", "\u{1b}"] {
                assert!(!part.html.contains(markup), "{}", part.html);
            }
        }
    }

    pub fn details() -> serde_json::Value {
        serde_json::json!({
            "id": "0123456789ab", "name": "web", "state": "stopped", "image": "debian",
            "vcpus": 1, "memory_mib": 512, "ip": null, "created_at": "2026-01-01T00:00:00Z",
            "disk": null, "pid": null, "boot_id": null, "stopped_because": null,
            "drivers": {"vmm": "qemu", "storage": "overlay", "network": "user"},
            "why": {"vmm": "a", "storage": "b", "network": "c"}, "start": null,
            "paths": {"console_log": "/c", "vmm_log": "/v"},
            "image_id": "0123456789abcdef", "kernel_id": "0123456789abcdef", "lifetime": "keep",
            "generation": 1,
        })
    }
}
