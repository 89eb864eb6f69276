//! `banger agent status`.

use std::path::PathBuf;

use banger_agents::{Agent, machine};
use banger_api::{ErrorCode, exit};

use crate::context::{Context, Format};
use crate::errors::Failure;

/// Show where the commands of coding agents in a folder run.
///
///   banger agent status
///   banger agent status ~/app --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Folder that the agents work in [default: .]
    #[arg(value_name = "PATH", default_value = ".", hide_default_value = true)]
    pub path: PathBuf,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let top = super::folder(&args.path)?;
    let mut rows = Vec::new();
    for agent in Agent::ALL {
        let vm = machine(agent, &top)?;
        let state = match &vm {
            None => None,
            Some(vm) => match context.client().await?.vm(vm).await {
                Ok(details) => Some(details.summary.state.as_str().to_owned()),
                Err(error) if error.code == ErrorCode::NotFound => Some("gone".to_owned()),
                Err(error) => return Err(error.into()),
            },
        };
        rows.push((agent, vm, state));
    }
    if context.format == Format::Json {
        context.json(&rows.iter().map(value).collect::<Vec<_>>())?;
        return Ok(exit::OK);
    }
    for (agent, vm, state) in rows {
        let place = match (vm, state) {
            (Some(vm), Some(state)) => format!("in the machine `{vm}` ({state})"),
            _ => "on this host".to_owned(),
        };
        context.print(&format!("{:<9} {place}\n", agent.as_str()))?;
    }
    Ok(exit::OK)
}

fn value((agent, vm, state): &(Agent, Option<String>, Option<String>)) -> serde_json::Value {
    serde_json::json!({ "agent": agent.as_str(), "vm": vm, "state": state })
}
