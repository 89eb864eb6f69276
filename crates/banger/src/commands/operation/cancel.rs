//! `banger operation cancel`.

use banger_api::operation::{CancelAnswer, CancelEffect};
use banger_api::{ApiError, ErrorCode, Hint, OpId, exit};
use serde::Serialize;

use super::{state_text, with_hint};
use crate::context::{Context, Format, Verbosity};
use crate::errors::{self, Failure};

/// Cancel operations: each undoes what it has done so far.
///
///   banger operation list --running
///   banger operation cancel op-abc123
///
/// A stop and a deletion cannot be cancelled. `banger operation show` shows when
/// the undo has ended.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Ids, such as op-abc123
    #[arg(required = true, value_name = "OPERATION")]
    pub operations: Vec<OpId>,
}

/// An element of the document that `--json` prints.
#[derive(Serialize)]
struct Element {
    operation: OpId,
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<CancelEffect>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ApiError>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    let mut operations: Vec<OpId> = Vec::new();
    for operation in args.operations {
        if !operations.contains(&operation) {
            operations.push(operation);
        }
    }
    let batch = operations.len() > 1;
    let mut code = exit::OK;
    let mut elements = Vec::new();
    for operation in operations {
        let answer = context.interrupts.run_interruptible(client.cancel(&operation)).await?;
        let (effect, error) = match answer.map_err(with_hint).and_then(effect) {
            Ok(effect) => (Some(effect), None),
            Err(error) => (None, Some(error)),
        };
        if let Some(error) = &error {
            code = if batch { exit::FAILED } else { error.code.exit_code() };
        }
        match (&effect, &error) {
            _ if context.format == Format::Json => {}
            (_, Some(error)) => errors::show(context, error),
            (Some(CancelEffect::NotBegun), _) if context.verbosity > Verbosity::Quiet => {
                context.print(&format!("{operation} was cancelled before it started\n"))?;
            }
            (Some(_), _) if context.verbosity > Verbosity::Quiet => {
                context.print(&format!("{operation} is being cancelled\n"))?;
            }
            _ => {}
        }
        elements.push(Element { operation, effect, error });
    }
    if context.format == Format::Json {
        context.json(&elements)?;
    }
    Ok(code)
}

/// The effect on an operation in progress.
///
/// # Errors
/// The operation has ended.
fn effect(answer: CancelAnswer) -> Result<CancelEffect, ApiError> {
    let CancelAnswer { operation, effect, state } = answer;
    if effect != CancelEffect::Ended {
        return Ok(effect);
    }
    let state = state_text(state);
    let text = format!("operation `{operation}` has ended ({state}) and cannot be cancelled");
    Err(ApiError::new(ErrorCode::WrongState, text)
        .with_hint(Hint::text(format!("`banger operation show {operation}` shows its result"))))
}
