//! Committed records are read back unchanged, commits are atomic, and unreadable rows stay
//! unchanged.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::collections::BTreeMap;

use banger_api::idempotency::KEPT_MS;
use banger_api::operation::Accepted;
use banger_api::operation::{OpState, Subject};
use banger_api::vm::{StoppedBecause, VmState};
use banger_api::{ApiError, ErrorCode, Hint};
use banger_engine::oplog::{StepEvent, StepEventKind as Kind, StepId};
use banger_engine::record::VmRecord;
use banger_engine::store::{Durability, KeptAnswer, OpRecord, Store as _, Write};
use banger_store::{KEPT_OPERATIONS, Store};
use common::{event, op, op_id, put, vm};
use proptest::prelude::*;

async fn commit(store: &Store, writes: Vec<Write>) -> Result<(), ApiError> {
    store.commit(writes, Durability::Process).await
}

fn in_new_folder() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(banger_store::FILE_NAME);
    (folder, path)
}

#[tokio::test]
async fn records_survive_reopening() {
    let (_folder, path) = in_new_folder();
    let mut web = vm(1, "web");
    let start = op(7, &web);
    let log = [
        event(StepId::new("network"), Kind::Started, 5),
        event(StepId::new("network"), Kind::Failed, u64::MAX),
        event(StepId::new("network"), Kind::UndoStarted, 7),
    ];
    {
        let store = Store::open(&path).unwrap();
        let add = vec![put(&web), Write::AddOp(start.clone())];
        store.commit(add, Durability::Power).await.unwrap();
        web.generation = u64::MAX;
        web.state = VmState::Broken;
        web.because = Some(StoppedBecause::VmmDied { story: "signal 9\n`tail`".into() });
        web.problems = vec!["network: `it` stays".into()];
        let lines = log.iter().map(|line| Write::Log(start.id.clone(), line.clone()));
        let writes = lines.chain([put(&web)]).collect();
        commit(&store, writes).await.unwrap();
    }
    let store = Store::open(&path).unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.vms, [web.clone()]);
    assert_eq!(loaded.open_ops, [(start.clone(), log.to_vec())]);
    assert!(loaded.unreadable.is_empty());
    assert_eq!(store.operation(&start.id).await.unwrap(), Some(start.clone()));
    assert_eq!(store.operation(&op_id(8)).await.unwrap(), None);
    assert_eq!(store.log(&op_id(8)).await.unwrap(), []);

    let error =
        ApiError::new(ErrorCode::GuestFailed, "no").with_hint(Hint::Retry).in_operation(&start.id);
    let end = Write::EndOp { op: start.id.clone(), result: Err(error.clone()) };
    commit(&store, vec![end, Write::RemoveVm(web.plan.id.clone())]).await.unwrap();
    let loaded = store.load().await.unwrap();
    assert!(loaded.vms.is_empty() && loaded.open_ops.is_empty());
    let ended = OpRecord { state: OpState::Failed, error: Some(error), ..start.clone() };
    assert_eq!(store.operations(9).await.unwrap(), [ended], "it outlives its VM");
    assert_eq!(store.log(&start.id).await.unwrap(), log);
}

#[tokio::test]
async fn a_commit_is_atomic() {
    let store = Store::open_in_memory().unwrap();
    let web = vm(1, "web");
    commit(&store, vec![put(&web)]).await.unwrap();
    let other = vm(2, "web");
    let add = Write::AddOp(op(1, &other));
    let error = commit(&store, vec![add.clone(), put(&other)]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NameTaken);
    assert_eq!(error.message, "there is a VM `web` already");
    assert_eq!(store.operations(9).await.unwrap(), [], "nothing of it was kept");
    assert_eq!(store.load().await.unwrap().vms, std::slice::from_ref(&web));
    let renamed = vec![Write::RemoveVm(web.plan.id.clone()), add, put(&other)];
    commit(&store, renamed).await.unwrap();
    assert_eq!(store.load().await.unwrap().vms, [other]);
}

#[tokio::test]
async fn colliding_and_unknown_operations_are_errors() {
    let store = Store::open_in_memory().unwrap();
    let web = vm(1, "web");
    commit(&store, vec![put(&web), Write::AddOp(op(1, &web))]).await.unwrap();
    let error = commit(&store, vec![Write::AddOp(op(1, &web))]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InUse);
    assert_eq!(error.message, format!("there is an operation `{}` already", op_id(1)));
    for write in [
        Write::Log(op_id(2), event(StepId::new("shim"), Kind::Started, 1)),
        Write::EndOp { op: op_id(2), result: Ok(None) },
    ] {
        let error = commit(&store, vec![write]).await.unwrap_err();
        assert_eq!(error.message, format!("no operation `{}` is on record", op_id(2)));
    }
}

#[tokio::test]
async fn operations_are_sorted_newest_first_and_old_ones_deleted() {
    let (_folder, path) = in_new_folder();
    let web = vm(1, "web");
    let many = u64::from(KEPT_OPERATIONS) + 50;
    {
        let store = Store::open(&path).unwrap();
        let mut writes = vec![Write::AddOp(op(0, &web))];
        for n in 1..=many {
            writes.push(Write::AddOp(op(n, &web)));
            writes.push(Write::Log(op_id(n), event(StepId::new("shim"), Kind::Started, n)));
            writes.push(Write::EndOp { op: op_id(n), result: Ok(None) });
        }
        commit(&store, writes).await.unwrap();
    }
    let store = Store::open(&path).unwrap();
    let newest = store.operations(2).await.unwrap();
    assert_eq!(
        newest.iter().map(|op| &op.id).collect::<Vec<_>>(),
        [&op_id(many), &op_id(many - 1)]
    );
    let kept = store.operations(u32::MAX).await.unwrap();
    assert_eq!(kept.len(), KEPT_OPERATIONS as usize + 1, "one is still open");
    assert_eq!(kept.last().unwrap().id, op_id(0));
    assert_eq!(store.log(&op_id(1)).await.unwrap(), [], "its log went with it");
    assert_eq!(store.log(&op_id(many)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn unreadable_rows_are_reported_and_kept() {
    let (_folder, path) = in_new_folder();
    let vms: Vec<VmRecord> = (0..5).map(|n| vm(n, &format!("vm-{n}"))).collect();
    {
        let store = Store::open(&path).unwrap();
        let mut writes: Vec<Write> = vms.iter().map(put).collect();
        writes.extend([Write::AddOp(op(3, &vms[3])), Write::AddOp(op(4, &vms[4]))]);
        writes.push(Write::Log(op_id(3), event(StepId::new("shim"), Kind::Started, 1)));
        writes.push(Write::Log(op_id(4), event(StepId::new("shim"), Kind::Started, 1)));
        commit(&store, writes).await.unwrap();
    }
    let spoil = rusqlite::Connection::open(&path).unwrap();
    spoil
        .execute_batch(
            "UPDATE vms SET record = '{\"plan\":1}' WHERE name = 'vm-0';
             UPDATE vms SET state = 'running' WHERE name = 'vm-1';
             UPDATE op_events SET kind = 'teleport' WHERE op = 1;",
        )
        .unwrap();
    drop(spoil);
    let store = Store::open(&path).unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.vms, [vms[2].clone(), vms[4].clone()]);
    assert_eq!(loaded.open_ops.len(), 1, "{:?}", loaded.open_ops);
    let ids: Vec<&str> = loaded.unreadable.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, [0, 1, 3].map(|n| vms[n].plan.id.as_str()));
    assert!(loaded.unreadable[1].why.contains("do not agree"), "{:?}", loaded.unreadable);
    assert!(loaded.unreadable[2].why.contains("teleport"), "{:?}", loaded.unreadable);
    let log = store.log(&op_id(3)).await.unwrap_err();
    assert_eq!((log.code, log.causes.len()), (ErrorCode::Corrupt, 2));

    // The names stay in use, and unreadable rows cannot be overwritten.
    let error = commit(&store, vec![put(&vm(9, "vm-0"))]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NameTaken);
    for write in [put(&vms[0]), Write::RemoveVm(vms[1].plan.id.clone())] {
        assert_eq!(commit(&store, vec![write]).await.unwrap_err().code, ErrorCode::Corrupt);
    }
    drop(store);
    assert_eq!(Store::open(&path).unwrap().load().await.unwrap().unreadable.len(), 3);
}

#[derive(Debug, Clone)]
enum Change {
    Put(u64, u64, bool),
    Remove(u64),
    Add(u64),
    Log(u64, u64),
    End(u64, bool),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..6u64, 0..6u64, any::<bool>()).prop_map(|(id, name, run)| Change::Put(id, name, run)),
        (0..6u64).prop_map(Change::Remove),
        (0..8u64).prop_map(Change::Add),
        (0..8u64, any::<u64>()).prop_map(|(op, at)| Change::Log(op, at)),
        (0..8u64, any::<bool>()).prop_map(|(op, well)| Change::End(op, well)),
    ]
}

/// A model: maps, copied before each commit and restored if it fails.
#[derive(Debug, Clone, Default)]
struct Model {
    vms: BTreeMap<u64, VmRecord>,
    ops: BTreeMap<u64, (OpRecord, Vec<StepEvent>)>,
}

impl Model {
    fn apply(&mut self, change: &Change) -> (Write, bool) {
        match change {
            Change::Put(n, name, running) => {
                let mut record = vm(*n, &format!("vm-{name}"));
                record.state = if *running { VmState::Running } else { VmState::Stopped };
                let taken =
                    |(id, vm): (&u64, &VmRecord)| id != n && vm.plan.name == record.plan.name;
                let possible = !self.vms.iter().any(taken);
                let write = put(&record);
                self.vms.insert(*n, record);
                (write, possible)
            }
            Change::Remove(n) => {
                self.vms.remove(n);
                (Write::RemoveVm(common::vm_id(*n)), true)
            }
            Change::Add(n) => {
                let record = op(*n, &vm(1, "web"));
                let possible = self.ops.insert(*n, (record.clone(), Vec::new())).is_none();
                (Write::AddOp(record), possible)
            }
            Change::Log(n, at) => {
                let line = event(StepId::new("boot"), Kind::Started, *at);
                let known = self.ops.get_mut(n);
                let possible = known.map(|(_, log)| log.push(line.clone())).is_some();
                (Write::Log(op_id(*n), line), possible)
            }
            Change::End(n, well) => {
                let error = (!well).then(|| ApiError::new(ErrorCode::Timeout, "late"));
                let state = if *well { OpState::Succeeded } else { OpState::Failed };
                let known = self.ops.get_mut(n);
                let ended = known.map(|(op, _)| (op.state, op.error) = (state, error.clone()));
                let result = error.map_or(Ok(None), Err);
                (Write::EndOp { op: op_id(*n), result }, ended.is_some())
            }
        }
    }
}

async fn compare(store: &Store, model: &Model) {
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.vms, model.vms.values().cloned().collect::<Vec<_>>());
    let mut open = loaded.open_ops;
    open.sort_by_key(|(op, _)| op.started_unix_ms);
    let running = model.ops.values().filter(|(op, _)| op.state == OpState::Running).cloned();
    assert_eq!(open, running.collect::<Vec<_>>());
    for (op, log) in model.ops.values() {
        assert_eq!(store.operation(&op.id).await.unwrap().as_ref(), Some(op));
        assert_eq!(&store.log(&op.id).await.unwrap(), log);
    }
    assert_eq!(store.operations(100).await.unwrap().len(), model.ops.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn agrees_with_the_model(
        commits in proptest::collection::vec(proptest::collection::vec(change(), 0..6), 0..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = Store::open_in_memory().unwrap();
            let mut model = Model::default();
            for (n, changes) in commits.iter().enumerate() {
                let mut next = model.clone();
                let outcomes: Vec<(Write, bool)> =
                    changes.iter().map(|change| next.apply(change)).collect();
                let possible = outcomes.iter().all(|(_, possible)| *possible);
                let writes = outcomes.into_iter().map(|(write, _)| write).collect();
                let durability = if n % 2 == 0 { Durability::Process } else { Durability::Power };
                let result = store.commit(writes, durability).await;
                assert_eq!(result.is_ok(), possible, "{changes:?}: {result:?}");
                if possible {
                    model = next;
                }
                compare(&store, &model).await;
            }
        });
    }
}

#[tokio::test]
async fn operations_on_every_subject_are_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(banger_store::FILE_NAME);
    let store = Store::open(&path).unwrap();
    let id = "0123456789abcdef";
    let subjects = [
        Subject::Image { name: "debian".into(), id: None },
        Subject::Image { name: "debian".into(), id: Some(id.parse().unwrap()) },
        Subject::Kernel { name: "it's".into(), id: None },
        Subject::Kernel { name: "k".into(), id: Some(id.parse().unwrap()) },
        Subject::Host,
    ];
    let record = |(n, subject): (usize, &Subject)| OpRecord {
        subject: subject.clone(),
        ..op(n as u64, &vm(1, "web"))
    };
    let records: Vec<OpRecord> = subjects.iter().enumerate().map(record).collect();
    let add = records.iter().cloned().map(Write::AddOp).collect();
    store.commit(add, Durability::Process).await.unwrap();
    let open: Vec<OpRecord> =
        store.load().await.unwrap().open_ops.into_iter().map(|(op, _)| op).collect();
    assert_eq!(open, records);
    let end = Write::EndOp { op: op_id(0), result: Ok(Some(id.into())) };
    store.commit(vec![end], Durability::Process).await.unwrap();
    drop(store);
    let store = Store::open(&path).unwrap();
    let pulled = store.operation(&op_id(0)).await.unwrap().unwrap();
    assert_eq!((pulled.state, pulled.made.as_deref()), (OpState::Succeeded, Some(id)));
    assert_eq!(store.load().await.unwrap().open_ops.len(), 4);
}

#[tokio::test]
async fn an_unreadable_row_is_set_aside_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(banger_store::FILE_NAME);
    let store = Store::open(&path).unwrap();
    let web = vm(1, "web");
    let add = vec![put(&web), Write::AddOp(op(1, &web))];
    store.commit(add, Durability::Process).await.unwrap();
    drop(store);
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.execute("UPDATE vms SET record = '{ not JSON'", []).unwrap();
    drop(raw);

    let store = Store::open(&path).unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.unreadable[0].name.as_str(), loaded.open_ops.len()), ("web", 0));
    let other = vm(2, "web");
    let taken = store.commit(vec![put(&other)], Durability::Process).await.unwrap_err();
    assert_eq!(taken.code, ErrorCode::NameTaken);
    let aside = Write::SetAside(loaded.unreadable[0].id.clone());
    store.commit(vec![aside, put(&other)], Durability::Power).await.unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.vms, loaded.unreadable, loaded.open_ops), (vec![other], vec![], vec![]));
    assert_eq!(store.operation(&op_id(1)).await.unwrap().unwrap().state, OpState::Failed);
    drop(store);
    let raw = rusqlite::Connection::open(&path).unwrap();
    let kept: (String, String) = raw
        .query_row("SELECT name, record FROM set_aside", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(kept, ("web".to_owned(), "{ not JSON".to_owned()));
}

fn answer(number: u64, at_unix_ms: u64) -> KeptAnswer {
    KeptAnswer {
        key: format!("key-{number}").parse().unwrap(),
        request: format!("digest-{number}"),
        answer: Accepted { operation: Some(op_id(number)), vm: None, warnings: vec!["w".into()] },
        at_unix_ms,
    }
}

#[tokio::test]
async fn answers_to_requests_with_a_key_are_kept_for_a_day() {
    let (_folder, path) = in_new_folder();
    let keep = |kept: &KeptAnswer| vec![Write::KeepAnswer(Box::new(kept.clone()))];
    let (first, second) = (answer(1, 1000), answer(2, 1000 + KEPT_MS));
    {
        let store = Store::open(&path).unwrap();
        commit(&store, keep(&first)).await.unwrap();
        commit(&store, keep(&second)).await.unwrap();
    }
    let store = Store::open(&path).unwrap();
    assert_eq!(store.kept_answer(&first.key).await.unwrap(), Some(first.clone()));
    assert_eq!(store.kept_answer(&second.key).await.unwrap(), Some(second.clone()));
    assert_eq!(store.kept_answer(&answer(3, 0).key).await.unwrap(), None);
    commit(&store, keep(&answer(3, 1001 + KEPT_MS))).await.unwrap();
    assert_eq!(store.kept_answer(&first.key).await.unwrap(), None, "older than a day");
    assert_eq!(store.kept_answer(&second.key).await.unwrap(), Some(second));
}
