//! Tools about the repository that `banger run PATH` put in a machine: what changed on either side,
//! and the machine's changes brought to this host.

use std::ffi::OsString;
use std::io;

use banger_api::operation::VmTag;
use banger_api::{ApiError, ErrorCode, Hint};
use banger_client::BlockingGuest;
use banger_client::text::line;
use banger_workspace::Workspace;
use banger_workspace::fetch::Limits;
use banger_workspace::guest::{Guest, Talk};
use banger_workspace::pull::{Form, Which};
use banger_workspace::summary::{Summary, changed, left_out};
use serde_json::{Value, json};

use crate::arguments::{DEFAULT_OUTPUT_BYTES, MAX_OUTPUT_BYTES, WorkspaceDiff, WorkspacePull};
use crate::server::Call;
use crate::text;

/// The guest of a machine.
struct Machine(BlockingGuest);

impl Guest for Machine {
    fn start(&self, command: &[OsString]) -> Result<Talk, ApiError> {
        let started = self.0.start(command)?;
        Ok(Talk {
            output: Box::new(started.output),
            input: Box::new(started.input),
            end: Box::new(move || started.end.wait()),
        })
    }
}

impl Call<'_> {
    /// What changed on either side.
    pub async fn workspace_status(&mut self, vm: &str) -> Result<Value, ApiError> {
        let summary = self
            .on_workspace(vm, |workspace, machine, _| {
                let status = workspace.status(machine)?;
                Ok(Summary::new(workspace.record(), &status))
            })
            .await?;
        let mut value = serde_json::to_value(summary).unwrap_or_default();
        plain(&mut value);
        Ok(value)
    }

    /// The machine's changes as a patch.
    pub async fn workspace_diff(&mut self, wanted: WorkspaceDiff) -> Result<Value, ApiError> {
        let limit = wanted.max_output_bytes.unwrap_or(DEFAULT_OUTPUT_BYTES);
        if !(1..=MAX_OUTPUT_BYTES).contains(&limit) {
            let text = format!("`max_output_bytes` must be from 1 to {MAX_OUTPUT_BYTES}");
            return Err(ApiError::new(ErrorCode::BadRequest, text));
        }
        let form = if wanted.stat { Form::Stat } else { Form::Patch };
        let patch = self
            .on_workspace(&wanted.vm, move |workspace, machine, _| {
                let fetched = workspace.fetch(machine, &Limits::default(), Which::All)?;
                let mut patch = First { limit: limit as usize, bytes: Vec::new(), total: 0 };
                workspace.write(&fetched, form, &mut patch)?;
                Ok(patch)
            })
            .await?;
        Ok(json!({
            "patch": text::lines(&patch.bytes),
            "bytes": patch.total,
            "truncated": patch.total > patch.bytes.len() as u64,
        }))
    }

    /// Brings the machine's changes to the repository of this host: all of them, or none.
    pub async fn workspace_pull(&mut self, wanted: WorkspacePull) -> Result<Value, ApiError> {
        let Some(branch) = wanted.branch else { return self.pull_files(&wanted.vm).await };
        let name = branch.clone();
        let made = self
            .on_workspace(&wanted.vm, move |workspace, machine, vm| {
                workspace.branch(machine, &Limits::default(), &name, vm.name.as_str())
            })
            .await?;
        Ok(json!({
            "branch": branch,
            "id": made.id,
            "commits": made.commits,
            "has_uncommitted": made.has_uncommitted,
        }))
    }

    async fn pull_files(&mut self, vm: &str) -> Result<Value, ApiError> {
        let cancelled = self.context.ct.clone();
        let mut value = self
            .on_workspace(vm, move |workspace, machine, _| {
                let fetched = workspace.fetch(machine, &Limits::default(), Which::Own)?;
                // From here on to the end: no call is cancelled that has changed a file.
                if cancelled.is_cancelled() {
                    return Err(ApiError::new(ErrorCode::Cancelled, "the call was cancelled"));
                }
                let changes = &fetched.status.changes;
                let result = json!({
                    "changed": changed(&changes.guest),
                    "left_out": left_out(&fetched.status.guest),
                });
                workspace.pull(&fetched, &|| {}).map(|()| result).map_err(|error| {
                    match changes.conflicts.is_empty() {
                        true => error,
                        false => with_remedy(error),
                    }
                })
            })
            .await?;
        plain(&mut value);
        Ok(value)
    }

    /// Runs blocking work on the workspace of a machine. It goes on after a cancelled call, to the
    /// end of what it does.
    async fn on_workspace<T: Send + 'static>(
        &mut self,
        vm: &str,
        work: impl FnOnce(&mut Workspace, &Machine, &VmTag) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let summary = self.client.vm(vm).await?.summary;
        let vm = VmTag { id: summary.id, name: summary.name };
        let folder = self.client.paths().workspace(&vm.id);
        let machine = Machine(BlockingGuest::new(self.client, &vm));
        let working = tokio::task::spawn_blocking(move || {
            let mut workspace = Workspace::open(&folder, vm.name.as_str())?;
            work(&mut workspace, &machine, &vm)
        });
        tokio::select! {
            // Finished work has priority over the wish to end it.
            biased;
            worked = working => worked.map_err(|error| {
                ApiError::new(ErrorCode::Internal, "a thread failed").caused_by(&error)
            })?,
            () = self.context.ct.cancelled() => {
                Err(ApiError::new(ErrorCode::Cancelled, "the call was cancelled"))
            }
        }
    }
}

/// The advice for conflicts, in terms of the tools.
fn with_remedy(mut error: ApiError) -> ApiError {
    error.hints = vec![Hint::text(
        "`branch` puts the machine's changes on a new branch of the repository, which git merges",
    )];
    error
}

/// Escapes text of a guest in a document.
fn plain(value: &mut Value) {
    match value {
        Value::String(text) => *text = line(text),
        Value::Array(values) => values.iter_mut().for_each(plain),
        Value::Object(object) => object.values_mut().for_each(plain),
        _ => {}
    }
}

/// Keeps the first bytes, and counts all.
struct First {
    limit: usize,
    bytes: Vec<u8>,
    total: u64,
}

impl io::Write for First {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.limit.saturating_sub(self.bytes.len()).min(bytes.len());
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or_default());
        self.total += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
