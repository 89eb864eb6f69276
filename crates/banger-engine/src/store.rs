//! The interface of the store. Implemented by `banger-store` with SQLite.

use async_trait::async_trait;
use banger_api::idempotency::IdempotencyKey;
use banger_api::operation::{Accepted, OpState, Subject};
use banger_api::trace::TraceId;
use banger_api::{ApiError, OpId, VmId};

use crate::oplog::StepEvent;
use crate::record::VmRecord;

/// A stored operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpRecord {
    /// Id.
    pub id: OpId,
    /// `create`, `start`, `stop`, …
    pub kind: String,
    /// Its subject. The record outlives the VM, image or kernel.
    pub subject: Subject,
    /// State.
    pub state: OpState,
    /// The error, if it failed.
    pub error: Option<ApiError>,
    /// Id of the new image or kernel, if it made one.
    pub made: Option<String>,
    /// Milliseconds since 1970.
    pub started_unix_ms: u64,
    /// The trace of the request that led to it.
    pub trace: Option<TraceId>,
}

/// The answer to a request with a key, kept for its repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The key.
    pub key: IdempotencyKey,
    /// Digest of the request.
    pub request: String,
    /// The answer.
    pub answer: Accepted,
    /// Milliseconds since 1970.
    pub at_unix_ms: u64,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A new operation.
    AddOp(OpRecord),
    /// The answer to a request with a key. Old ones are deleted.
    KeepAnswer(Box<KeptAnswer>),
    /// A line of an operation's log.
    Log(OpId, StepEvent),
    /// An operation has ended.
    EndOp {
        /// The operation.
        op: OpId,
        /// The id of the new image or kernel, if any, or the error.
        result: Result<Option<String>, ApiError>,
    },
    /// A new or changed VM.
    PutVm(Box<VmRecord>),
    /// A VM was removed.
    RemoveVm(VmId),
    /// Sets the unreadable row of a VM aside, by its stored id: its name becomes free, and its open
    /// operations fail.
    SetAside(String),
}

/// Durability of a commit when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Survives the death of the process (SQLite `synchronous=NORMAL` with a write-ahead log).
    Process,
    /// Survives a power cut (`synchronous=FULL`).
    Power,
}

/// The row of a VM that cannot be parsed; the row stays unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Id, as stored.
    pub id: String,
    /// Name, as stored.
    pub name: String,
    /// Why.
    pub why: String,
}

/// All records that a new daemon needs.
#[derive(Debug, Default)]
pub struct Loaded {
    /// All VMs.
    pub vms: Vec<VmRecord>,
    /// Operations that had not ended, with their logs.
    pub open_ops: Vec<(OpRecord, Vec<StepEvent>)>,
    /// VMs whose row cannot be parsed.
    pub unreadable: Vec<Unreadable>,
}

/// The store of the engine.
#[async_trait]
pub trait Store: Send + Sync {
    /// Reads everything.
    ///
    /// # Errors
    /// The database cannot be read.
    async fn load(&self) -> Result<Loaded, ApiError>;

    /// Makes all changes, or none.
    ///
    /// # Errors
    /// A name that is taken ([`banger_api::ErrorCode::NameTaken`]), or the database cannot be
    /// written (`ReadOnly`, `NoSpace`, `Internal`).
    async fn commit(&self, writes: Vec<Write>, durability: Durability) -> Result<(), ApiError>;

    /// One operation, also an ended one.
    ///
    /// # Errors
    /// The database cannot be read.
    async fn operation(&self, id: &OpId) -> Result<Option<OpRecord>, ApiError>;

    /// The answer to the request with this key.
    ///
    /// # Errors
    /// The database cannot be read.
    async fn kept_answer(&self, key: &IdempotencyKey) -> Result<Option<KeptAnswer>, ApiError>;

    /// The newest `limit` operations, newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    async fn operations(&self, limit: u32) -> Result<Vec<OpRecord>, ApiError>;

    /// The log of one operation, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    async fn log(&self, id: &OpId) -> Result<Vec<StepEvent>, ApiError>;
}
