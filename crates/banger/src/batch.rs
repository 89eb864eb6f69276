//! One action on many VMs: resolved from one listing, done in parallel, told in the order given.

use banger_api::operation::VmTag;
use banger_api::vm::{ActionOptions, VmAction, VmSummary};
use banger_api::{ApiError, exit, reference};
use banger_client::Client;
use futures_util::StreamExt;
use serde::Serialize;

use crate::context::{Context, Format};
use crate::errors::{self, Failure};
use crate::follow::{self, OnInterrupt};
use crate::render::progress::{Keep, Progress};

/// Most VMs worked on at once: each takes two connections to the daemon.
const AT_ONCE: usize = 64;

/// One of the VMs that were named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As it was named.
    pub reference: String,
    /// What was found.
    pub found: Result<VmTag, ApiError>,
}

/// Finds all named VMs in one listing; those named twice are kept once, where they came first.
pub fn resolve(listing: &[VmSummary], references: &[String]) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    for reference in references {
        let listed = listing.iter().map(|vm| (&vm.id, &vm.name));
        let found = reference::resolve(listed, reference).and_then(|id| {
            let vm = listing.iter().find(|vm| vm.id == id);
            vm.map(|vm| VmTag { id: vm.id.clone(), name: vm.name.clone() }).ok_or_else(|| {
                ApiError::new(banger_api::ErrorCode::NotFound, format!("there is no VM `{id}`"))
            })
        });
        let known = targets.iter().any(|target| match (&target.found, &found) {
            (Ok(a), Ok(b)) => a.id == b.id,
            (Err(_), Err(_)) => target.reference == *reference,
            _ => false,
        });
        if !known {
            targets.push(Target { reference: reference.clone(), found });
        }
    }
    targets
}

/// What came of one of them; an element of the document that `--json` prints.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// As it was named.
    pub reference: String,
    /// The VM, where one was found.
    #[serde(flatten)]
    pub vm: Option<VmTag>,
    /// What came of it.
    pub result: What,
    /// Why it failed, where it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It was done.
    Done,
    /// It was so already.
    Already,
    /// It failed.
    Failed,
}

/// Words for what came of an action.
pub struct Words {
    /// `started`.
    pub done: &'static str,
    /// `is running already`.
    pub already: &'static str,
}

/// An action and how to tell of it.
pub struct Work {
    /// What to ask for.
    pub action: VmAction,
    /// How.
    pub options: ActionOptions,
    /// Words.
    pub words: Words,
    /// Stages worth a line.
    pub keep: Keep,
}

/// Does it and tells; gives the exit code.
pub async fn run(
    context: &Context,
    client: &Client,
    targets: Vec<Target>,
    work: &Work,
) -> Result<u8, Failure> {
    let batch = targets.len() > 1;
    let progress = Progress::new(context, if batch { Keep::None } else { work.keep });
    let all = futures_util::stream::iter(targets)
        .map(|target| one(context, client, &progress, target, work));
    // In the order given, however fast each of them is.
    let mut results = all.buffered(AT_ONCE);
    let mut outcomes = Vec::new();
    let mut failures = Vec::new();
    while let Some((outcome, failure)) = results.next().await {
        match &failure {
            Some(Failure::Api(error) | Failure::Cancelled(error))
                if context.format == Format::Text =>
            {
                errors::show(context, error);
            }
            Some(_) => {}
            None => tell(context, &outcome, &work.words)?,
        }
        failures.extend(failure);
        outcomes.push(outcome);
    }
    drop(results);
    if context.format == Format::Json {
        context.json(&outcomes)?;
    }
    code(failures, batch)
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

fn tell(context: &Context, outcome: &Outcome, words: &Words) -> Result<(), Failure> {
    let quiet = context.volume == crate::context::Volume::Quiet;
    if context.format == Format::Json || quiet {
        return Ok(());
    }
    let name = outcome.vm.as_ref().map_or(outcome.reference.as_str(), |vm| vm.name.as_str());
    let text = if outcome.result == What::Already { words.already } else { words.done };
    context.print(&format!("{name} {text}\n"))
}

async fn one(
    context: &Context,
    client: &Client,
    progress: &Progress,
    target: Target,
    work: &Work,
) -> (Outcome, Option<Failure>) {
    let Target { reference, found } = target;
    let (vm, done) = match found {
        Ok(vm) => {
            let done = act(context, client, progress, &vm, work).await;
            (Some(vm), done)
        }
        Err(error) => (None, Err(error.into())),
    };
    match done {
        Ok(result) => (Outcome { reference, vm, result, error: None }, None),
        Err(failure) => {
            let error = match &failure {
                Failure::Api(error) | Failure::Cancelled(error) => Some((**error).clone()),
                _ => None,
            };
            (Outcome { reference, vm, result: What::Failed, error }, Some(failure))
        }
    }
}

async fn act(
    context: &Context,
    client: &Client,
    progress: &Progress,
    vm: &VmTag,
    work: &Work,
) -> Result<What, Failure> {
    let accepted = client.act(vm.id.as_str(), work.action, &work.options).await?;
    let result = if accepted.operation.is_some() { What::Done } else { What::Already };
    let track = progress.track(vm.name.as_str());
    let on_interrupt = match work.action {
        VmAction::Start | VmAction::Stop | VmAction::Restart => OnInterrupt::Cancel,
        VmAction::Kill | VmAction::Delete | VmAction::Repair => OnInterrupt::GoOn,
    };
    follow::accepted(context, client, &accepted, track, on_interrupt).await?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::ErrorCode;
    use banger_api::vm::{DiskView, VmState};

    fn summary(id: &str, name: &str) -> VmSummary {
        VmSummary {
            id: id.parse().unwrap(),
            name: name.parse().unwrap(),
            state: VmState::Stopped,
            image: "debian".into(),
            vcpus: 1,
            memory_mib: 512,
            ip: None,
            created_at: "2026-11-24T00:00:00Z".into(),
            disk: DiskView::default(),
            operation: None,
        }
    }

    #[test]
    fn all_are_found_in_one_listing_once_and_in_order() {
        let listing = [summary("aaaa00000001", "web"), summary("aaab00000002", "db")];
        let named = ["db", "nope", "aaaa", "web", "aaa", "nope", "aaab00000002"].map(String::from);
        let targets = resolve(&listing, &named);
        let shown: Vec<(&str, Result<&str, ErrorCode>)> = targets
            .iter()
            .map(|target| {
                let found = target.found.as_ref().map(|vm| vm.name.as_str()).map_err(|e| e.code);
                (target.reference.as_str(), found)
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("db", Ok("db")),
                ("nope", Err(ErrorCode::NotFound)),
                ("aaaa", Ok("web")),
                ("aaa", Err(ErrorCode::Ambiguous)),
            ]
        );
    }

    #[test]
    fn a_batch_fails_as_one_and_a_single_one_by_its_kind() {
        let missing = || Failure::from(ApiError::new(ErrorCode::NotFound, "x"));
        assert_eq!(code(vec![missing()], true).unwrap(), exit::FAILED);
        assert_eq!(code(vec![missing()], false).unwrap(), exit::NOT_FOUND);
        assert_eq!(code(Vec::new(), true).unwrap(), exit::OK);
        assert!(matches!(code(vec![missing(), Failure::Left], true), Err(Failure::Left)));
    }
}
