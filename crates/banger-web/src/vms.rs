//! The list of VMs, and the form that creates one.

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use axum::routing::{get, post};
use banger_api::labels::{self, Labels};
use banger_api::limits::VmDefaults;
use banger_api::size::{MIB, human_size};
use banger_api::vm::{CreateVm, VmAction};
use banger_api::{ApiError, ErrorCode};
use futures_util::future::join_all;
use serde::Deserialize;

use crate::form::{Fields, bad};
use crate::hub::Whole;
use crate::page::{Answer, Chrome, Section, error_lines, render};
use crate::routes::Routes;
use crate::site::{Session, Shared, Site};
use crate::vm::{Target, action_of, confirmation, progressive};

/// Maximum number of VMs in one request.
const MAX_CHOSEN: usize = 10_000;

/// The routes of this module.
pub fn routes() -> Routes {
    Routes::new()
        .route("/", get(list))
        .route("/vms", post(create))
        .route("/vms/new", get(new))
        .route("/vms/actions", post(act))
}

#[derive(Template)]
#[template(path = "vms.html")]
struct ListPage {
    page: Chrome,
    whole: Whole,
}

async fn list(State(site): Shared, Extension(session): Session) -> Answer {
    site.hub.refresh_if_stale(&site).await?;
    render(&ListPage { page: Chrome::new(&site, &session, Section::Vms), whole: site.hub.whole() })
}

/// The form with the values of the last attempt.
#[derive(Template)]
#[template(path = "create.html")]
struct CreatePage {
    page: Chrome,
    fields: Fields,
    defaults: VmDefaults,
    memory: String,
    root: String,
    work: String,
    images: Vec<String>,
    kernels: Vec<String>,
    error: Option<(String, Vec<String>)>,
}

impl CreatePage {
    async fn new(site: &Site, page: Chrome, fields: Fields) -> Result<Self, ApiError> {
        let client = &site.client;
        let (status, images, kernels) =
            tokio::try_join!(client.ensure_daemon(), client.images(), client.kernels())?;
        let defaults = status.defaults;
        Ok(Self {
            page,
            fields,
            memory: human_size(defaults.memory_mib * MIB),
            root: human_size(defaults.root_bytes),
            work: human_size(defaults.work_bytes),
            images: images.into_iter().flat_map(|image| image.names).collect(),
            kernels: kernels.into_iter().flat_map(|kernel| kernel.names).collect(),
            defaults,
            error: None,
        })
    }
}

/// Values that a link gives the form.
#[derive(Debug, Deserialize)]
struct Preset {
    #[serde(default)]
    image: String,
}

async fn new(
    State(site): Shared,
    Extension(session): Session,
    Query(preset): Query<Preset>,
) -> Answer {
    let page = Chrome::new(&site, &session, Section::Vms);
    let image = format!("image={}", banger_api::routes::encode(&preset.image));
    render(&CreatePage::new(&site, page, Fields::parse(image.as_bytes())).await?)
}

async fn create(State(site): Shared, Extension(session): Session, fields: Fields) -> Answer {
    let accepted = match request(&fields) {
        Ok(request) => site.client.create(&request).await,
        Err(error) => Err(error),
    };
    let error = match accepted {
        Ok(accepted) => {
            let operation = accepted.operation.ok_or_else(|| {
                ApiError::new(ErrorCode::Internal, "the daemon has begun no operation")
            })?;
            return Ok(Redirect::to(&format!("/operations/{operation}")).into_response());
        }
        Err(error) => error,
    };
    let status = StatusCode::from_u16(error.code.http_status()).unwrap_or_default();
    let page = Chrome::new(&site, &session, Section::Vms);
    let mut page = CreatePage::new(&site, page, fields).await?;
    page.error = Some(error_lines(&error));
    let mut answer = render(&page)?;
    *answer.status_mut() = status;
    Ok(answer)
}

/// The request of a form. Values are checked by the daemon.
fn request(fields: &Fields) -> Result<CreateVm, ApiError> {
    let text = |name: &str| fields.get(name).map(str::to_owned);
    Ok(CreateVm {
        name: text("name"),
        image: text("image"),
        kernel: text("kernel"),
        vcpus: fields.number("vcpus", "vCPUs")?,
        memory_mib: fields.size_mib("memory", "Memory")?,
        root_bytes: fields.size("root", "Root disk")?,
        work_bytes: fields.size("work", "Work disk")?,
        nat: fields.choice("nat"),
        publish: fields.ports("publish")?,
        labels: labels_of(fields)?,
        no_start: fields.ticked("no_start"),
        autostart: fields.ticked("autostart"),
        ..CreateVm::default()
    })
}

fn labels_of(fields: &Fields) -> Result<Labels, ApiError> {
    let pairs = fields.words("labels").map(labels::parse);
    let pairs: Result<Vec<_>, _> = pairs.collect();
    let pairs = pairs.map_err(|error| bad(error.to_string()))?;
    Labels::of(pairs).map_err(|error| bad(error.to_string()))
}

/// `POST /vms/actions`: one action on the chosen VMs, or, by the button of a row, on one.
async fn act(State(site): Shared, Extension(session): Session, fields: Fields) -> Answer {
    let (name, chosen): (String, Vec<&str>) = match fields.get("one") {
        Some(one) => {
            let (action, vm) = one.split_once(':').unwrap_or((one, ""));
            (action.to_owned(), vec![vm])
        }
        None => {
            (fields.required("action", "The action")?, fields.all("vm").take(MAX_CHOSEN).collect())
        }
    };
    if chosen.is_empty() {
        let error = bad("no VM is chosen: tick the boxes of those you mean");
        return Ok(crate::page::back(&site, &session, "/", Err(error)));
    }
    let all = site.client.vms().await?;
    let targets: Vec<Target> = chosen
        .iter()
        .filter_map(|id| all.iter().find(|vm| vm.id.as_str() == *id))
        .map(|vm| Target { id: vm.id.to_string(), name: vm.name.to_string(), state: vm.state })
        .collect();
    let action = action_of(&name, &fields)?;
    let asks = matches!(action, VmAction::Kill {} | VmAction::Delete { .. });
    if asks && !fields.ticked("confirmed") {
        let page = Chrome::new(&site, &session, Section::Vms);
        return confirmation(page, "/vms/actions", &action, targets);
    }
    let client = &site.client;
    let answers = join_all(targets.iter().map(|vm| client.act(&vm.id, action.clone()))).await;
    let failed: Vec<String> = answers
        .iter()
        .zip(&targets)
        .filter_map(|(answer, vm)| {
            let error = answer.as_ref().err()?;
            let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            Some(format!("{}: {}{hint}", vm.name, error.message))
        })
        .collect();
    let begun = answers.len() - failed.len();
    let result = if failed.is_empty() {
        match &targets[..] {
            [vm] => Ok(format!("{} {}", progressive(&action), vm.name)),
            _ => Ok(format!("{} {begun} VMs", progressive(&action))),
        }
    } else {
        let text = format!("{} of {} VMs could not be changed", failed.len(), answers.len());
        let mut error = ApiError::new(ErrorCode::WrongState, text);
        error.causes = failed;
        Err(error)
    };
    Ok(crate::page::back(&site, &session, "/", result))
}
