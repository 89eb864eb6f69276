//! Records for the tests of the store.
#![allow(dead_code, reason = "each test program uses its own part of these")]

use banger_api::operation::{OpState, Subject, VmTag};
use banger_api::vm::Lifetime;
use banger_api::{OpId, VmId};
use banger_engine::oplog::{StepEvent, StepEventKind, StepId};
use banger_engine::plan::{BootSet, Chosen, DriverPlan, VmPlan, VmSpec};
use banger_engine::record::VmRecord;
use banger_engine::store::{OpRecord, Write};

pub fn vm_id(n: u64) -> VmId {
    VmId::from_entropy(n)
}

pub fn op_id(n: u64) -> OpId {
    OpId::from_entropy(n)
}

pub fn vm(n: u64, name: &str) -> VmRecord {
    let chosen = |name: &str| Chosen { name: name.into(), why: "a test".into() };
    let plan = VmPlan {
        id: vm_id(n),
        name: name.parse().unwrap(),
        boot: BootSet {
            image: "0123456789abcdef".parse().unwrap(),
            image_name: "debian".into(),
            image_bytes: 1 << 30,
            kernel: "fedcba9876543210".parse().unwrap(),
            opencode: false,
        },
        drivers: DriverPlan { vmm: chosen("v"), storage: chosen("s"), network: chosen("n") },
        lifetime: Lifetime::Keep,
        machine_id: "0".repeat(32),
        created_unix_ms: 1_767_225_600_000,
        program: None,
        agent_login: None,
        build: None,
    };
    let spec = VmSpec {
        vcpus: 1,
        memory_mib: 512,
        root_bytes: 8 << 30,
        work_bytes: 8 << 30,
        nat: true,
        publish: vec!["8080:80".parse().unwrap()],
        autostart: true,
        labels: Default::default(),
        sync: Vec::new(),
    };
    VmRecord::new(plan, spec, vec![StepId::new("root_disk")])
}

pub fn put(vm: &VmRecord) -> Write {
    Write::PutVm(Box::new(vm.clone()))
}

pub fn op(n: u64, vm: &VmRecord) -> OpRecord {
    OpRecord {
        id: op_id(n),
        kind: "start".into(),
        subject: Subject::Vm(VmTag { id: vm.plan.id.clone(), name: vm.plan.name.clone() }),
        state: OpState::Running,
        error: None,
        made: None,
        started_unix_ms: 1_767_225_600_000 + n,
        trace: None,
    }
}

pub fn event(step: StepId, kind: StepEventKind, at_unix_ms: u64) -> StepEvent {
    let detail = format!("{kind:?} `{}`\n", step.as_str());
    StepEvent { step, kind, detail, at_unix_ms }
}
