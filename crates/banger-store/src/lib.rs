//! Stores VMs, operations and their logs in SQLite. The only crate with SQL.
//!
//! One thread owns the connection. Requests reach it through a channel with a sender for the
//! answer, so a client that disconnects never interrupts a commit.

mod backup;
mod error;
mod open;
mod read;
mod reserve;
mod schema;
mod sys;
mod thread;
mod write;

use std::path::Path;
use std::sync::mpsc;

use async_trait::async_trait;
use banger_api::idempotency::IdempotencyKey;
use banger_api::{ApiError, OpId};
use banger_engine::oplog::StepEvent;
use banger_engine::store::{Durability, KeptAnswer, Loaded, OpRecord, Write};
use tokio::sync::oneshot;

use crate::thread::{Memory, Request};

pub use crate::schema::{FILE_NAME, SCHEMA_VERSION};

/// Number of ended operations that are kept; older ones are deleted.
pub const KEPT_OPERATIONS: u32 = 1000;

/// The database of one state folder. Dropping it ends the thread and closes the file.
pub struct Store {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Store {
    /// Opens the database at `path`, an absolute path of any length, and creates it with mode 0600
    /// if it does not exist; its folder must exist.
    ///
    /// # Errors
    /// [`banger_api::ErrorCode::ReadOnly`] if it cannot be written, `NoSpace` if the disk is full,
    /// `Corrupt` if it is damaged or of another program, `Busy` if another program locks it, and
    /// `DaemonUnavailable` if a newer banger wrote it.
    pub fn open(path: &Path) -> Result<Self, ApiError> {
        Self::over(open::file(path)?)
    }

    /// A database in memory, for tests.
    ///
    /// # Errors
    /// SQLite cannot be initialised.
    pub fn open_in_memory() -> Result<Self, ApiError> {
        Self::over(open::in_memory()?)
    }

    fn over(memory: Memory) -> Result<Self, ApiError> {
        let (requests, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || memory.serve(&receiver))
            .map_err(|error| {
                let text = "cannot start the store's thread";
                ApiError::new(banger_api::ErrorCode::HostNotReady, text).caused_by(&error)
            })?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, ApiError>>) -> Request,
    ) -> Result<T, ApiError> {
        let ended =
            || ApiError::new(banger_api::ErrorCode::Internal, "the store's thread has ended");
        let (reply, answer) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(ended)?;
        requests.send(request(reply)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.requests = None;
        // The file must be closed when the next process opens it. A panic was printed when it
        // happened.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl banger_engine::store::Store for Store {
    async fn load(&self) -> Result<Loaded, ApiError> {
        self.ask(Request::Load).await
    }

    async fn commit(&self, writes: Vec<Write>, durability: Durability) -> Result<(), ApiError> {
        self.ask(|reply| Request::Commit(writes, durability, reply)).await
    }

    async fn operation(&self, id: &OpId) -> Result<Option<OpRecord>, ApiError> {
        self.ask(|reply| Request::Operation(id.clone(), reply)).await
    }

    async fn kept_answer(&self, key: &IdempotencyKey) -> Result<Option<KeptAnswer>, ApiError> {
        self.ask(|reply| Request::KeptAnswer(key.clone(), reply)).await
    }

    async fn operations(&self, limit: u32) -> Result<Vec<OpRecord>, ApiError> {
        self.ask(|reply| Request::Operations(limit, reply)).await
    }

    async fn log(&self, id: &OpId) -> Result<Vec<StepEvent>, ApiError> {
        self.ask(|reply| Request::Log(id.clone(), reply)).await
    }
}
