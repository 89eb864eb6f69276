//! Runs one action on many VMs and reports in the order of the arguments.

use std::borrow::Cow;
use std::pin::pin;

use banger_api::operation::VmTag;
use banger_api::vm::VmAction;
use banger_api::{ApiError, exit};
use banger_client::Client;
use banger_client::batch::{self, ActionEffect, Outcome, Target};
use banger_client::follow::FollowError;
use futures_util::StreamExt;
use serde::Serialize;

use crate::context::{Context, Format, Verbosity};
use crate::errors::{self, Failure};
use crate::render::progress::{Lines, Progress};
use crate::render::time::duration;

/// An element of the document that `--json` prints.
#[derive(Debug, Serialize)]
pub struct Element {
    /// The argument.
    reference: String,
    /// The VM, if the reference resolves.
    #[serde(flatten)]
    vm: Option<VmTag>,
    /// Result of the action.
    result: ResultKind,
    /// The error, if the action failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ApiError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum ResultKind {
    /// The action changed the VM.
    Done,
    /// The VM was in the requested state already.
    Already,
    /// The action failed.
    Failed,
    /// Ctrl-C ended the wait; the operation continues.
    #[serde(rename = "left")]
    WaitEnded,
}

/// Messages about the result of an action.
pub struct Messages {
    /// `started`.
    pub done: Cow<'static, str>,
    /// `is running already`.
    pub already: Cow<'static, str>,
    /// Whether to show the duration.
    pub duration: DurationDisplay,
}

/// Whether a duration is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DurationDisplay {
    /// `started in 2.1 s`.
    Show,
    /// `killed`.
    Hide,
}

/// Results of an action, one for each target.
pub struct Results {
    elements: Vec<Element>,
    failures: Vec<Failure>,
    batch: bool,
}

impl Results {
    /// The elements of the JSON document, and the exit code.
    pub fn split(self) -> (Vec<Element>, Result<u8, Failure>) {
        (self.elements, code(self.failures, self.batch))
    }
}

/// Runs the action, reports the results and returns the exit code.
pub async fn run(
    context: &Context,
    client: &Client,
    targets: Vec<Target>,
    action: VmAction,
    messages: &Messages,
) -> Result<u8, Failure> {
    let results = results(context, client, targets, action, messages).await?;
    let (elements, code) = results.split();
    if context.format == Format::Json {
        context.json(&elements)?;
    }
    code
}

/// Runs the action and reports each result as text; JSON is left to the caller.
pub async fn results(
    context: &Context,
    client: &Client,
    targets: Vec<Target>,
    action: VmAction,
    messages: &Messages,
) -> Result<Results, Failure> {
    let batch = targets.len() > 1;
    let progress = Progress::new(context, Lines::None).with_grace(&action);
    let interrupts = context.interrupts.listen();
    let observe = |vm: &VmTag| progress.track(vm.name.as_str());
    let mut outcomes = pin!(batch::act(client, targets, action, &interrupts, observe));
    let mut elements = Vec::new();
    let mut failures = Vec::new();
    while let Some(outcome) = outcomes.next().await {
        let name = outcome.vm.as_ref().map_or(outcome.reference.as_str(), |vm| vm.name.as_str());
        match &outcome.result {
            Ok(acted) => progress.above(|| report(context, name, *acted, messages))?,
            Err(FollowError::Failed(error) | FollowError::Cancelled(error))
                if context.format == Format::Text =>
            {
                progress.above(|| errors::show(context, error));
            }
            Err(_) => {}
        }
        let (element, failure) = split(outcome);
        elements.push(element);
        failures.extend(failure);
    }
    Ok(Results { elements, failures, batch })
}

fn split(outcome: Outcome) -> (Element, Option<Failure>) {
    let Outcome { reference, vm, result } = outcome;
    let (result, failure) = match result {
        Ok(ActionEffect::Done(_)) => (ResultKind::Done, None),
        Ok(ActionEffect::Unchanged) => (ResultKind::Already, None),
        Err(left @ FollowError::WaitEnded(_)) => (ResultKind::WaitEnded, Some(left)),
        Err(failed) => (ResultKind::Failed, Some(failed)),
    };
    let error = match &failure {
        Some(FollowError::Failed(error) | FollowError::Cancelled(error)) => Some((**error).clone()),
        Some(FollowError::WaitEnded(_)) | None => None,
    };
    (Element { reference, vm, result, error }, failure.map(Failure::from))
}

/// The exit code: 1 if any action of a batch failed; a single failure has its own.
fn code(failures: Vec<Failure>, batch: bool) -> Result<u8, Failure> {
    let mut code = exit::OK;
    for failure in failures {
        code = match failure {
            Failure::WaitEnded | Failure::BrokenPipe => return Err(failure),
            _ if batch => exit::FAILED,
            Failure::Api(error) | Failure::Cancelled(error) => error.code.exit_code(),
        };
    }
    Ok(code)
}

fn report(
    context: &Context,
    name: &str,
    acted: ActionEffect,
    messages: &Messages,
) -> Result<(), Failure> {
    if context.format == Format::Json || context.verbosity == Verbosity::Quiet {
        return Ok(());
    }
    let text = match acted {
        ActionEffect::Unchanged => messages.already.to_string(),
        ActionEffect::Done(Some(ms)) if messages.duration == DurationDisplay::Show => {
            format!("{} in {}", messages.done, duration(ms))
        }
        ActionEffect::Done(_) => messages.done.to_string(),
    };
    context.print(&format!("{name} {text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::ErrorCode;

    #[test]
    fn a_failed_batch_exits_with_1_and_a_single_failure_with_its_own_code() {
        let missing = || Failure::from(ApiError::new(ErrorCode::NotFound, "x"));
        assert_eq!(code(vec![missing()], true).unwrap(), exit::FAILED);
        assert_eq!(code(vec![missing()], false).unwrap(), exit::NOT_FOUND);
        assert_eq!(code(Vec::new(), true).unwrap(), exit::OK);
        assert!(matches!(code(vec![missing(), Failure::WaitEnded], true), Err(Failure::WaitEnded)));
    }
}
