//! Operations: the list, and one of them with its stages and its log while it runs.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use banger_api::operation::{CancelEffect, OpEvent, OpEventKind, OpState, OperationView, Subject};
use banger_api::size::human_size;
use banger_api::{ApiError, OpId};

use crate::form::bad;
use crate::page::{Answer, Chrome, Section, back, error_lines, render};
use crate::routes::Routes;
use crate::site::{Session, Shared};

/// The routes of this module.
pub fn routes() -> Routes {
    Routes::new()
        .route("/operations", get(list))
        .route("/operations/{operation}", get(show))
        .route("/operations/{operation}/cancel", post(cancel))
}

#[derive(Template)]
#[template(path = "operations.html")]
struct ListPage {
    page: Chrome,
    operations: Vec<OperationView>,
}

async fn list(State(site): Shared, Extension(session): Session) -> Answer {
    let operations = site.client.operations().await?;
    let page = Chrome::new(&site, &session, Section::Operations);
    render(&ListPage { page, operations })
}

#[derive(Template)]
#[template(path = "operation.html")]
struct OperationPage {
    page: Chrome,
    operation: OperationView,
    progress: String,
}

async fn show(
    State(site): Shared,
    Extension(session): Session,
    Path(operation): Path<String>,
) -> Answer {
    let operation = site.client.operation(&parse(&operation)?).await?;
    let page = Chrome::new(&site, &session, Section::Operations);
    let progress = Progress::of(&operation).html(&page.csrf)?;
    render(&OperationPage { page, operation, progress })
}

/// The id of an operation in a path.
///
/// # Errors
/// Another text.
pub fn parse(operation: &str) -> Result<OpId, ApiError> {
    operation.parse().map_err(|error| bad(format!("{error}")))
}

async fn cancel(
    State(site): Shared,
    Extension(session): Session,
    Path(operation): Path<String>,
) -> Answer {
    let operation = parse(&operation)?;
    let result = site.client.cancel(&operation).await.map(|answer| {
        let text = match answer.effect {
            CancelEffect::Cancelling => "The operation is being undone",
            CancelEffect::NotBegun => "The operation had not begun and never will",
            CancelEffect::Ended => "The operation had ended already",
        };
        text.to_owned()
    });
    Ok(back(&site, &session, &format!("/operations/{operation}"), result))
}

/// What an operation does, in words.
pub fn kind(text: &str) -> String {
    text.replace('_', " ")
}

/// Path of the page of a subject; empty if it has none.
pub fn subject_path(subject: &Subject) -> String {
    match subject {
        Subject::Vm(vm) => format!("/vms/{}", vm.id),
        Subject::Image { name, id } => {
            let id = id.as_ref().map_or(name.as_str(), |id| id.as_str());
            format!("/images/{}", banger_api::routes::encode(id))
        }
        Subject::Kernel { .. } => "/images".into(),
        Subject::Host => String::new(),
    }
}

/// A subject in words, without quotation marks.
pub fn subject_name(subject: &Subject) -> String {
    match subject {
        Subject::Vm(vm) => vm.name.to_string(),
        Subject::Image { name, .. } => format!("image {name}"),
        Subject::Kernel { name, .. } => format!("kernel {name}"),
        Subject::Host => "host".into(),
    }
}

/// A state as the mark of one.
pub fn op_mark(state: &OpState) -> &'static str {
    match state {
        OpState::Running => "moving",
        OpState::Succeeded => "running",
        OpState::Failed => "broken",
    }
}

/// A state in words.
pub fn op_state(state: &OpState) -> &'static str {
    match state {
        OpState::Running => "in progress",
        OpState::Succeeded => "succeeded",
        OpState::Failed => "failed",
    }
}

/// A stage of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stage {
    name: String,
    /// Milliseconds, when it has ended.
    ms: Option<u64>,
    /// Completed units, and their number if it is known.
    progress: Option<(u64, Option<u64>, Option<String>)>,
}

/// The present state of an operation, made of its events.
#[derive(Template, Debug, Clone, PartialEq, Eq)]
#[template(path = "progress.html")]
pub struct Progress {
    id: OpId,
    subject: Option<Subject>,
    stages: Vec<Stage>,
    state: OpState,
    error: Option<(String, Vec<String>)>,
    csrf: String,
}

impl Progress {
    /// The state of an operation without its events.
    pub fn of(view: &OperationView) -> Self {
        Self {
            id: view.id.clone(),
            subject: Some(view.subject.clone()),
            stages: Vec::new(),
            state: view.state,
            error: view.error.as_ref().map(error_lines),
            csrf: String::new(),
        }
    }

    /// Adds an event; returns a line for the log, if it has one.
    pub fn add(&mut self, event: &OpEvent) -> Option<String> {
        match &event.what {
            OpEventKind::Subject { subject } => self.subject = Some(subject.clone()),
            OpEventKind::StageStarted { stage } => {
                self.stages.push(Stage { name: stage.clone(), ms: None, progress: None });
            }
            OpEventKind::StageDone { stage, ms } => match self.stage(stage) {
                Some(stage) => stage.ms = Some(*ms),
                None => {
                    let (name, ms) = (stage.clone(), Some(*ms));
                    self.stages.push(Stage { name, ms, progress: None });
                }
            },
            OpEventKind::Progress { stage, done, total, unit } => {
                if let Some(stage) = self.stage(stage) {
                    stage.progress = Some((*done, *total, unit.clone()));
                }
            }
            OpEventKind::Note { text } => return Some(text.clone()),
            OpEventKind::Warning { text } => return Some(format!("warning: {text}")),
            OpEventKind::Succeeded { .. } => self.state = OpState::Succeeded,
            OpEventKind::Failed { error } => {
                self.state = OpState::Failed;
                self.error = Some(error_lines(error));
            }
        }
        None
    }

    fn stage(&mut self, name: &str) -> Option<&mut Stage> {
        self.stages.iter_mut().rev().find(|stage| stage.name == name)
    }

    /// The state as HTML, with the token of its form.
    ///
    /// # Errors
    /// A value cannot be formatted.
    pub fn html(&self, csrf: &str) -> Result<String, ApiError> {
        let state = Self { csrf: csrf.to_owned(), ..self.clone() };
        state.render().map_err(|error| bad("the page cannot be rendered").caused_by(&error))
    }
}

impl Stage {
    fn label(&self) -> String {
        kind(&self.name)
    }

    fn amount(&self) -> String {
        let Some((done, total, unit)) = &self.progress else { return String::new() };
        let words = |count: u64| match unit {
            Some(_) => count.to_string(),
            None => human_size(count),
        };
        let unit = unit.as_deref().map(|unit| format!(" {unit}")).unwrap_or_default();
        match total {
            Some(total) => format!("{} of {}{unit}", words(*done), words(*total)),
            None => format!("{}{unit}", words(*done)),
        }
    }

    fn time(&self) -> String {
        match self.ms {
            Some(ms) if ms >= 1000 => format!("{:.1} s", ms as f64 / 1000.0),
            Some(ms) => format!("{ms} ms"),
            None => String::new(),
        }
    }

    /// Value and maximum of a progress bar, while the stage runs and its size is known.
    fn bar(&self) -> Option<(u64, u64)> {
        let (done, total, _) = self.progress.as_ref()?;
        let total = total.filter(|total| self.ms.is_none() && *total > 0)?;
        Some((*done.min(&total), total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        let view = serde_json::json!({
            "id": "op-abc123", "kind": "pull_image", "state": "running", "error": null,
            "subject": {"type": "image", "name": "<b>"}, "started_at": "2026-01-01T00:00:00Z",
        });
        Progress::of(&serde_json::from_value(view).unwrap())
    }

    #[test]
    fn events_make_the_state() {
        let mut progress = progress();
        let mut add = |what| progress.add(&OpEvent { seq: 1, at_ms: 0, what });
        let stage = String::from("pull_image");
        assert_eq!(add(OpEventKind::StageStarted { stage: stage.clone() }), None);
        let unit = None;
        add(OpEventKind::Progress {
            stage: stage.clone(),
            done: 1 << 20,
            total: Some(2 << 20),
            unit,
        });
        assert_eq!(add(OpEventKind::Note { text: "x".into() }), Some("x".into()));
        let first = &progress.stages[0];
        assert_eq!(
            (first.amount(), first.bar()),
            ("1 MiB of 2 MiB".into(), Some((1 << 20, 2 << 20)))
        );
        progress.add(&OpEvent {
            seq: 2,
            at_ms: 0,
            what: OpEventKind::StageDone { stage, ms: 1500 },
        });
        let first = &progress.stages[0];
        assert_eq!((first.time(), first.bar()), ("1.5 s".into(), None));
        let error = banger_api::ApiError::new(banger_api::ErrorCode::Internal, "<script>");
        progress.add(&OpEvent { seq: 3, at_ms: 0, what: OpEventKind::Failed { error } });
        let html = progress.html("token").unwrap();
        assert!(html.contains("&#60;script&#62;") && !html.contains("<b>"), "{html}");
        assert!(!html.contains("token"), "nothing to cancel: {html}");
    }

    #[test]
    fn a_running_operation_can_be_cancelled() {
        assert!(progress().html("token").unwrap().contains("/operations/op-abc123/cancel"));
    }
}
