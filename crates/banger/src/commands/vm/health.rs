//! `banger vm health`.

use banger_api::vm::{AgentHealth, VmHealth, VmState};
use banger_api::{ApiError, ErrorCode, exit};
use banger_client::batch::{MAX_PARALLEL, resolve};
use futures_util::StreamExt;
use serde::Serialize;

use crate::context::{Context, Format};
use crate::errors::{self, Failure};
use crate::render::plain;
use crate::render::time::span;

/// Check whether the guest agent of each VM responds.
///
///   banger vm health web
///   banger vm health web db --json
///
/// The exit code is 0 if all respond.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Names, ids or prefixes of ids
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,
}

/// An element of the document that `--json` prints.
#[derive(Serialize)]
struct Element {
    reference: String,
    #[serde(flatten)]
    health: Option<VmHealth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ApiError>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    let targets = resolve(&client.vms().await?, &args.vms);
    let batch = targets.len() > 1;
    let requests = futures_util::stream::iter(targets).map(|target| async {
        let answer = match target.found {
            Ok(vm) => client.health(vm.id.as_str()).await,
            Err(error) => Err(error),
        };
        (target.reference, answer)
    });
    let mut answers = requests.buffered(MAX_PARALLEL);
    let mut elements = Vec::new();
    let mut code = exit::OK;
    while let Some((reference, answer)) = answers.next().await {
        let verdict = match &answer {
            Ok(health) => verdict(health.agent),
            Err(error) => error.code.exit_code(),
        };
        if verdict != exit::OK {
            code = if batch { exit::FAILED } else { verdict };
        }
        if context.format == Format::Text {
            match &answer {
                Ok(health) => context.print(&text(health))?,
                Err(error) => errors::show(context, error),
            }
        }
        let (health, error) = match answer {
            Ok(health) => (Some(health), None),
            Err(error) => (None, Some(error)),
        };
        elements.push(Element { reference, health, error });
    }
    if context.format == Format::Json {
        context.json(&elements)?;
    }
    Ok(code)
}

/// The exit code of an agent's health.
fn verdict(agent: AgentHealth) -> u8 {
    match agent {
        AgentHealth::Ok => exit::OK,
        AgentHealth::Lost => ErrorCode::GuestFailed.exit_code(),
        AgentHealth::NotRunning => ErrorCode::WrongState.exit_code(),
    }
}

fn text(health: &VmHealth) -> String {
    let name = &health.name;
    match health.agent {
        AgentHealth::Ok => {
            let uptime = health.uptime_ms.unwrap_or_default() / 1000;
            let uptime = span(i64::try_from(uptime).unwrap_or(i64::MAX));
            let round_trip = health.round_trip_us.unwrap_or_default() as f64 / 1000.0;
            let warning = health.warning.as_deref().map(plain::line);
            let warning = warning.map(|text| format!("warning: {text}\n")).unwrap_or_default();
            format!("{name}: ok, up {uptime}, answered in {round_trip:.1} ms\n{warning}")
        }
        AgentHealth::Lost => {
            let why = health.reason.as_deref().map(plain::line).unwrap_or_default();
            let colon = if why.is_empty() { "" } else { ": " };
            format!("{name}: runs, but its agent does not answer{colon}{why}\n")
        }
        AgentHealth::NotRunning if health.state == VmState::Paused => {
            format!("{name}: paused; `banger vm resume {name}` resumes it\n")
        }
        AgentHealth::NotRunning => format!("{name}: {}\n", health.state.as_str()),
    }
}
