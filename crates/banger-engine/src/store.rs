//! What the engine asks of its memory. Implemented by `banger-store` with SQLite.

use async_trait::async_trait;
use banger_api::operation::{OpState, Subject};
use banger_api::{ApiError, OpId, VmId};

use crate::oplog::StepEvent;
use crate::record::VmRecord;

/// An operation as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpRecord {
    /// Id.
    pub id: OpId,
    /// `create`, `start`, `stop`, …
    pub kind: String,
    /// What it works on. The record outlives the VM, image or kernel.
    pub subject: Subject,
    /// State.
    pub state: OpState,
    /// Why it failed, where it did.
    pub error: Option<ApiError>,
    /// Id of the image or kernel that it made, where it made one.
    pub made: Option<String>,
    /// Milliseconds since 1970.
    pub started_unix_ms: u64,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A new operation.
    AddOp(OpRecord),
    /// A line of an operation's log.
    Log(OpId, StepEvent),
    /// An operation has ended.
    EndOp {
        /// Which.
        op: OpId,
        /// The id of the image or kernel that it made, if any, or why it failed.
        result: Result<Option<String>, ApiError>,
    },
    /// A VM as it is now, new or changed.
    PutVm(Box<VmRecord>),
    /// A VM does not exist any more.
    RemoveVm(VmId),
    /// The row of a VM that could not be understood is set aside, by its id as stored: its name is
    /// free, and its open operations have failed.
    SetAside(String),
}

/// How sure a commit must be before it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Survives the death of the process (SQLite `synchronous=NORMAL` with a write-ahead log).
    Process,
    /// Survives a power cut (`synchronous=FULL`).
    Power,
}

/// The row of a VM that could not be understood. It is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Id, as stored.
    pub id: String,
    /// Name, as stored.
    pub name: String,
    /// Why.
    pub why: String,
}

/// Everything a new daemon needs to know.
#[derive(Debug, Default)]
pub struct Loaded {
    /// All VMs.
    pub vms: Vec<VmRecord>,
    /// Operations that had not ended, with their logs.
    pub open_ops: Vec<(OpRecord, Vec<StepEvent>)>,
    /// VMs whose row could not be understood.
    pub unreadable: Vec<Unreadable>,
}

/// The memory of the engine.
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

    /// One operation, also long after it ended.
    ///
    /// # Errors
    /// The database cannot be read.
    async fn operation(&self, id: &OpId) -> Result<Option<OpRecord>, ApiError>;

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
