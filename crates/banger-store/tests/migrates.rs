//! A database of an earlier version is read by this one: records as they were written then.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;

use banger_api::operation::{OpState, Subject, VmTag};
use banger_api::vm::VmState;
use banger_api::{ApiError, ErrorCode, OpId};
use banger_engine::oplog::StepId;
use banger_engine::plan::{ProcRef, VmSpec};
use banger_engine::record::VmRecord;
use banger_engine::store::Store as _;
use banger_store::{FILE_NAME, SCHEMA_VERSION, Store};

const TABLES: &str = "
CREATE TABLE vms (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, state TEXT NOT NULL,
    generation INTEGER NOT NULL, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE operations (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
    vm TEXT NOT NULL, vm_name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'succeeded', 'failed')),
    error TEXT, started INTEGER NOT NULL) STRICT;
CREATE INDEX operations_open ON operations (number) WHERE state = 'running';
CREATE TABLE op_events (op INTEGER NOT NULL REFERENCES operations (number) ON DELETE CASCADE,
    seq INTEGER NOT NULL, step TEXT NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL,
    at INTEGER NOT NULL, PRIMARY KEY (op, seq)) STRICT, WITHOUT ROWID;
PRAGMA application_id = 1651402610;
PRAGMA user_version = 1;
";

const RUNNING: &str = r#"{"plan":{"id":"000000000001","name":"web","boot":{"image":
"0123456789abcdef","image_name":"debian","image_bytes":1073741824,"kernel":"fedcba9876543210"},
"vcpus":2,"memory_mib":768,"root_bytes":8589934592,"work_bytes":4294967296,"nat":false,"publish":[
{"listen":"127.0.0.1","host_port":8080,"guest_port":80}],"drivers":{"vmm":{"name":"firecracker",
"why":"a"},"storage":{"name":"overlay","why":"b"},"network":{"name":"bridge","why":"c"}},
"lifetime":"keep","machine_id":"00000000000000000000000000000000","created_unix_ms":1767225600000},
"state":"running","because":null,"existence":"whole","generation":18446744073709551615,"run":{
"operation":"op-000007","host_boot_id":"h","lease":{"address":"172.16.0.2","prefix":24,"gateway":
"172.16.0.1","dns":["172.16.0.1"]},"forwarder":{"pid":10,"start_time":20},"shim":{"pid":11,
"start_time":21},"vmm_pid":12,"boot_id":"g"},"start":null,"problems":[],"reboots":[1,2],
"inspect":"no"}"#;

/// Without published ports, as the first versions wrote it, and without a run.
const STOPPED: &str = r#"{"plan":{"id":"000000000002","name":"db","boot":{"image":
"0123456789abcdef","image_name":"it's","image_bytes":1,"kernel":"fedcba9876543210"},"vcpus":1,
"memory_mib":512,"root_bytes":1,"work_bytes":2,"nat":true,"drivers":{"vmm":{"name":"qemu","why":
""},"storage":{"name":"copy","why":""},"network":{"name":"user","why":""}},"lifetime":"keep",
"machine_id":"0","created_unix_ms":0},"state":"stopped","because":{"reason":"never_started"},
"existence":"whole","generation":3,"run":null,"start":null,"problems":["a","b"],"reboots":[],
"inspect":"yes"}"#;

fn ids(words: &[&'static str]) -> Vec<StepId> {
    words.iter().map(|word| StepId::new(word)).collect()
}

#[tokio::test]
async fn records_of_version_1_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(TABLES).unwrap();
    let rows = [
        ("000000000001", "web", "running", -1, RUNNING),
        ("000000000002", "db", "stopped", 3, STOPPED),
        ("000000000003", "bad", "stopped", 0, "{ not JSON"),
        ("000000000004", "odd", "stopped", 0, "[1]"),
    ];
    for row in rows {
        old.execute("INSERT INTO vms VALUES (?1, ?2, ?3, ?4, ?5)", row).unwrap();
    }
    drop(old);
    let store = Store::open(&path).unwrap();
    let loaded = store.load().await.unwrap();
    let unreadable: Vec<&str> = loaded.unreadable.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(unreadable, ["000000000003", "000000000004"], "{:?}", loaded.unreadable);
    let [web, db]: [VmRecord; 2] = loaded.vms.try_into().unwrap();
    let spec = VmSpec {
        vcpus: 2,
        memory_mib: 768,
        root_bytes: 8 << 30,
        work_bytes: 4 << 30,
        nat: false,
        publish: vec!["8080:80".parse().unwrap()],
        autostart: false,
        labels: Default::default(),
        sync: Vec::new(),
    };
    assert_eq!((&web.spec, web.state, web.generation), (&spec, VmState::Running, u64::MAX));
    let made = ids(&["vm_folder", "root_disk", "work_disk", "vmm_home", "identity"]);
    assert_eq!(web.made, made);
    let run = web.run.unwrap();
    assert_eq!(run.spec, spec, "the run keeps what it began with");
    assert_eq!(run.steps.first(), Some(&StepId::new("attach_disks")));
    assert_eq!((run.steps.len(), run.steps.last()), (10, Some(&StepId::new("ready"))));
    let forwarder = ProcRef { pid: 10, start_time: 20 };
    assert_eq!(run.found::<ProcRef>(&StepId::new("forwarder")), Some(forwarder));
    assert_eq!((run.vmm_pid, run.lease.unwrap().prefix), (Some(12), 24));
    assert_eq!((db.spec.nat, db.spec.publish, db.run), (true, Vec::new(), None));
    assert_eq!((db.made, db.problems), (made, vec!["a".to_owned(), "b".into()]));
    assert_eq!(db.plan.boot.image_name, "it's");

    // Unreadable rows are unchanged, and rows written now can be read.
    drop(store);
    let now = rusqlite::Connection::open(&path).unwrap();
    let version: i64 = now.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, SCHEMA_VERSION);
    let bad: String =
        now.query_row("SELECT record FROM vms WHERE name = 'bad'", [], |row| row.get(0)).unwrap();
    assert_eq!(bad, "{ not JSON");

    // The tables as they were, for the version that wrote them.
    let copy = folder.path().join("banger.db.v1");
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let copy = rusqlite::Connection::open(copy).unwrap();
    let version: i64 = copy.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    let web: String =
        copy.query_row("SELECT record FROM vms WHERE name = 'web'", [], |row| row.get(0)).unwrap();
    assert_eq!((version, web.as_str()), (1, RUNNING));
    // A current database is not copied.
    let names = || std::fs::read_dir(folder.path()).unwrap().flatten().map(|one| one.file_name());
    assert_eq!(names().filter(|name| name.to_string_lossy().contains(".v")).count(), 1);
    assert!(!names().any(|name| name.to_string_lossy().ends_with(".new")));
}

/// In a folder with odd bytes and a path beyond SQLite's limit, and over the rest of an attempt
/// that was killed.
#[tokio::test]
async fn a_copy_is_made_in_any_folder_and_once_more_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9 'q' \"d\"");
    let long = folder.path().join(odd).join("d".repeat(250)).join("e".repeat(250));
    std::fs::create_dir_all(&long).unwrap();
    let at = folder.path().join(FILE_NAME);
    let old = rusqlite::Connection::open(&at).unwrap();
    old.execute_batch(TABLES).unwrap();
    drop(old);
    let path = long.join(FILE_NAME);
    std::fs::rename(at, &path).unwrap();
    std::fs::write(long.join("banger.db.v1.new"), "half a copy").unwrap();
    drop(Store::open(&path).unwrap());
    assert!(long.join("banger.db.v1").metadata().unwrap().len() > 0);
    assert!(!long.join("banger.db.v1.new").exists());

    // Where no copy can be made, nothing is migrated.
    let blocked = folder.path().join(FILE_NAME);
    std::fs::rename(long.join("banger.db.v1"), &blocked).unwrap();
    std::fs::create_dir(folder.path().join("banger.db.v1.new")).unwrap();
    let error = Store::open(&blocked).err().unwrap();
    assert!(error.causes[0].contains("copied before its tables are changed"), "{error:?}");
    let db = rusqlite::Connection::open(&blocked).unwrap();
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 1);
}

/// Operations of version 2, all of them on VMs.
#[tokio::test]
async fn operations_of_version_2_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(TABLES).unwrap();
    old.pragma_update(None, "user_version", 2).unwrap();
    let failed = r#"{"code":"vmm_died","message":"gone","operation":"op-000002"}"#;
    let rows = [
        ("op-000001", "create", "succeeded", None, 5),
        ("op-000002", "start", "failed", Some(failed), 6),
        ("op-000003", "stop", "running", None, 7),
    ];
    for (id, kind, state, error, started) in rows {
        let insert = "INSERT INTO operations (id, kind, vm, vm_name, state, error, started) \
            VALUES (?1, ?2, '000000000001', 'web', ?3, ?4, ?5)";
        old.execute(insert, (id, kind, state, error, started)).unwrap();
    }
    let log = "INSERT INTO op_events VALUES (3, 1, 'shim', 'undo_started', '', 8)";
    old.execute(log, []).unwrap();
    drop(old);

    let store = Store::open(&path).unwrap();
    let open = store.load().await.unwrap().open_ops;
    let [(stop, log)] = open.as_slice() else { panic!("{open:?}") };
    let vm =
        Subject::Vm(VmTag { id: "000000000001".parse().unwrap(), name: "web".parse().unwrap() });
    assert_eq!((&stop.subject, stop.state, log.len()), (&vm, OpState::Running, 1));
    let all = store.operations(9).await.unwrap();
    let kinds: Vec<&str> = all.iter().map(|op| op.kind.as_str()).collect();
    assert_eq!(kinds, ["stop", "start", "create"]);
    assert!(all.iter().all(|op| op.subject == vm && op.made.is_none()));
    let start: OpId = "op-000002".parse().unwrap();
    let error = ApiError::new(ErrorCode::VmmDied, "gone").in_operation(&start);
    assert_eq!(all[1].error, Some(error));
    drop(store);
    let now = rusqlite::Connection::open(&path).unwrap();
    let version: i64 = now.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, SCHEMA_VERSION);
}
