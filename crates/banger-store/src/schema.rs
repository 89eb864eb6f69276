//! The schema and its migrations.

use std::cmp::Ordering;

use rusqlite::{Connection, Transaction, TransactionBehavior};

/// Name of the database file in the state folder.
pub const FILE_NAME: &str = "banger.db";

/// Identifies the file as banger's: `bngr` (SQLite's `application_id`, offset 68 of the file).
pub const APPLICATION_ID: i32 = 0x626e_6772;

/// One entry per version, applied in order; `user_version` counts the applied ones. A released
/// entry never changes.
const MIGRATIONS: &[&str] = &[V1, V2, V3, V4, V5, V6];

/// The version that this program writes.
pub const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;

/// `record`, `error`: JSON of the engine's types. The columns beside `record` repeat values that
/// are searched for or must be unique. `number` is the order of acceptance.
const V1: &str = "
CREATE TABLE vms (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    generation INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE operations (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    vm TEXT NOT NULL,
    vm_name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'succeeded', 'failed')),
    error TEXT,
    started INTEGER NOT NULL
) STRICT;
CREATE INDEX operations_open ON operations (number) WHERE state = 'running';

CREATE TABLE op_events (
    op INTEGER NOT NULL REFERENCES operations (number) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    step TEXT NOT NULL,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (op, seq)
) STRICT, WITHOUT ROWID;
";

/// Fields that a user may change move from the plan to `spec`; the ids of the fixed steps are
/// added; a run contains the specification with which it started. A record that is not JSON stays
/// unchanged. `->` returns a value as JSON (<https://sqlite.org/json1.html>), so that numbers,
/// booleans and lists keep their types.
const V2: &str = r#"
UPDATE vms SET record = json_set(
    json_remove(record, '$.plan.vcpus', '$.plan.memory_mib', '$.plan.root_bytes',
        '$.plan.work_bytes', '$.plan.nat', '$.plan.publish'),
    '$.spec', json_object(
        'vcpus', json(record -> '$.plan.vcpus'),
        'memory_mib', json(record -> '$.plan.memory_mib'),
        'root_bytes', json(record -> '$.plan.root_bytes'),
        'work_bytes', json(record -> '$.plan.work_bytes'),
        'nat', json(record -> '$.plan.nat'),
        'publish', json(coalesce(record -> '$.plan.publish', '[]'))),
    '$.made', json('["vm_folder", "root_disk", "work_disk", "vmm_home", "identity"]'))
WHERE json_valid(record) AND json_type(record, '$.plan') = 'object';

UPDATE vms SET record = json_set(json_remove(record, '$.run.forwarder'),
    '$.run.spec', json(record -> '$.spec'),
    '$.run.steps', json('["attach_disks", "network", "forwarder", "forwards", "run_folder", "shim",
        "launch", "boot", "agent", "ready"]'),
    '$.run.found', json(iif(json_type(record, '$.run.forwarder') = 'object',
        json_object('forwarder', json(record -> '$.run.forwarder')), '{}')))
WHERE json_valid(record) AND json_type(record, '$.run') = 'object';
"#;

/// `subject` is the kind of an operation's subject: VM, image, kernel or host. `subject_id` is
/// empty if there is no id; `made` is the id of the new image or kernel.
const V3: &str = "
ALTER TABLE operations RENAME COLUMN vm TO subject_id;
ALTER TABLE operations RENAME COLUMN vm_name TO subject_name;
ALTER TABLE operations ADD COLUMN subject TEXT NOT NULL DEFAULT 'vm'
    CHECK (subject IN ('vm', 'image', 'kernel', 'host'));
ALTER TABLE operations ADD COLUMN made TEXT;
";

/// Unreadable VM rows that a user has set aside.
const V4: &str = "
CREATE TABLE set_aside (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    record TEXT NOT NULL
) STRICT;
";

/// Answers to requests with a key: digest of the request, the answer as JSON.
const V5: &str = "
CREATE TABLE kept_answers (
    key TEXT PRIMARY KEY,
    request TEXT NOT NULL,
    answer TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX kept_answers_at ON kept_answers (at);
";

/// The trace of the request that led to an operation.
const V6: &str = "
ALTER TABLE operations ADD COLUMN trace TEXT;
";

/// State of a database before any change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Empty, or banger's of this program's version.
    Usable,
    /// Written by an earlier banger: its schema version.
    Older(i64),
    /// Written by a newer banger: its schema version.
    Newer(i64),
    /// Of another program.
    Foreign,
}

/// Reads the header only.
///
/// # Errors
/// Errors of SQLite.
pub fn examine(db: &Connection) -> rusqlite::Result<Found> {
    let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let untouched = (application, version, tables) == (0, 0, 0);
    if !untouched && application != i64::from(APPLICATION_ID) {
        return Ok(Found::Foreign);
    }
    Ok(match version.cmp(&SCHEMA_VERSION) {
        Ordering::Greater => Found::Newer(version),
        Ordering::Less if !untouched => Found::Older(version),
        Ordering::Less | Ordering::Equal => Found::Usable,
    })
}

/// Applies the missing migrations in one transaction.
///
/// # Errors
/// Errors of SQLite.
pub fn migrate(db: &mut Connection) -> rusqlite::Result<()> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version >= SCHEMA_VERSION {
        return Ok(());
    }
    let transaction = Transaction::new(db, TransactionBehavior::Immediate)?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(0)) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}
