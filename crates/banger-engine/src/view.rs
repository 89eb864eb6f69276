//! Views of records for the API.

use std::time::Duration;

use banger_api::operation::{OpState, OperationView};
use banger_api::vm::{DriverReasons, Drivers, SpecView, VmDetails, VmState, VmSummary};
use banger_api::{ByteString, VmName};

use crate::autostart;
use crate::capabilities::opencode;
use crate::drivers::Drivers as DriverSet;
use crate::ops::Op;
use crate::plan::{RunPlan, VmPlan};
use crate::program;
use crate::record::VmRecord;
use crate::shared::Published;
use crate::store::OpRecord;

/// A VM for the feed of changes.
pub fn now(published: Published) -> banger_api::events::VmNow {
    let Published { record, operation, .. } = published;
    banger_api::events::VmNow {
        id: record.plan.id.clone(),
        name: record.plan.name.clone(),
        state: record.state,
        generation: record.generation,
        operation,
    }
}

/// RFC 3339 in UTC with whole seconds, from milliseconds since 1970.
pub fn rfc3339(unix_ms: u64) -> String {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// An entry of the list.
pub async fn summary(drivers: &DriverSet, published: &Published) -> VmSummary {
    let record = &published.record;
    let (plan, spec) = (&record.plan, record.spec_in_force());
    let disk = match drivers.storage(plan) {
        Ok(storage) => storage.usage(plan, spec).await,
        Err(_) => banger_api::vm::DiskView::default(),
    };
    let running = matches!(record.state, VmState::Running | VmState::Paused);
    let lease = record.run.as_ref().and_then(|run| run.lease.as_ref());
    let ip = lease.filter(|_| running).map(|lease| lease.address.to_string());
    VmSummary {
        id: plan.id.clone(),
        name: plan.name.clone(),
        state: record.state,
        image: plan.boot.image_name.clone(),
        vcpus: Some(spec.vcpus),
        memory_mib: Some(spec.memory_mib),
        ip,
        created_at: rfc3339(plan.created_unix_ms),
        disk: Some(disk),
        operation: published.operation.clone(),
        publish: spec.publish.clone(),
        labels: spec.labels.to_map(),
        opencode: opencode::is_served(plan),
        problem: None,
    }
}

/// Timeout of a health request whose answer only adds a notice.
const NOTICE_TIMEOUT: Duration = Duration::from_millis(300);

/// The warning about an agent that ended before its guest, and was restarted.
pub fn agent_warning(name: &VmName, restarts: u32) -> Option<String> {
    let times = match restarts {
        0 => return None,
        1 => "once".to_owned(),
        many => format!("{many} times"),
    };
    Some(format!(
        "the guest agent ended {times} and was started again, which cut its sessions: `banger vm \
         logs {name}` says why in lines that begin with `banger:`, `banger vm restart {name}` \
         starts with a new one"
    ))
}

/// That warning for a VM, if it is running.
async fn agent_notice(drivers: &DriverSet, record: &VmRecord) -> Option<String> {
    if record.state != VmState::Running {
        return None;
    }
    let answer = tokio::time::timeout(NOTICE_TIMEOUT, drivers.guest.health(&record.plan));
    let health = answer.await.ok()?.ok()?;
    agent_warning(&record.plan.name, health.agent_restarts)
}

/// Details of one VM.
pub async fn details(drivers: &DriverSet, published: &Published) -> VmDetails {
    let record = &published.record;
    let plan = &record.plan;
    let run = record.run.as_ref();
    let vmm = drivers.vmm(plan);
    let mut notices = match run {
        Some(run) => notices(drivers, plan, run).await,
        None => Vec::new(),
    };
    notices.extend(agent_notice(drivers, record).await);
    notices.extend(autostart::notice(record));
    let paths = match vmm {
        Ok(vmm) => vmm.paths(plan),
        Err(_) => banger_api::vm::VmPaths {
            console_log: ByteString::default(),
            vmm_log: ByteString::default(),
            shim_log: ByteString::default(),
        },
    };
    VmDetails {
        summary: summary(drivers, published).await,
        pid: run.and_then(|run| run.vmm_pid),
        boot_id: run.and_then(|run| run.boot_id.clone()),
        stopped_because: record.because.clone(),
        drivers: Drivers {
            vmm: plan.drivers.vmm.name.clone(),
            storage: plan.drivers.storage.name.clone(),
            network: plan.drivers.network.name.clone(),
        },
        why: DriverReasons {
            vmm: plan.drivers.vmm.why.clone(),
            storage: plan.drivers.storage.why.clone(),
            network: plan.drivers.network.why.clone(),
        },
        start: record.start.clone(),
        boot: published.boot().cloned(),
        paths,
        image_id: plan.boot.image.clone(),
        kernel_id: plan.boot.kernel.clone(),
        lifetime: plan.lifetime,
        autostart: record.spec.autostart,
        program: program::view(record),
        sync: Vec::new(),
        problems: record.problems.clone(),
        notices,
        next_start: next_start(record),
        generation: record.generation,
    }
}

/// Values that the next start uses, if they differ from those of the running VM.
fn next_start(record: &VmRecord) -> Option<SpecView> {
    let spec = &record.spec;
    (spec != record.spec_in_force()).then(|| SpecView {
        vcpus: spec.vcpus,
        memory_mib: spec.memory_mib,
        root_bytes: spec.root_bytes,
        work_bytes: spec.work_bytes,
        nat: spec.nat,
        publish: spec.publish.clone(),
    })
}

/// Notices of the VMM about a run.
pub async fn notices(drivers: &DriverSet, plan: &VmPlan, run: &RunPlan) -> Vec<String> {
    let devices = drivers.devices(plan, &run.spec, run.lease.as_ref());
    let (Ok(vmm), Ok(devices)) = (drivers.vmm(plan), devices) else { return Vec::new() };
    match vmm.notices() {
        Some(notices) => notices.of(plan, &devices).await,
        None => Vec::new(),
    }
}

/// A stored operation. `live`: this daemon works on it; an open operation of an earlier daemon is
/// shown as interrupted.
pub fn operation(record: OpRecord, live: bool) -> OperationView {
    let OpRecord { id, kind, subject, mut state, mut error, made, started_unix_ms, trace } = record;
    if state == OpState::Running && !live {
        state = OpState::Failed;
        error.get_or_insert_with(|| crate::recovery::interrupted(&id));
    }
    let started_at = rfc3339(started_unix_ms);
    OperationView { id, kind, subject, state, started_at, error, made, trace }
}

/// An operation that is not stored yet.
pub fn live_operation(op: &Op, now_unix_ms: u64) -> OperationView {
    use banger_api::operation::OpEventKind;
    let mut view = OperationView {
        id: op.id.clone(),
        kind: op.kind.clone(),
        subject: op.subject.clone(),
        state: OpState::Running,
        started_at: rfc3339(now_unix_ms.saturating_sub(op.elapsed_ms())),
        error: None,
        made: None,
        trace: op.trace.clone(),
    };
    match op.last_event() {
        Some(OpEventKind::Succeeded { made }) => {
            (view.state, view.made) = (OpState::Succeeded, made);
        }
        Some(OpEventKind::Failed { error }) => {
            (view.state, view.error) = (OpState::Failed, Some(error));
        }
        _ => {}
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restarted_agent_leads_to_a_warning() {
        let name: VmName = "web".parse().unwrap();
        assert_eq!(agent_warning(&name, 0), None);
        assert!(agent_warning(&name, 1).unwrap().contains("ended once and"));
        let often = agent_warning(&name, 3).unwrap();
        assert!(often.contains("ended 3 times") && often.contains("`banger vm restart web`"));
    }

    #[test]
    fn dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_503_999_999), "2026-11-24T07:06:39Z");
        assert_eq!(rfc3339(4_107_542_400_000), "2100-03-01T00:00:00Z");
    }
}
