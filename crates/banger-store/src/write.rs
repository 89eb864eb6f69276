//! Writes records: a commit is atomic.

use banger_api::idempotency::KEPT_MS;
use banger_api::operation::{OpState, Subject};
use banger_api::trace::TraceId;
use banger_api::vm::VmAction;
use banger_api::{ApiError, ErrorCode, Hint, ImageId, KernelId, OpId, VmId};
use banger_engine::oplog::StepEvent;
use banger_engine::record::VmRecord;
use banger_engine::store::{Durability, KeptAnswer, OpRecord, Write};
use rusqlite::{Transaction, TransactionBehavior, params};

use crate::KEPT_OPERATIONS;
use crate::error::{Place, is_duplicate};
use crate::read::{op_state_text, word};
use crate::reserve::Reserve;
use crate::thread::{Memory, Synchronous};

/// Maximum number of kept answers before another one is added.
const MAX_ANSWERS: i64 = 10_000;

const PUT_VM: &str = "INSERT INTO vms (id, name, state, generation, record) \
    VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (id) DO UPDATE SET name = excluded.name, \
    state = excluded.state, generation = excluded.generation, record = excluded.record";
const ADD_OP: &str = "INSERT INTO operations \
    (id, kind, subject, subject_id, subject_name, state, error, made, started, trace) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
const END_OP: &str = "UPDATE operations SET state = ?2, error = ?3, made = ?4 WHERE id = ?1";
const LOG: &str = "INSERT INTO op_events (op, seq, step, kind, detail, at) \
    SELECT number, \
    (SELECT coalesce(max(seq), 0) + 1 FROM op_events WHERE op = number), ?2, ?3, ?4, ?5 \
    FROM operations WHERE id = ?1";
const SET_ASIDE: [&str; 3] = [
    "INSERT INTO set_aside (id, name, record) SELECT id, name, record FROM vms WHERE id = ?1",
    "DELETE FROM vms WHERE id = ?1",
    "UPDATE operations SET state = 'failed' \
     WHERE state = 'running' AND subject = 'vm' AND subject_id = ?1",
];
const KEEP_ANSWER: &str = "INSERT INTO kept_answers (key, request, answer, at) \
    VALUES (?1, ?2, ?3, ?4) ON CONFLICT (key) DO UPDATE SET request = excluded.request, \
    answer = excluded.answer, at = excluded.at";
const FORGET_ANSWERS: [&str; 2] = [
    "DELETE FROM kept_answers WHERE at < ?1",
    "DELETE FROM kept_answers WHERE at <= \
     (SELECT at FROM kept_answers ORDER BY at DESC LIMIT 1 OFFSET ?1)",
];
const FORGET_OLD: &str = "DELETE FROM operations WHERE state <> 'running' AND number <= \
    (SELECT number FROM operations ORDER BY number DESC LIMIT 1 OFFSET ?1)";

impl Memory {
    /// Makes all changes, or none. On a full disk, releases and uses the reserve.
    pub fn commit(&mut self, writes: &[Write], durability: Durability) -> Result<(), ApiError> {
        let full = |error: &ApiError| error.code == ErrorCode::NoSpace;
        let done = match self.try_commit(writes, durability) {
            Err(error) if full(&error) && self.reserve.as_mut().is_some_and(Reserve::release) => {
                self.try_commit(writes, durability)
            }
            other => other,
        };
        if done.is_ok() {
            self.refill();
        }
        done
    }

    /// Sets the reserve aside again where it was used.
    pub fn refill(&mut self) {
        if let Some(reserve) = &mut self.reserve {
            reserve.fill();
        }
    }

    /// Makes all changes in one transaction, or none.
    pub fn try_commit<'a>(
        &mut self,
        writes: impl IntoIterator<Item = &'a Write>,
        durability: Durability,
    ) -> Result<(), ApiError> {
        let mut writes = writes.into_iter().peekable();
        if writes.peek().is_none() {
            return Ok(());
        }
        let wanted = match durability {
            Durability::Process => Synchronous::Normal,
            Durability::Power => Synchronous::Full,
        };
        self.sync_at(wanted).map_err(|error| self.place.explain(&error))?;
        let place = self.place.clone();
        let failed = |error: rusqlite::Error| place.explain(&error);
        // Dropping the transaction on an error rolls it back.
        let behavior = TransactionBehavior::Immediate;
        let transaction = Transaction::new(&mut self.db, behavior).map_err(failed)?;
        let mut added = 0;
        for write in writes {
            if let Some(id) = vm_of(write)
                && self.untouchable.contains(id.as_str())
            {
                let why = "it could not be read when the daemon started";
                return Err(place.unreadable(&format!("the row of VM `{id}`"), why));
            }
            added += u32::from(matches!(write, Write::AddOp(_)));
            one(&transaction, &place, write)?;
        }
        transaction.commit().map_err(failed)?;
        self.added = self.added.saturating_add(added);
        Ok(())
    }

    /// Sets the sync mode. Outside of a transaction only: SQLite ignores it within one.
    fn sync_at(&mut self, wanted: Synchronous) -> rusqlite::Result<()> {
        if self.synchronous == wanted {
            return Ok(());
        }
        let text = match wanted {
            Synchronous::Normal => "NORMAL",
            Synchronous::Full => "FULL",
        };
        self.db.pragma_update(None, "synchronous", text)?;
        self.synchronous = wanted;
        Ok(())
    }

    /// Deletes the oldest ended operations, periodically.
    pub fn forget_old(&mut self) {
        if self.added < KEPT_OPERATIONS {
            return;
        }
        self.added = 0;
        // Only saves space: a failure, for example on a full disk, is retried later, and a real
        // defect of the file shows at the next commit.
        let forgotten = self.sync_at(Synchronous::Normal);
        let _ = forgotten.and_then(|()| self.db.execute(FORGET_OLD, [KEPT_OPERATIONS]));
    }
}

/// The VM whose row is written.
fn vm_of(write: &Write) -> Option<&VmId> {
    match write {
        Write::PutVm(vm) => Some(&vm.plan.id),
        Write::RemoveVm(id) => Some(id),
        Write::AddOp(_)
        | Write::KeepAnswer(_)
        | Write::Log(..)
        | Write::EndOp { .. }
        | Write::SetAside(_) => None,
    }
}

fn one(transaction: &Transaction<'_>, place: &Place, write: &Write) -> Result<(), ApiError> {
    let failed = |error: rusqlite::Error| place.explain(&error);
    match write {
        Write::PutVm(vm) => put_vm(transaction, place, vm),
        Write::RemoveVm(id) => {
            let mut delete =
                transaction.prepare_cached("DELETE FROM vms WHERE id = ?1").map_err(failed)?;
            delete.execute([id.as_str()]).map(drop).map_err(failed)
        }
        Write::SetAside(id) => {
            for statement in SET_ASIDE {
                transaction.execute(statement, [id]).map_err(failed)?;
            }
            Ok(())
        }
        Write::AddOp(op) => add_op(transaction, place, op),
        Write::KeepAnswer(kept) => keep_answer(transaction, place, kept),
        Write::EndOp { op, result } => {
            let (state, error, made) = match result {
                Ok(made) => (OpState::Succeeded, None, made.as_deref()),
                Err(error) => (OpState::Failed, Some(json(error)?), None),
            };
            let mut update = transaction.prepare_cached(END_OP).map_err(failed)?;
            let values = params![op.as_str(), op_state_text(state), error, made];
            known(op, update.execute(values).map_err(failed)?)
        }
        Write::Log(op, event) => {
            let StepEvent { step, kind, detail, at_unix_ms } = event;
            let (step, kind) = (step.as_str(), word(kind)?);
            let values = params![op.as_str(), step, kind, detail, at_unix_ms.cast_signed()];
            let mut insert = transaction.prepare_cached(LOG).map_err(failed)?;
            known(op, insert.execute(values).map_err(failed)?)
        }
    }
}

fn put_vm(transaction: &Transaction<'_>, place: &Place, vm: &VmRecord) -> Result<(), ApiError> {
    let (id, name) = (vm.plan.id.as_str(), vm.plan.name.as_str());
    let generation = vm.generation.cast_signed();
    let mut put = transaction.prepare_cached(PUT_VM).map_err(|error| place.explain(&error))?;
    put.execute(params![id, name, vm.state.as_str(), generation, json(vm)?]).map(drop).map_err(
        |error| {
            // The statement resolves a conflict of the id, so this is one of the name.
            if is_duplicate(&error) {
                let text = format!("there is a VM `{name}` already");
                return ApiError::new(ErrorCode::NameTaken, text)
                    .with_hint(Hint::ChooseAnotherName)
                    .with_hint(Hint::ask(name, VmAction::Delete { force: false }));
            }
            place.explain(&error)
        },
    )
}

fn add_op(transaction: &Transaction<'_>, place: &Place, op: &OpRecord) -> Result<(), ApiError> {
    let OpRecord { id, kind, subject, state, error, made, started_unix_ms, trace } = op;
    let (subject, subject_id, name) = match subject {
        Subject::Vm(vm) => ("vm", vm.id.as_str(), vm.name.as_str()),
        Subject::Image { name, id } => ("image", id.as_ref().map_or("", ImageId::as_str), &**name),
        Subject::Kernel { name, id } => {
            ("kernel", id.as_ref().map_or("", KernelId::as_str), &**name)
        }
        Subject::Host => ("host", "", ""),
    };
    let error = error.as_ref().map(json).transpose()?;
    let state = op_state_text(*state);
    let started = started_unix_ms.cast_signed();
    let mut add = transaction.prepare_cached(ADD_OP).map_err(|error| place.explain(&error))?;
    let id_text = id.as_str();
    let trace = trace.as_ref().map(TraceId::as_str);
    let values =
        params![id_text, kind, subject, subject_id, name, state, error, made, started, trace];
    add.execute(values).map(drop).map_err(|error| {
        if is_duplicate(&error) {
            let text = format!("there is an operation `{id}` already");
            return ApiError::new(ErrorCode::InUse, text).with_hint(Hint::Retry);
        }
        place.explain(&error)
    })
}

/// Keeps an answer, and deletes those that are too old or too many.
fn keep_answer(
    transaction: &Transaction<'_>,
    place: &Place,
    kept: &KeptAnswer,
) -> Result<(), ApiError> {
    let failed = |error: rusqlite::Error| place.explain(&error);
    let KeptAnswer { key, request, answer, at_unix_ms } = kept;
    let oldest = at_unix_ms.saturating_sub(KEPT_MS).cast_signed();
    for (forget, value) in FORGET_ANSWERS.into_iter().zip([oldest, MAX_ANSWERS]) {
        let mut forget = transaction.prepare_cached(forget).map_err(failed)?;
        forget.execute([value]).map_err(failed)?;
    }
    let mut keep = transaction.prepare_cached(KEEP_ANSWER).map_err(failed)?;
    let values = params![key.as_str(), request, json(answer)?, at_unix_ms.cast_signed()];
    keep.execute(values).map(drop).map_err(failed)
}

fn known(op: &OpId, rows: usize) -> Result<(), ApiError> {
    if rows == 1 {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::Internal, format!("no operation `{op}` is on record")))
}

fn json(value: &impl serde::Serialize) -> Result<String, ApiError> {
    serde_json::to_string(value).map_err(|error| {
        ApiError::new(ErrorCode::Internal, "a record cannot be written as JSON").caused_by(&error)
    })
}

#[cfg(test)]
#[path = "../tests/common/mod.rs"]
pub(crate) mod common;

#[cfg(test)]
mod tests {
    use super::common::{op, put, vm};
    use super::*;
    use crate::open;

    fn commit(memory: &mut Memory, writes: &[Write]) -> Result<(), ErrorCode> {
        memory.commit(writes, Durability::Process).map_err(|error| error.code)
    }

    #[test]
    fn a_full_disk_fails_the_commit_only() {
        let mut memory = open::in_memory().unwrap();
        let mut web = vm(1, "web");
        commit(&mut memory, &[put(&web)]).unwrap();
        let pages: i64 =
            memory.db.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        memory.db.pragma_update(None, "max_page_count", pages).unwrap();
        web.problems = vec!["x".repeat(1 << 20)];
        let writes = [Write::AddOp(op(1, &web)), put(&web)];
        assert_eq!(commit(&mut memory, &writes), Err(ErrorCode::NoSpace));
        web.problems.clear();
        assert_eq!(memory.load().unwrap().vms, [web.clone()]);
        assert!(memory.operations(9).unwrap().is_empty());
        commit(&mut memory, &[put(&web)]).unwrap();
    }

    #[test]
    fn a_read_only_disk_is_an_error() {
        let mut memory = open::in_memory().unwrap();
        memory.db.pragma_update(None, "query_only", true).unwrap();
        assert_eq!(commit(&mut memory, &[put(&vm(1, "web"))]), Err(ErrorCode::ReadOnly));
        memory.db.pragma_update(None, "query_only", false).unwrap();
        commit(&mut memory, &[put(&vm(1, "web"))]).unwrap();
    }

    #[test]
    fn commits_are_synced_as_requested() {
        let folder = tempfile::tempdir().unwrap();
        let mut memory = open::file(&folder.path().join("banger.db")).unwrap();
        let mut synchronous = |durability| {
            memory.commit(&[put(&vm(1, "web"))], durability).unwrap();
            memory.db.pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0)).unwrap()
        };
        let (normal, full) = (1, 2);
        assert_eq!(synchronous(Durability::Process), normal);
        assert_eq!(synchronous(Durability::Power), full);
        assert_eq!(synchronous(Durability::Power), full);
        assert_eq!(synchronous(Durability::Process), normal);
    }
}
