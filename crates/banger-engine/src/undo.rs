//! Undo of steps, in reverse order; it continues after errors.

use banger_api::operation::OpEventKind;
use banger_api::{ApiError, ErrorCode};

use crate::drivers::Drivers;
use crate::lists::{self, ListName};
use crate::oplog::{StepEventKind, StepId};
use crate::plan::{RunPlan, VmPlan};
use crate::runner::Worker;
use crate::store::Durability;

/// Handling of steps that only another build of banger can undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// They count as failed undos.
    Keep,
    /// Their objects are left on the host, and the VM is deleted anyway.
    Abandon,
}

/// Whether this build has all drivers of a VM.
///
/// # Errors
/// A driver is missing.
pub(crate) fn has_drivers(drivers: &Drivers, vm: &VmPlan) -> Result<(), ApiError> {
    drivers.storage(vm)?;
    drivers.network(vm)?;
    drivers.vmm(vm).map(drop)
}

impl Worker {
    /// Undoes these steps in reverse order, and continues after errors. Returns the errors in the
    /// order of the attempts.
    pub async fn undo_steps(&mut self, name: ListName, steps: &[StepId]) -> Vec<String> {
        let mut problems = Vec::new();
        for id in steps.iter().rev() {
            self.log_undo(id, StepEventKind::UndoStarted, String::new());
            self.flush_undo().await;
            self.crash(name, id.as_str(), "undo_before");
            let context = self.context(id);
            let undone = match lists::find(name, id) {
                Some(step) => (step.undo)(&context).await,
                None => Err(foreign()),
            };
            match undone {
                Ok(undone) => {
                    self.crash(name, id.as_str(), "undone");
                    self.log_undo(id, StepEventKind::Undone, format!("{undone:?}"));
                }
                Err(error)
                    if error.code == ErrorCode::OtherBuild && self.foreign == Foreign::Abandon =>
                {
                    let text =
                        format!("the objects of the step `{}` are left on the host", id.as_str());
                    tracing::warn!(op = %self.op.id, vm = %self.record.plan.id, "{text}");
                    self.log_undo(id, StepEventKind::Undone, text.clone());
                    self.op.emit(OpEventKind::Warning { text });
                }
                Err(error) => {
                    let mut words = vec![id.as_str().to_owned(), error.message];
                    words.extend(error.causes);
                    let text = words.join(": ");
                    tracing::error!(op = %self.op.id, vm = %self.record.plan.id, "undo: {text}");
                    self.log_undo(id, StepEventKind::UndoFailed, text.clone());
                    problems.push(text);
                }
            }
        }
        problems
    }

    fn log_undo(&mut self, step: &StepId, kind: StepEventKind, detail: String) {
        if let Err(error) = self.note(step, kind, detail) {
            tracing::error!(op = %self.op.id, error = %error, "undo continues without its log");
        }
    }

    async fn flush_undo(&mut self) {
        if let Err(error) = self.flush(Durability::Process).await {
            tracing::error!(op = %self.op.id, error = %error, "undo continues without its log");
        }
    }

    /// Ends a VMM that is alive without a run on record, and undoes all steps of a start: two VMMs
    /// must not use the same disks.
    ///
    /// # Errors
    /// Those of a failed undo; the VM is broken then.
    pub(crate) async fn end_stray(&mut self) -> Result<(), ApiError> {
        if self.record.run.is_some() {
            return Ok(());
        }
        let vm = self.record.plan.clone();
        let Ok(vmm) = self.shared.drivers.vmm(&vm) else { return Ok(()) };
        let Some(stray) = vmm.stray(&vm).await else { return Ok(()) };
        let text = format!(
            "`{}` was not on record as running, but its VMM was alive as process {}: ending it",
            vm.name, stray.pid
        );
        tracing::warn!(op = %self.op.id, vm = %vm.id, "{text}");
        self.op.emit(OpEventKind::Warning { text });
        let steps = self.run_steps();
        let host_boot_id = self.shared.drivers.host.boot_id();
        let (op, spec) = (self.op.id.clone(), self.record.spec.clone());
        let mut run = RunPlan::new(op, host_boot_id, spec, steps.clone());
        run.shim = stray.shim;
        self.record.run = Some(run);
        let problems = self.undo_steps(ListName::Start, &steps).await;
        if problems.is_empty() {
            self.record.run = None;
            return Ok(());
        }
        Err(self.broken(problems, None).await)
    }
}

/// The error for a step that is in no list of this build.
pub(crate) fn foreign() -> ApiError {
    let text = "this build of banger does not have the step: use the build that made it";
    ApiError::new(ErrorCode::OtherBuild, text)
}
