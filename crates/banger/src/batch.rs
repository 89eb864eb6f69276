//! One action on many VMs, reported in the order given.

use std::pin::pin;

use banger_api::operation::VmTag;
use banger_api::vm::VmAction;
use banger_api::{ApiError, exit};
use banger_client::Client;
use banger_client::batch::{self, Acted, Outcome, Target};
use banger_client::follow::NotDone;
use futures_util::StreamExt;
use serde::Serialize;

use crate::context::{Context, Format, Volume};
use crate::errors::{self, Failure};
use crate::render::progress::{Lines, Progress};
use crate::render::time::duration;

/// An element of the document that `--json` prints.
#[derive(Debug, Serialize)]
struct Element {
    /// As it was named.
    reference: String,
    /// The VM, where one was found.
    #[serde(flatten)]
    vm: Option<VmTag>,
    /// How it went.
    result: What,
    /// Why it failed, where it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ApiError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum What {
    /// It was done.
    Done,
    /// It was so already.
    Already,
    /// It failed.
    Failed,
    /// It goes on; Ctrl-C ended the wait.
    Left,
}

/// Words for the outcome of an action.
pub struct Words {
    /// `started`.
    pub done: &'static str,
    /// `is running already`.
    pub already: &'static str,
    /// Whether the duration is worth telling.
    pub time: Time,
}

/// Whether a duration is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// `started in 2.1 s`.
    Show,
    /// `killed`.
    Hide,
}

/// Does it and reports; gives the exit code.
pub async fn run(
    context: &Context,
    client: &Client,
    targets: Vec<Target>,
    action: VmAction,
    words: &Words,
) -> Result<u8, Failure> {
    let batch = targets.len() > 1;
    let progress = Progress::new(context, Lines::None).with_grace(action);
    let interrupts = context.interrupts.listen();
    let observe = |vm: &VmTag| progress.track(vm.name.as_str());
    let mut outcomes = pin!(batch::act(client, targets, action, &interrupts, observe));
    let mut elements = Vec::new();
    let mut failures = Vec::new();
    while let Some(outcome) = outcomes.next().await {
        let name = outcome.vm.as_ref().map_or(outcome.reference.as_str(), |vm| vm.name.as_str());
        match &outcome.result {
            Ok(acted) => report(context, name, *acted, words)?,
            Err(NotDone::Failed(error) | NotDone::Cancelled(error))
                if context.format == Format::Text =>
            {
                errors::show(context, error);
            }
            Err(_) => {}
        }
        let (element, failure) = split(outcome);
        elements.push(element);
        failures.extend(failure);
    }
    if context.format == Format::Json {
        context.json(&elements)?;
    }
    code(failures, batch)
}

fn split(outcome: Outcome) -> (Element, Option<Failure>) {
    let Outcome { reference, vm, result } = outcome;
    let (result, failure) = match result {
        Ok(Acted::Done(_)) => (What::Done, None),
        Ok(Acted::Already) => (What::Already, None),
        Err(left @ NotDone::Left(_)) => (What::Left, Some(left)),
        Err(failed) => (What::Failed, Some(failed)),
    };
    let error = match &failure {
        Some(NotDone::Failed(error) | NotDone::Cancelled(error)) => Some((**error).clone()),
        Some(NotDone::Left(_)) | None => None,
    };
    (Element { reference, vm, result, error }, failure.map(Failure::from))
}

/// The exit code: a batch in which anything failed is 1, a single failure has its own.
fn code(failures: Vec<Failure>, batch: bool) -> Result<u8, Failure> {
    let mut code = exit::OK;
    for failure in failures {
        code = match failure {
            Failure::Left | Failure::Pipe => return Err(failure),
            _ if batch => exit::FAILED,
            Failure::Api(error) | Failure::Cancelled(error) => error.code.exit_code(),
        };
    }
    Ok(code)
}

fn report(context: &Context, name: &str, acted: Acted, words: &Words) -> Result<(), Failure> {
    if context.format == Format::Json || context.volume == Volume::Quiet {
        return Ok(());
    }
    let text = match acted {
        Acted::Already => words.already.to_owned(),
        Acted::Done(Some(ms)) if words.time == Time::Show => {
            format!("{} in {}", words.done, duration(ms))
        }
        Acted::Done(_) => words.done.to_owned(),
    };
    context.print(&format!("{name} {text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::ErrorCode;

    #[test]
    fn a_batch_fails_as_one_and_a_single_one_by_its_kind() {
        let missing = || Failure::from(ApiError::new(ErrorCode::NotFound, "x"));
        assert_eq!(code(vec![missing()], true).unwrap(), exit::FAILED);
        assert_eq!(code(vec![missing()], false).unwrap(), exit::NOT_FOUND);
        assert_eq!(code(Vec::new(), true).unwrap(), exit::OK);
        assert!(matches!(code(vec![missing(), Failure::Left], true), Err(Failure::Left)));
    }
}
