//! What all pages share: navigation, messages, errors; and the pages about the host.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use banger_api::daemon::DaemonStatus;
use banger_api::disk::{DiskPrune, StoredKind, StoredRef};
use banger_api::doctor::{Check, Verdict};
use banger_api::size::human_size;
use banger_api::{ApiError, ErrorCode};

use crate::assets;
use crate::form::Fields;
use crate::login::{Flash, FlashKind, SessionRef};
use crate::routes::Routes;
use crate::site::{Session, Shared, Site};

/// An entry of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// VMs.
    Vms,
    /// Images and kernels.
    Images,
    /// Operations.
    Operations,
    /// The host.
    Host,
    /// None of them.
    Other,
}

/// What the layout of all pages needs.
pub struct Chrome {
    /// The token that forms carry.
    pub csrf: String,
    /// The current entry of the navigation.
    pub section: Section,
    /// Message about the previous request.
    pub flash: Option<Flash>,
}

impl Chrome {
    /// The layout of a page of this section.
    pub fn new(site: &Site, session: &SessionRef, section: Section) -> Self {
        Self { csrf: session.csrf.clone(), section, flash: site.take_flash(session) }
    }

    /// Path of an embedded file.
    pub fn asset(&self, name: &str) -> String {
        assets::url(name)
    }

    /// `page` for the current entry of the navigation.
    pub fn current(&self, name: &str) -> &'static str {
        let section = match name {
            "vms" => Section::Vms,
            "images" => Section::Images,
            "operations" => Section::Operations,
            "host" => Section::Host,
            _ => Section::Other,
        };
        if section == self.section { "page" } else { "false" }
    }
}

impl Flash {
    /// Whether it reports an error.
    pub fn failed(&self) -> bool {
        self.kind == FlashKind::Failed
    }
}

/// A message about an error.
pub fn flash_of(error: &ApiError) -> Flash {
    let (text, more) = error_lines(error);
    Flash { kind: FlashKind::Failed, text, more }
}

/// The message of an error, and its causes and advice.
pub fn error_lines(error: &ApiError) -> (String, Vec<String>) {
    let mut more: Vec<String> =
        error.causes.iter().map(|cause| format!("because: {cause}")).collect();
    more.extend(error.hint().map(|hint| format!("hint: {hint}")));
    more.extend(error.operation.iter().map(|operation| format!("operation: {operation}")));
    (error.message.clone(), more)
}

/// An error as a page.
pub struct Problem(pub ApiError);

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

/// Result of a handler.
pub type Answer = Result<Response, Problem>;

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    style: String,
    icon: String,
    message: String,
    more: Vec<String>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (message, more) = error_lines(&self.0);
        let (style, icon) = (assets::url("style.css"), assets::url("icon.svg"));
        match (ProblemPage { style, icon, message, more }).render() {
            Ok(text) => (status, Html(text)).into_response(),
            Err(_) => status.into_response(),
        }
    }
}

/// Renders a template.
///
/// # Errors
/// A value cannot be formatted.
pub fn render(template: &impl Template) -> Answer {
    let text = template.render().map_err(|error| {
        ApiError::new(ErrorCode::Internal, "the page cannot be rendered").caused_by(&error)
    })?;
    Ok(Html(text).into_response())
}

/// Redirects to a page after a form, with a message about the result.
pub fn back(
    site: &Site,
    session: &SessionRef,
    to: &str,
    result: Result<String, ApiError>,
) -> Response {
    match result {
        Ok(text) => site.done(session, text),
        Err(error) => site.set_flash(session, flash_of(&error)),
    }
    Redirect::to(to).into_response()
}

/// Any other path.
pub async fn not_found() -> Problem {
    Problem(ApiError::new(ErrorCode::NotFound, "there is no such page"))
}

/// The routes of this module.
pub fn routes() -> Routes {
    Routes::new()
        .route("/host", get(host))
        .route("/host/prune", post(prune))
        .route("/licences", get(licences))
}

/// A stored kind with its size, for the page of the host.
struct Stored {
    label: &'static str,
    count: usize,
    used: String,
    freed: String,
}

#[derive(Template)]
#[template(path = "host.html")]
struct HostPage {
    page: Chrome,
    status: DaemonStatus,
    checks: Vec<(Check, &'static str)>,
    passed: Vec<Check>,
    stored: Vec<Stored>,
    free: String,
    cards: String,
}

/// `GET /host`: the host, its checks and what is stored.
async fn host(State(site): Shared, Extension(session): Session) -> Answer {
    let client = &site.client;
    let (status, checks, disk, host, vms) = tokio::try_join!(
        client.ensure_daemon(),
        client.doctor(),
        client.disk_usage(),
        client.host(),
        client.vms()
    )?;
    let label = |check: &Check| match check.verdict {
        Verdict::Missing => Some("missing"),
        Verdict::Warning => Some("warning"),
        Verdict::Ok => None,
    };
    let (passed, found): (Vec<Check>, Vec<Check>) =
        checks.into_iter().partition(|check| check.verdict == Verdict::Ok);
    let mut found: Vec<(Check, &'static str)> =
        found.into_iter().filter_map(|check| label(&check).map(|label| (check, label))).collect();
    found.sort_by_key(|(_, label)| *label);
    let stored = StoredKind::ALL.into_iter().filter_map(|kind| {
        let of_kind = || disk.objects.iter().filter(move |one| one.kind == kind);
        let used: u64 = of_kind().map(|one| one.used_bytes).sum();
        let due = of_kind().filter(|one| one.removable && kind.is_pruned(true));
        let freed: u64 = due.map(|one| one.used_bytes).sum();
        let count = of_kind().count();
        let (used, freed) = (human_size(used), human_size(freed));
        (count > 0).then_some(Stored { label: kind.plural(), count, used, freed })
    });
    render(&HostPage {
        page: Chrome::new(&site, &session, Section::Host),
        status,
        checks: found,
        passed,
        stored: stored.collect(),
        free: human_size(disk.free_bytes),
        cards: crate::host::cards(Some(&host), &vms),
    })
}

/// `POST /host/prune`: removes what nothing uses, after a question; with `all` also images and
/// kernels.
async fn prune(State(site): Shared, Extension(session): Session, fields: Fields) -> Answer {
    let all = fields.ticked("all");
    let usage = site.client.disk_usage().await?;
    if !fields.ticked("confirmed") {
        let page = Chrome::new(&site, &session, Section::Host);
        return render(&PrunePage { page, all, freed: human_size(usage.pruned_bytes(all)) });
    }
    let due = usage.objects.into_iter().filter(|one| one.removable && one.kind.is_pruned(all));
    let objects = due.map(|one| StoredRef { kind: one.kind, id: one.id }).collect();
    let result = site.client.prune_disk(&DiskPrune { objects }).await;
    let result = result.map(|pruned| format!("{} freed", human_size(pruned.freed_bytes)));
    Ok(back(&site, &session, "/host", result))
}

/// The question before a prune.
#[derive(Template)]
#[template(path = "prune.html")]
struct PrunePage {
    page: Chrome,
    all: bool,
    freed: String,
}

/// `GET /licences`: those of the embedded packages.
async fn licences() -> Redirect {
    Redirect::to(&assets::url("licences.txt"))
}
