//! Reads records. A row that cannot be parsed is reported and left unchanged.

use std::collections::{BTreeMap, BTreeSet};

use banger_api::idempotency::IdempotencyKey;
use banger_api::ids::BadId;
use banger_api::names::BadName;
use banger_api::operation::{OpState, Subject, VmTag};
use banger_api::trace::TraceId;
use banger_api::{ApiError, ErrorCode, OpId};
use banger_engine::oplog::StepEvent;
use banger_engine::record::VmRecord;
use banger_engine::store::{KeptAnswer, Loaded, OpRecord, Unreadable};
use rusqlite::{OptionalExtension, Row, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::thread::Memory;

const VMS: &str = "SELECT id, name, state, generation, record FROM vms ORDER BY id";
const OP_COLUMNS: &str = "SELECT id, kind, subject, subject_id, subject_name, state, error, made, \
    started, trace FROM operations ";
const EVENTS: &str = "SELECT step, kind, detail, at FROM op_events \
    WHERE op = (SELECT number FROM operations WHERE id = ?1) ORDER BY seq";

/// The JSON string of an enum variant without fields.
pub fn word(value: &impl Serialize) -> Result<String, ApiError> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        _ => Err(ApiError::new(ErrorCode::Internal, "an enum value is not a string in JSON")),
    }
}

fn of_word<T: DeserializeOwned>(text: String) -> Result<T, String> {
    let value = serde_json::Value::String(text);
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// The value of a state in the table's constraint.
pub fn op_state_text(state: OpState) -> &'static str {
    match state {
        OpState::Running => "running",
        OpState::Succeeded => "succeeded",
        OpState::Failed => "failed",
    }
}

struct VmRow {
    id: String,
    name: String,
    state: String,
    generation: i64,
    record: String,
}

impl VmRow {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let (id, name, state) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(Self { id, name, state, generation: row.get(3)?, record: row.get(4)? })
    }

    fn parse(&self) -> Result<VmRecord, String> {
        let record: VmRecord =
            serde_json::from_str(&self.record).map_err(|error| error.to_string())?;
        let plan = &record.plan;
        let same = plan.id.as_str() == self.id
            && plan.name.as_str() == self.name
            && record.state.as_str() == self.state
            && record.generation.cast_signed() == self.generation;
        if same { Ok(record) } else { Err("its columns and its record do not agree".into()) }
    }
}

struct OpRow {
    id: String,
    kind: String,
    subject: String,
    subject_id: String,
    subject_name: String,
    state: String,
    error: Option<String>,
    made: Option<String>,
    started: i64,
    trace: Option<String>,
}

impl OpRow {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let (id, kind, subject) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (subject_id, subject_name, state) = (row.get(3)?, row.get(4)?, row.get(5)?);
        let (error, made, started, trace) = (row.get(6)?, row.get(7)?, row.get(8)?, row.get(9)?);
        Ok(Self { id, kind, subject, subject_id, subject_name, state, error, made, started, trace })
    }

    fn parse(self) -> Result<OpRecord, String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let subject = subject(&self.subject, &self.subject_id, self.subject_name)?;
        Ok(OpRecord {
            id: self.id.parse().map_err(|e: banger_api::ids::BadId| text(&e))?,
            kind: self.kind,
            subject,
            made: self.made,
            state: of_word(self.state)?,
            error: self
                .error
                .map(|error| serde_json::from_str(&error))
                .transpose()
                .map_err(|error| text(&error))?,
            started_unix_ms: self.started.cast_unsigned(),
            trace: self.trace.map(TraceId::try_from).transpose().map_err(|error| text(&error))?,
        })
    }
}

fn subject(word: &str, id: &str, name: String) -> Result<Subject, String> {
    let bad_id = |error: BadId| error.to_string();
    let some = (!id.is_empty()).then_some(id);
    Ok(match word {
        "vm" => Subject::Vm(VmTag {
            id: id.parse().map_err(bad_id)?,
            name: name.parse().map_err(|error: BadName| error.to_string())?,
        }),
        "image" => Subject::Image { name, id: some.map(str::parse).transpose().map_err(bad_id)? },
        "kernel" => Subject::Kernel { name, id: some.map(str::parse).transpose().map_err(bad_id)? },
        "host" => Subject::Host,
        other => return Err(format!("`{other}` is not a subject of operations")),
    })
}

fn event(row: &Row<'_>) -> rusqlite::Result<Result<StepEvent, String>> {
    let (step, kind) = (row.get(0)?, row.get(1)?);
    let (detail, at): (String, i64) = (row.get(2)?, row.get(3)?);
    let at_unix_ms = at.cast_unsigned();
    let parsed = of_word(step)
        .and_then(|step| of_word(kind).map(|kind| StepEvent { step, kind, detail, at_unix_ms }));
    Ok(parsed)
}

impl Memory {
    /// All records that a new daemon needs.
    pub fn load(&mut self) -> Result<Loaded, ApiError> {
        let mut loaded = Loaded::default();
        let mut bad: BTreeMap<String, String> = BTreeMap::new();
        self.load_open_ops(&mut loaded, &mut bad)?;
        for row in self.rows(VMS, params![], VmRow::of)? {
            let reason = bad.remove(&row.id);
            match (reason, row.parse()) {
                (None, Ok(record)) => loaded.vms.push(record),
                (Some(why), _) | (None, Err(why)) => {
                    let VmRow { id, name, .. } = row;
                    loaded.unreadable.push(Unreadable { id, name, why });
                }
            }
        }
        // An open operation of an unreadable VM stays open: its log may explain the VM.
        let left: BTreeSet<String> = loaded.unreadable.iter().map(|row| row.id.clone()).collect();
        loaded
            .open_ops
            .retain(|(op, _)| op.subject.vm().is_none_or(|vm| !left.contains(vm.id.as_str())));
        self.untouchable = left;
        Ok(loaded)
    }

    /// A VM with an unreadable open operation is unreadable too.
    fn load_open_ops(
        &self,
        loaded: &mut Loaded,
        bad: &mut BTreeMap<String, String>,
    ) -> Result<(), ApiError> {
        let open = format!("{OP_COLUMNS} WHERE state = 'running' ORDER BY number");
        for row in self.rows(&open, params![], OpRow::of)? {
            let (id, vm) = (row.id.clone(), row.subject_id.clone());
            let log: Result<Vec<StepEvent>, String> =
                self.rows(EVENTS, [&id], event)?.into_iter().collect();
            match row.parse().and_then(|op| log.map(|log| (op, log))) {
                Ok(op) => loaded.open_ops.push(op),
                Err(why) => drop(bad.insert(vm, format!("its open operation `{id}`: {why}"))),
            }
        }
        Ok(())
    }

    /// One operation.
    pub fn operation(&self, id: &OpId) -> Result<Option<OpRecord>, ApiError> {
        let select = format!("{OP_COLUMNS} WHERE id = ?1");
        let row = self
            .db
            .prepare_cached(&select)
            .and_then(|mut select| select.query_row([id.as_str()], OpRow::of).optional())
            .map_err(|error| self.place.explain(&error))?;
        let parsed = row.map(OpRow::parse).transpose();
        parsed.map_err(|why| self.place.unreadable(&format!("operation `{id}`"), &why))
    }

    /// The answer to the request with this key.
    pub fn kept_answer(&self, key: &IdempotencyKey) -> Result<Option<KeptAnswer>, ApiError> {
        let select = "SELECT request, answer, at FROM kept_answers WHERE key = ?1";
        let columns = |row: &Row<'_>| {
            let (request, answer): (String, String) = (row.get(0)?, row.get(1)?);
            Ok((request, answer, row.get::<_, i64>(2)?))
        };
        let rows = self.rows(select, [key.as_str()], columns)?;
        let Some((request, answer, at)) = rows.into_iter().next() else { return Ok(None) };
        let answer = serde_json::from_str(&answer).map_err(|error| {
            let what = format!("the answer to the request with the key `{key}`");
            self.place.unreadable(&what, &error.to_string())
        })?;
        let at_unix_ms = at.cast_unsigned();
        Ok(Some(KeptAnswer { key: key.clone(), request, answer, at_unix_ms }))
    }

    /// The newest readable operations.
    pub fn operations(&self, limit: u32) -> Result<Vec<OpRecord>, ApiError> {
        let select = format!("{OP_COLUMNS} ORDER BY number DESC LIMIT ?1");
        let rows = self.rows(&select, [limit], OpRow::of)?;
        // An unreadable operation is reported when it is requested by its id.
        Ok(rows.into_iter().filter_map(|row| row.parse().ok()).collect())
    }

    /// The log of an operation.
    pub fn log(&self, id: &OpId) -> Result<Vec<StepEvent>, ApiError> {
        let rows = self.rows(EVENTS, [id.as_str()], event)?;
        let log: Result<Vec<StepEvent>, String> = rows.into_iter().collect();
        let what = format!("the log of operation `{id}`");
        log.map_err(|why| self.place.unreadable(&what, &why))
    }

    fn rows<T>(
        &self,
        select: &str,
        values: impl rusqlite::Params,
        of: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, ApiError> {
        let read = || -> rusqlite::Result<Vec<T>> {
            self.db.prepare_cached(select)?.query_map(values, of)?.collect()
        };
        read().map_err(|error| self.place.explain(&error))
    }
}
