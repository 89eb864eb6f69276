//! The thread that owns the connection, and what may be asked of it.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::mpsc;

use banger_api::{ApiError, OpId};
use banger_engine::oplog::StepEvent;
use banger_engine::store::{Durability, Loaded, OpRecord, Write};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::KEPT_OPERATIONS;
use crate::error::Place;
use crate::reserve::Reserve;

type Reply<T> = oneshot::Sender<Result<T, ApiError>>;

/// Something asked of the thread.
pub enum Request {
    /// Everything a new daemon needs.
    Load(Reply<Loaded>),
    /// All changes or none.
    Commit(Vec<Write>, Durability, Reply<()>),
    /// One operation.
    Operation(OpId, Reply<Option<OpRecord>>),
    /// The newest ones.
    Operations(u32, Reply<Vec<OpRecord>>),
    /// The log of one.
    Log(OpId, Reply<Vec<StepEvent>>),
}

/// How SQLite syncs at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// Never at a commit, only when the log is copied back.
    Normal,
    /// At every commit.
    Full,
}

/// The connection and what is known about it.
pub struct Memory {
    pub(crate) db: Connection,
    pub(crate) place: Place,
    pub(crate) synchronous: Synchronous,
    /// Ids of VM rows that could not be understood: they must not be written over.
    pub(crate) untouchable: BTreeSet<String>,
    /// Operations added since old ones were last forgotten.
    pub(crate) added: u32,
    /// Space set aside beside the file; none for a database in memory.
    pub(crate) reserve: Option<Reserve>,
    /// Keeps the descriptor open that the path of `db` may go through.
    _folder: Option<OwnedFd>,
}

impl Memory {
    /// Over a connection whose tables are up to date and that syncs at every commit.
    pub fn new(db: Connection, place: Place, file: Option<(OwnedFd, Reserve)>) -> Self {
        let synchronous = Synchronous::Full;
        let untouchable = BTreeSet::new();
        // As if there were many: whatever an earlier daemon left is looked at.
        let added = KEPT_OPERATIONS;
        let (_folder, reserve) = file.unzip();
        Self { db, place, synchronous, untouchable, added, reserve, _folder }
    }

    /// Serves until nobody can ask any more.
    pub fn serve(mut self, requests: &mpsc::Receiver<Request>) {
        self.forget_old();
        while let Ok(request) = requests.recv() {
            // Whoever does not wait for the answer any more does not take back the request.
            match request {
                Request::Load(reply) => drop(reply.send(self.load())),
                Request::Commit(writes, durability, reply) => {
                    drop(reply.send(self.commit(&writes, durability)));
                    self.forget_old();
                }
                Request::Operation(id, reply) => drop(reply.send(self.operation(&id))),
                Request::Operations(limit, reply) => drop(reply.send(self.operations(limit))),
                Request::Log(id, reply) => drop(reply.send(self.log(&id))),
            }
        }
    }
}
