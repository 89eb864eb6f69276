//! The thread that owns the connection, and its requests.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::mpsc;

use banger_api::idempotency::IdempotencyKey;
use banger_api::{ApiError, OpId};
use banger_engine::oplog::StepEvent;
use banger_engine::store::{Durability, KeptAnswer, Loaded, OpRecord, Write};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::KEPT_OPERATIONS;
use crate::error::Place;
use crate::reserve::Reserve;

/// Maximum number of commits in one transaction.
const MOST_COMMITS: usize = 256;

type Reply<T> = oneshot::Sender<Result<T, ApiError>>;

/// A request to the thread.
pub enum Request {
    /// All records that a new daemon needs.
    Load(Reply<Loaded>),
    /// Make all changes, or none.
    Commit(Vec<Write>, Durability, Reply<()>),
    /// One operation.
    Operation(OpId, Reply<Option<OpRecord>>),
    /// The answer to a request with a key.
    KeptAnswer(IdempotencyKey, Reply<Option<KeptAnswer>>),
    /// The newest operations.
    Operations(u32, Reply<Vec<OpRecord>>),
    /// The log of an operation.
    Log(OpId, Reply<Vec<StepEvent>>),
}

/// Current sync mode of SQLite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// No sync at a commit, only at a checkpoint.
    Normal,
    /// A sync at every commit.
    Full,
}

/// The connection and its state.
pub struct Memory {
    pub(crate) db: Connection,
    pub(crate) place: Place,
    pub(crate) synchronous: Synchronous,
    /// Ids of unreadable VM rows, which must not be overwritten.
    pub(crate) untouchable: BTreeSet<String>,
    /// Number of operations added since old ones were last deleted.
    pub(crate) added: u32,
    /// Disk space reserved beside the file; `None` for a database in memory.
    pub(crate) reserve: Option<Reserve>,
    /// Keeps the descriptor open that `db`'s path may refer to.
    _folder: Option<OwnedFd>,
}

impl Memory {
    /// For a connection with the current schema and a sync at every commit.
    pub fn new(db: Connection, place: Place, file: Option<(OwnedFd, Reserve)>) -> Self {
        let synchronous = Synchronous::Full;
        let untouchable = BTreeSet::new();
        // Causes old operations of an earlier daemon to be deleted soon.
        let added = KEPT_OPERATIONS;
        let (_folder, reserve) = file.unzip();
        Self { db, place, synchronous, untouchable, added, reserve, _folder }
    }

    /// Serves requests until all senders are dropped. Commits queued together share a transaction.
    pub fn serve(mut self, requests: &mpsc::Receiver<Request>) {
        self.forget_old();
        let mut next = requests.recv().ok();
        while let Some(request) = next.take() {
            // A client that no longer waits for the answer does not cancel its request.
            match request {
                Request::Load(reply) => drop(reply.send(self.load())),
                Request::Commit(writes, durability, reply) => {
                    let first = Commit { writes, durability, reply };
                    let (commits, other) = waiting(first, requests);
                    self.commit_all(commits);
                    self.forget_old();
                    next = other;
                }
                Request::Operation(id, reply) => drop(reply.send(self.operation(&id))),
                Request::KeptAnswer(key, reply) => drop(reply.send(self.kept_answer(&key))),
                Request::Operations(limit, reply) => drop(reply.send(self.operations(limit))),
                Request::Log(id, reply) => drop(reply.send(self.log(&id))),
            }
            next = next.or_else(|| requests.recv().ok());
        }
    }

    /// Makes all commits in one transaction if possible, with the strictest durability among them.
    /// If the transaction fails, makes each commit in a transaction of its own, so that the failure
    /// of one, for example a duplicate name, does not affect the others.
    fn commit_all(&mut self, commits: Vec<Commit>) {
        if commits.len() > 1 {
            let power = commits.iter().any(|commit| commit.durability == Durability::Power);
            let durability = if power { Durability::Power } else { Durability::Process };
            let writes = commits.iter().flat_map(|commit| &commit.writes);
            if self.try_commit(writes, durability).is_ok() {
                self.refill();
                for commit in commits {
                    let _ = commit.reply.send(Ok(()));
                }
                return;
            }
        }
        for Commit { writes, durability, reply } in commits {
            let _ = reply.send(self.commit(&writes, durability));
        }
    }
}

/// A queued commit.
struct Commit {
    writes: Vec<Write>,
    durability: Durability,
    reply: Reply<()>,
}

/// `first` and the queued commits after it, up to the first request of another kind.
fn waiting(first: Commit, requests: &mpsc::Receiver<Request>) -> (Vec<Commit>, Option<Request>) {
    let mut commits = vec![first];
    while commits.len() < MOST_COMMITS {
        match requests.try_recv() {
            Ok(Request::Commit(writes, durability, reply)) => {
                commits.push(Commit { writes, durability, reply });
            }
            Ok(other) => return (commits, Some(other)),
            Err(_) => break,
        }
    }
    (commits, None)
}

#[cfg(test)]
mod tests {
    use banger_api::ErrorCode;

    use super::*;
    use crate::open;
    use crate::write::common::{op, put, vm};

    /// Queues these commits before the thread starts, so that all are in the queue at once.
    fn together(memory: Memory, all: Vec<(Vec<Write>, Durability)>) -> Vec<Result<(), ErrorCode>> {
        let (requests, receiver) = mpsc::channel();
        let ask = |(writes, durability)| {
            let (reply, answer) = oneshot::channel();
            requests.send(Request::Commit(writes, durability, reply)).unwrap();
            answer
        };
        let answers: Vec<_> = all.into_iter().map(ask).collect();
        let (reply, loaded) = oneshot::channel();
        requests.send(Request::Load(reply)).unwrap();
        drop(requests);
        memory.serve(&receiver);
        assert!(loaded.blocking_recv().unwrap().is_ok(), "the request behind them is answered");
        let code = |error: ApiError| error.code;
        answers.into_iter().map(|answer| answer.blocking_recv().unwrap().map_err(code)).collect()
    }

    #[test]
    fn queued_commits_share_a_transaction_and_each_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("banger.db");
        let (web, db) = (vm(1, "web"), vm(2, "db"));
        let all = vec![
            (vec![put(&web)], Durability::Process),
            (vec![Write::AddOp(op(1, &web)), put(&db)], Durability::Power),
            (vec![], Durability::Process),
        ];
        assert_eq!(together(open::file(&path).unwrap(), all), [Ok(()); 3]);
        let loaded = open::file(&path).unwrap().load().unwrap();
        assert_eq!((loaded.vms.len(), loaded.open_ops.len()), (2, 1));
    }

    #[test]
    fn a_failed_commit_does_not_affect_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("banger.db");
        let (web, taken, db) = (vm(1, "web"), vm(2, "web"), vm(3, "db"));
        let all = vec![
            (vec![put(&web)], Durability::Process),
            (vec![Write::AddOp(op(1, &taken)), put(&taken)], Durability::Process),
            (vec![put(&db)], Durability::Process),
        ];
        let answers = together(open::file(&path).unwrap(), all);
        assert_eq!(answers, [Ok(()), Err(ErrorCode::NameTaken), Ok(())]);
        let loaded = open::file(&path).unwrap().load().unwrap();
        assert_eq!(loaded.vms, [web, db]);
        assert!(loaded.open_ops.is_empty(), "all of the failed one is undone");
    }

    #[test]
    fn a_group_is_bounded() {
        let (requests, receiver) = mpsc::channel();
        for _ in 0..MOST_COMMITS * 2 {
            let (reply, _) = oneshot::channel();
            requests.send(Request::Commit(Vec::new(), Durability::Process, reply)).unwrap();
        }
        let first = Commit {
            writes: Vec::new(),
            durability: Durability::Process,
            reply: oneshot::channel().0,
        };
        assert_eq!(waiting(first, &receiver).0.len(), MOST_COMMITS);
    }
}
