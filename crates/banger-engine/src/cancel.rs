//! Cancelling operations: by id, or all on one subject.
//!
//! A request to cancel has one of three answers: done (the operation undoes itself, or never
//! starts), already so (the operation has ended), or refused: a stop or a removal is not undone,
//! and an operation that follows from an event must continue.

use banger_api::operation::{CancelAnswer, CancelEffect, OpState, Subject, SubjectRef};
use banger_api::vm::VmAction;
use banger_api::{ApiError, ErrorCode, Hint, OpId};
use tokio::sync::oneshot;

use crate::engine::Engine;
use crate::ops::Op;
use crate::vm_task::Message;

/// The error of an operation that was cancelled.
pub fn cancelled(op: &Op) -> ApiError {
    ApiError::new(ErrorCode::Cancelled, format!("{} was cancelled", described(op)))
}

/// The operation as errors name it: `start of VM web`, `pull of image debian`.
fn described(op: &Op) -> String {
    let kind = op.kind.as_str();
    let verb = kind.strip_suffix("_image").or(kind.strip_suffix("_kernel")).unwrap_or(kind);
    format!("{verb} of {}", op.subject)
}

/// Effect of a cancel on an operation in progress.
enum CancelPolicy {
    /// The operation undoes itself at its next step.
    Undo,
    /// The operation continues, and the cancel is refused.
    Refuse,
}

fn policy(kind: &str) -> CancelPolicy {
    match kind {
        "create" | "start" | "autostart" | "restart" | "pull_image" | "pull_kernel"
        | "import_image" | "import_kernel" | "build_kernel" | "build_image" | "commit_image"
        | "register_image" | "promote_image" => CancelPolicy::Undo,
        // After a reboot of the guest, the start that follows can be cancelled.
        "exited" => CancelPolicy::Undo,
        _ => CancelPolicy::Refuse,
    }
}

/// Cancels an operation that is not queued.
///
/// # Errors
/// The operation cannot be cancelled.
pub fn cancel_started(op: &Op) -> Result<CancelEffect, ApiError> {
    if op.has_ended() {
        return Ok(CancelEffect::Ended);
    }
    match policy(&op.kind) {
        CancelPolicy::Undo => {
            op.cancel();
            Ok(CancelEffect::Cancelling)
        }
        CancelPolicy::Refuse => Err(refused(op)),
    }
}

fn refused(op: &Op) -> ApiError {
    let text = format!("{} cannot be cancelled: it continues", described(op));
    let error = ApiError::new(ErrorCode::WrongState, text);
    match (op.kind.as_str(), &op.subject) {
        ("stop", Subject::Vm(vm)) => {
            let name = &vm.name;
            error
                .with_hint(Hint::ask(name, VmAction::Kill {}))
                .with_hint(Hint::ask(name, VmAction::Start {}))
        }
        _ => error.with_hint(Hint::WaitForOperation { operation: op.id.clone() }),
    }
    .in_operation(&op.id)
}

/// Whether `wanted` refers to the subject of an operation. `vm` is the id to which a VM's reference
/// resolved.
fn is_meant(subject: &Subject, wanted: &SubjectRef, vm: Option<&banger_api::VmId>) -> bool {
    match (subject, wanted) {
        (Subject::Vm(tag), SubjectRef::Vm(name)) => {
            vm == Some(&tag.id) || (vm.is_none() && tag.name.as_str() == name)
        }
        (Subject::Image { name, id }, SubjectRef::Image(wanted)) => {
            name == wanted || id.as_ref().is_some_and(|id| id.as_str() == wanted)
        }
        (Subject::Kernel { name, id }, SubjectRef::Kernel(wanted)) => {
            name == wanted || id.as_ref().is_some_and(|id| id.as_str() == wanted)
        }
        (Subject::Host, SubjectRef::Host {}) => true,
        (
            Subject::Vm(_) | Subject::Image { .. } | Subject::Kernel { .. } | Subject::Host,
            SubjectRef::Vm(_) | SubjectRef::Image(_) | SubjectRef::Kernel(_) | SubjectRef::Host {},
        ) => false,
    }
}

fn words(wanted: &SubjectRef) -> String {
    let (what, name) = match wanted {
        SubjectRef::Vm(name) => ("VM", name),
        SubjectRef::Image(name) => ("image", name),
        SubjectRef::Kernel(name) => ("kernel", name),
        SubjectRef::Host {} => return "the host".into(),
    };
    let shown = banger_api::excerpt(name);
    format!("{what} `{shown}`")
}

impl Engine {
    /// Cancels one operation.
    ///
    /// # Errors
    /// Not found; an operation that cannot be cancelled.
    pub async fn cancel(&self, id: &OpId) -> Result<CancelAnswer, ApiError> {
        match self.follow(id) {
            Some(op) => {
                let effect = self.cancel_live(&op).await?;
                Ok(CancelAnswer { operation: id.clone(), effect, state: op.state() })
            }
            // No longer in memory: it has ended, or never existed.
            None => {
                let state = self.operation(id).await?.state;
                let effect = CancelEffect::Ended;
                Ok(CancelAnswer { operation: id.clone(), effect, state })
            }
        }
    }

    /// Cancels all operations in progress on a subject, including queued ones.
    ///
    /// # Errors
    /// None is in progress, or none can be cancelled; an ambiguous VM.
    pub async fn cancel_on(&self, wanted: &SubjectRef) -> Result<Vec<CancelAnswer>, ApiError> {
        let vm = match wanted {
            SubjectRef::Vm(reference) => match self.resolve(reference) {
                Err(error) if error.code == ErrorCode::NotFound => None,
                resolved => Some(resolved?),
            },
            SubjectRef::Image(_) | SubjectRef::Kernel(_) | SubjectRef::Host {} => None,
        };
        let meant = |op: &std::sync::Arc<Op>| is_meant(&op.subject, wanted, vm.as_ref());
        let mut answers = Vec::new();
        let mut refusal = None;
        // The newest first: a queued operation must not start when the one before it is cancelled.
        for op in self.shared.ops.live_ops().into_iter().rev().filter(meant) {
            match self.cancel_live(&op).await {
                Ok(CancelEffect::Ended) => {}
                Ok(effect) => answers.push(CancelAnswer {
                    operation: op.id.clone(),
                    effect,
                    state: op.state(),
                }),
                Err(error) => refusal = Some(error),
            }
        }
        if answers.is_empty() {
            return Err(refusal.unwrap_or_else(|| {
                let text = format!("no operation is in progress on {}", words(wanted));
                ApiError::new(ErrorCode::NotFound, text)
            }));
        }
        Ok(answers)
    }

    async fn cancel_live(&self, op: &std::sync::Arc<Op>) -> Result<CancelEffect, ApiError> {
        if op.state() != OpState::Running {
            return Ok(CancelEffect::Ended);
        }
        // Only the task of a VM knows its queue.
        let owner = op.subject.vm().and_then(|vm| self.registry().vms.get(&vm.id).cloned());
        let Some(owner) = owner else { return cancel_started(op) };
        let (reply, answer) = oneshot::channel();
        let message = Message::Cancel { op: op.clone(), reply };
        if owner.urgent.send(message).await.is_err() {
            // The VM was deleted: its operations have ended or are about to end.
            return Ok(CancelEffect::Ended);
        }
        answer.await.unwrap_or(Ok(CancelEffect::Ended))
    }
}

#[cfg(test)]
mod tests {
    use banger_api::operation::VmTag;
    use banger_api::{OpId, VmId};

    use super::*;

    fn image(name: &str, id: Option<&str>) -> Subject {
        Subject::Image { name: name.into(), id: id.map(|id| id.parse().unwrap()) }
    }

    #[test]
    fn a_reference_means_one_subject() {
        let (web, db) = (VmId::from_entropy(1), VmId::from_entropy(2));
        let vm = Subject::Vm(VmTag { id: web.clone(), name: "web".parse().unwrap() });
        let wanted = SubjectRef::Vm("web".into());
        assert!(is_meant(&vm, &wanted, Some(&web)), "an existing VM, by what it resolved to");
        assert!(!is_meant(&vm, &wanted, Some(&db)));
        assert!(is_meant(&vm, &wanted, None), "a VM that is being made, by name");
        assert!(!is_meant(&vm, &SubjectRef::Vm("we".into()), None));
        let same_word = image("web", None);
        assert!(!is_meant(&same_word, &wanted, None));
        assert!(is_meant(&same_word, &SubjectRef::Image("web".into()), None));
        assert!(!is_meant(&same_word, &SubjectRef::Kernel("web".into()), None));
        let known = image("debian", Some("0123456789abcdef"));
        assert!(is_meant(&known, &SubjectRef::Image("0123456789abcdef".into()), None));
        assert!(is_meant(&Subject::Host, &SubjectRef::Host {}, None));
        assert!(!is_meant(&Subject::Host, &wanted, None));
    }

    #[test]
    fn cancel_effects_depend_on_kind_and_state() {
        let vm = VmTag { id: VmId::from_entropy(1), name: "web".parse().unwrap() };
        let op = |kind: &str| Op::new(OpId::from_entropy(1), kind, Subject::Vm(vm.clone()));
        let start = op("start");
        assert_eq!(cancel_started(&start), Ok(CancelEffect::Cancelling));
        assert!(*start.cancelled().borrow());
        start.end(Ok(None));
        assert_eq!(cancel_started(&start), Ok(CancelEffect::Ended));
        let stop = op("stop");
        let error = cancel_started(&stop).unwrap_err();
        assert_eq!(error.code, ErrorCode::WrongState);
        assert!(error.message.contains("stop of `web`"), "{}", error.message);
        assert!(error.hint().unwrap().contains("banger vm kill web"));
        assert!(!*stop.cancelled().borrow());
        for kind in ["kill", "delete", "repair", "recover", "delete_image"] {
            assert_eq!(
                cancel_started(&op(kind)).unwrap_err().code,
                ErrorCode::WrongState,
                "{kind}"
            );
        }
    }
}
