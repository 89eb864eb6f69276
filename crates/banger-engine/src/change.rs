//! Changing the specification of a VM.
//!
//! A stopped VM only gets another specification. While it runs, each capability decides when its
//! part takes effect. Steps of those that change live are undone and applied again:
//!
//! ```text
//! begin    the old specification and steps are on record as `RunPlan::change`
//! undo     the steps, with the old specification
//! switch   the run has the new specification and steps
//! apply    the steps, with the new specification
//! commit   the VM has the new specification, and there is no change any more
//! ```
//!
//! A failure before the commit takes the change back: undo, switch to the old specification, apply.
//! A daemon that finds a change on record does the same ([`Worker::take_back`]).

use banger_api::operation::OpEventKind;
use banger_api::set::{SetVm, Unpublish};
use banger_api::size::{MIB, human_size};
use banger_api::sync;
use banger_api::vm::{CreateVm, Lifetime, VmAction, VmState};
use banger_api::{ApiError, ErrorCode, Hint, VmName};

use crate::capabilities::{self, ALL};
use crate::capability::{Capability, Change, Slot, VmContext};
use crate::engine::Engine;
use crate::lists::{self, ListName};
use crate::oplog::StepId;
use crate::plan::{LiveChange, RunPlan, VmSpec};
use crate::record::{Presence, VmRecord};
use crate::runner::Worker;
use crate::store::Durability;

/// The specification after a change.
///
/// # Errors
/// `BadRequest`: the published ports collide, or there are too many labels.
fn requested(name: &VmName, spec: &VmSpec, set: &SetVm) -> Result<VmSpec, ApiError> {
    let bad = |problem: &dyn core::fmt::Display| {
        ApiError::new(ErrorCode::BadRequest, format!("cannot set `{name}`: {problem}"))
    };
    let publish = set.published(&spec.publish).map_err(|problem| bad(&problem))?;
    let labels = spec.labels.changed(&set.unlabel, &set.labels).map_err(|problem| bad(&problem))?;
    let sync = sync::changed(&spec.sync, &set.sync, &set.unsync);
    let sync = sync.map_err(|problem| bad(&problem))?;
    Ok(VmSpec {
        vcpus: set.vcpus.unwrap_or(spec.vcpus),
        memory_mib: set.memory_mib.unwrap_or(spec.memory_mib),
        root_bytes: set.root_bytes.unwrap_or(spec.root_bytes),
        work_bytes: set.work_bytes.unwrap_or(spec.work_bytes),
        nat: set.nat.unwrap_or(spec.nat),
        publish,
        autostart: set.autostart.unwrap_or(spec.autostart),
        labels,
        sync,
    })
}

/// The refusal of a smaller disk.
pub(crate) fn only_grows(disk: &str, bytes: u64) -> String {
    format!("a {disk} only grows, and it has {}", human_size(bytes))
}

fn refused(name: &VmName, why: &str) -> ApiError {
    ApiError::new(ErrorCode::WrongState, format!("cannot set `{name}`: {why}"))
}

/// The steps of a run after those of some capabilities changed from `again` to what is planned.
/// Steps of other builds keep their places.
fn rearranged(run: &[StepId], again: &[StepId], planned: &[StepId]) -> Vec<StepId> {
    let mut steps: Vec<StepId> = run.iter().filter(|id| !again.contains(id)).cloned().collect();
    for (place, id) in planned.iter().enumerate().filter(|(_, id)| again.contains(id)) {
        let before = planned.iter().take(place).rev();
        let after = before.filter_map(|one| steps.iter().position(|step| step == one)).next();
        steps.insert(after.map_or(0, |at| at + 1), id.clone());
    }
    steps
}

/// Values of `new` that differ, as `vcpus 4 (was 1)`.
fn differences(now: &VmSpec, new: &VmSpec) -> Vec<String> {
    let mib = |mib: u64| human_size(mib.saturating_mul(MIB));
    let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
    let ports = |spec: &VmSpec| match spec.publish.as_slice() {
        [] => "none".to_owned(),
        ports => ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    let labels = |spec: &VmSpec| match spec.labels.is_empty() {
        true => "none".to_owned(),
        false => spec.labels.to_string(),
    };
    let folders = |spec: &VmSpec| match spec.sync.as_slice() {
        [] => "none".to_owned(),
        all => {
            let shown = all.iter().map(|one| format!("{} and {}", one.host, one.guest));
            shown.collect::<Vec<_>>().join(", ")
        }
    };
    let values = [
        ("vcpus", now.vcpus.to_string(), new.vcpus.to_string()),
        ("memory", mib(now.memory_mib), mib(new.memory_mib)),
        ("root disk", human_size(now.root_bytes), human_size(new.root_bytes)),
        ("work disk", human_size(now.work_bytes), human_size(new.work_bytes)),
        ("nat", switch(now.nat), switch(new.nat)),
        ("published ports", ports(now), ports(new)),
        ("autostart", switch(now.autostart), switch(new.autostart)),
        ("labels", labels(now), labels(new)),
        ("live folders", folders(now), folders(new)),
    ];
    let changed = values.into_iter().filter(|(_, now, new)| now != new);
    changed.map(|(what, now, new)| format!("{what} {new} (was {now})")).collect()
}

/// Steps of a run that capabilities may undo and apply again.
fn steps_of(live: &[&Capability]) -> Vec<StepId> {
    let steps = live.iter().flat_map(|capability| capability.steps);
    steps.filter(|step| step.slot != Slot::Lasting).map(|step| step.id.clone()).collect()
}

fn among(steps: &[StepId], again: &[StepId]) -> Vec<StepId> {
    steps.iter().filter(|id| again.contains(id)).cloned().collect()
}

fn no_run() -> ApiError {
    ApiError::new(ErrorCode::Internal, "a live change without an active run")
}

fn run_of(record: &mut VmRecord) -> Result<&mut RunPlan, ApiError> {
    record.run.as_mut().ok_or_else(no_run)
}

/// The error of a request that removes nothing but ports that are not published.
fn not_published(name: &VmName, port: Unpublish, spec: &VmSpec) -> ApiError {
    let text = format!("`{name}` does not publish port `{port}`");
    let ports: Vec<String> = spec.publish.iter().map(ToString::to_string).collect();
    let hint = match ports.is_empty() {
        true => "it publishes no port".to_owned(),
        false => format!("it publishes {}", ports.join(", ")),
    };
    ApiError::new(ErrorCode::NotFound, text).with_hint(Hint::text(hint))
}

fn with_causes(text: String, causes: Vec<String>) -> ApiError {
    let mut error = ApiError::new(ErrorCode::Internal, text);
    error.causes = causes;
    error
}

impl Worker {
    /// Changes the specification: at once where that is possible, else from the next start on.
    ///
    /// # Errors
    /// A value that cannot be changed, or a live change that failed and was taken back.
    pub async fn set(&mut self, set: &SetVm) -> Result<Presence, ApiError> {
        let name = self.record.plan.name.clone();
        let new = requested(&name, &self.record.spec, set)?;
        let running = matches!(self.record.state, VmState::Running | VmState::Paused);
        let run = self.record.run.clone().filter(|_| running);
        let now = self.record.spec_in_force().clone();
        if new.root_bytes < now.root_bytes {
            return Err(refused(&name, &only_grows("root disk", now.root_bytes)));
        }
        if new.autostart && self.record.plan.lifetime != Lifetime::Keep {
            let why = "it is deleted when it stops, so it cannot be started automatically";
            return Err(refused(&name, why));
        }
        if let Some(port) = set.not_published(&self.record.spec.publish).first()
            && new == self.record.spec
        {
            return Err(not_published(&name, *port, &new));
        }
        let changes = capabilities::changes(&now, &new, run.as_ref());
        if let Some(why) = changes.iter().find_map(|(_, change)| match change {
            Change::Refused(why) => Some(why),
            Change::None | Change::Live | Change::NextStart => None,
        }) {
            return Err(refused(&name, why));
        }
        if let Some(kernel) = &set.kernel {
            self.set_kernel(kernel).await?;
        }
        self.warn_of(set);
        // A change that could not be taken back is on record until its steps are in place again.
        let left = run.as_ref().and_then(|run| run.change.as_ref());
        let is_left = |one: &Capability| {
            left.is_some_and(|left| one.steps.iter().any(|step| left.again.contains(&step.id)))
        };
        let is_live = |one: &Capability| changes.contains(&(one.name, Change::Live));
        let live: Vec<_> = ALL.iter().filter(|one| is_live(one) || is_left(one)).collect();
        if live.is_empty() {
            let replace = |record: &mut VmRecord| {
                record.spec = new.clone();
                Ok(())
            };
            self.decide(Durability::Process, replace).await?;
        } else {
            self.change_live(&live, &new).await?;
        }
        if running {
            self.report(&now, &new);
        }
        Ok(Presence::Exists)
    }

    fn warn_of(&self, set: &SetVm) {
        for port in set.not_published(&self.record.spec.publish) {
            let text = format!("`{}` does not publish port `{port}`", self.record.plan.name);
            self.op.emit(OpEventKind::Warning { text });
        }
        for key in set.unlabel.iter().filter(|key| !self.record.spec.labels.contains(key)) {
            let text = format!("`{}` has no label `{key}`", self.record.plan.name);
            self.op.emit(OpEventKind::Warning { text });
        }
        let &SetVm { vcpus, memory_mib, root_bytes, work_bytes, .. } = set;
        let request = CreateVm { vcpus, memory_mib, root_bytes, work_bytes, ..CreateVm::default() };
        for text in Engine::capacity_warnings(&request, self.shared.drivers.host.capacity()) {
            self.op.emit(OpEventKind::Warning { text });
        }
    }

    /// Reports which values take effect when.
    fn report(&self, before: &VmSpec, new: &VmSpec) {
        let now = self.record.spec_in_force();
        let name = &self.record.plan.name;
        let live = differences(before, now);
        if !live.is_empty() {
            let text = format!("`{name}` changed while it runs: {}", live.join(", "));
            self.op.emit(OpEventKind::Note { text });
        }
        let later = differences(now, new);
        if !later.is_empty() {
            let text = format!("`{name}` changes at its next start: {}", later.join(", "));
            self.op.emit(OpEventKind::Note { text });
        }
    }

    async fn change_live(&mut self, live: &[&Capability], new: &VmSpec) -> Result<(), ApiError> {
        let run = self.record.run.clone().ok_or_else(no_run)?;
        let mut target = run.spec.clone();
        live.iter().filter_map(|one| one.live).for_each(|take_over| take_over(&mut target, new));
        for capability in live {
            let effects = self.shared.drivers.effects.iter();
            let mut effects = effects.filter(|effects| effects.name == capability.name);
            if let Some(preflight) = effects.find_map(|effects| effects.preflight.clone()) {
                let vm = &self.record.plan;
                let (spec, run, interrupt) = (&target, Some(&run), None);
                preflight.check(VmContext { vm, spec, run, interrupt }).await?;
            }
        }
        let RunPlan { spec, steps, change, .. } = run;
        let mut change = change.unwrap_or(LiveChange { from: spec, steps, again: Vec::new() });
        change.again.extend(steps_of(live));
        let again = change.again.clone();
        let begin = |record: &mut VmRecord| {
            run_of(record)?.change = Some(change);
            Ok(())
        };
        self.crash(ListName::Start, "change_begin", "before");
        self.decide(Durability::Process, begin).await?;
        self.crash(ListName::Start, "change_begin", "after");
        match self.replace(target, new, &again).await {
            Ok(()) => {
                self.stages.finish();
                Ok(())
            }
            Err(error) => Err(self.taken_back(error).await),
        }
    }

    /// Undoes steps, switches the run to another specification, applies them, and commits.
    async fn replace(
        &mut self,
        target: VmSpec,
        new: &VmSpec,
        again: &[StepId],
    ) -> Result<(), ApiError> {
        let run = self.record.run.clone().ok_or_else(no_run)?;
        let problems = self.undo_steps(ListName::Start, &among(&run.steps, again)).await;
        if !problems.is_empty() {
            let text = format!("cannot set `{}`: not all could be undone", self.record.plan.name);
            return Err(with_causes(text, problems));
        }
        let planned = lists::planned(ListName::Start, &self.record.plan, &target);
        let steps = rearranged(&run.steps, again, &planned);
        self.switch(target, steps.clone()).await?;
        let applied = self.apply_steps(ListName::Start, &among(&steps, again)).await;
        applied.map_err(|(error, _)| error)?;
        self.crash(ListName::Start, "change_commit", "before");
        let commit = |record: &mut VmRecord| {
            run_of(record)?.change = None;
            record.spec = new.clone();
            Ok(())
        };
        self.decide(Durability::Process, commit).await?;
        self.crash(ListName::Start, "change_commit", "after");
        Ok(())
    }

    async fn switch(&mut self, spec: VmSpec, steps: Vec<StepId>) -> Result<(), ApiError> {
        let switch = |record: &mut VmRecord| {
            let run = run_of(record)?;
            (run.spec, run.steps) = (spec, steps);
            Ok(())
        };
        self.decide(Durability::Process, switch).await
    }

    /// Takes a failed change back; the error tells whether that succeeded.
    async fn taken_back(&mut self, mut error: ApiError) -> ApiError {
        self.stages.abandon();
        let name = self.record.plan.name.clone();
        match self.take_back().await {
            Ok(()) => error.causes.push("the values before the change are in effect".into()),
            Err(failed) => {
                error.also(failed);
                let restart = VmAction::Restart { grace_ms: banger_api::vm::DEFAULT_GRACE_MS };
                error.hints.push(Hint::ask(&name, restart));
            }
        }
        error
    }

    /// Takes back a live change that is on record. It stays on record where that fails.
    ///
    /// # Errors
    /// Steps that could not be undone or applied.
    pub(crate) async fn take_back(&mut self) -> Result<(), ApiError> {
        let Some(run) = self.record.run.clone() else { return Ok(()) };
        let Some(LiveChange { from, steps, again }) = run.change else { return Ok(()) };
        let name = &self.record.plan.name;
        let text = format!("the values of `{name}` before the change could not be restored");
        let problems = self.undo_steps(ListName::Start, &among(&run.steps, &again)).await;
        if !problems.is_empty() {
            return Err(with_causes(text, problems));
        }
        let restored = async {
            self.switch(from, steps.clone()).await?;
            let steps = among(&steps, &again);
            if let Err((error, count)) = self.apply_steps(ListName::Start, &steps).await {
                let begun: Vec<StepId> = steps.into_iter().take(count).collect();
                self.undo_steps(ListName::Start, &begun).await;
                return Err(error);
            }
            let done = |record: &mut VmRecord| {
                run_of(record)?.change = None;
                Ok(())
            };
            self.decide(Durability::Process, done).await
        };
        restored.await.map_err(|error: ApiError| {
            with_causes(text, [vec![error.message], error.causes].concat())
        })
    }
}

#[cfg(test)]
mod tests {
    use banger_api::labels::{self, Labels};

    use super::*;
    use crate::plan::tests::{plan, spec};

    fn ids(words: &[&'static str]) -> Vec<StepId> {
        words.iter().map(|word| StepId::new(word)).collect()
    }

    #[test]
    fn steps_of_a_capability_go_to_their_places() {
        let planned = ids(&["network", "forwarder", "forwards", "run_folder"]);
        let again = ids(&["forwarder", "forwards"]);
        let without = ids(&["network", "teleport", "run_folder"]);
        let with = ids(&["network", "forwarder", "forwards", "teleport", "run_folder"]);
        assert_eq!(rearranged(&without, &again, &planned), with);
        assert_eq!(rearranged(&with, &again, &ids(&["network", "run_folder"])), without);
        assert_eq!(rearranged(&with, &again, &planned), with);
    }

    #[test]
    fn absent_values_stay() {
        let (name, old) = (plan("0123456789ab", "web").name, spec());
        assert_eq!(requested(&name, &old, &SetVm::default()), Ok(spec()));
        let grow = SetVm { root_bytes: Some(old.root_bytes * 2), ..SetVm::default() };
        let new = requested(&name, &old, &grow).unwrap();
        assert_eq!(new, VmSpec { root_bytes: old.root_bytes * 2, ..old });
    }

    #[test]
    fn differences_name_old_and_new_values() {
        let old = spec();
        let publish = vec!["8080:80".parse().unwrap()];
        let (root_bytes, work_bytes) = (16 << 30, 9 << 30);
        let labels = Labels::of(["b=1", "a"].map(|text| labels::parse(text).unwrap())).unwrap();
        let new = VmSpec {
            vcpus: 4,
            memory_mib: 2048,
            root_bytes,
            work_bytes,
            nat: false,
            publish,
            autostart: true,
            labels,
            sync: Vec::new(),
        };
        let texts = [
            "vcpus 4 (was 1)",
            "memory 2 GiB (was 512 MiB)",
            "root disk 16 GiB (was 8 GiB)",
            "work disk 9 GiB (was 8 GiB)",
            "nat off (was on)",
            "published ports 127.0.0.1:8080:80 (was none)",
            "autostart on (was off)",
            "labels a, b=1 (was none)",
        ];
        assert_eq!(differences(&old, &new), texts);
        assert!(differences(&old, &old).is_empty());
    }
}
