//! A writing process is killed with SIGKILL repeatedly: acknowledged commits survive, and no commit
//! is partial.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use banger_engine::oplog::{StepEventKind as Kind, StepId};
use banger_engine::store::{Durability, Store as _, Write};
use banger_store::Store;
use common::{event, op, op_id, put, vm};

const PATH: &str = "BANGER_STORE_TEST_WRITER";
const ROUNDS: u32 = 12;

/// Commits in a loop: round `n` adds operation `n`, logs two lines, ends it, and counts in the VM.
/// Prints each number once the commit has returned.
async fn write_for_ever(path: &Path) {
    let store = Store::open(path).unwrap();
    let mut web = store.load().await.unwrap().vms.pop().unwrap_or_else(|| vm(1, "web"));
    loop {
        web.generation += 1;
        let n = web.generation;
        web.problems = vec![format!("{n} ").repeat(n as usize % 500)];
        let log = |kind| Write::Log(op_id(n), event(StepId::new("shim"), kind, n));
        let (started, succeeded) = (log(Kind::Started), log(Kind::Succeeded));
        let end = Write::EndOp { op: op_id(n), result: Ok(None) };
        let durability = if n % 7 == 0 { Durability::Power } else { Durability::Process };
        let writes = vec![Write::AddOp(op(n, &web)), started, put(&web), succeeded, end];
        store.commit(writes, durability).await.unwrap();
        println!("committed {n}");
        std::io::stdout().flush().unwrap();
    }
}

/// Runs a child for a while and kills it; returns the last number it printed.
fn let_write_and_kill(path: &Path, after: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "committed_records_survive_sigkill", "--nocapture"])
        .env(PATH, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let committed = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        let numbers = committed.lines().map_while(Result::ok);
        let numbers = numbers.filter_map(|line| Some(line.rsplit_once("committed ")?.1.to_owned()));
        numbers.last().and_then(|number| number.parse().ok()).unwrap_or(0)
    });
    std::thread::sleep(after);
    child.kill().unwrap();
    let ended = child.wait().unwrap();
    assert!(!ended.success() && ended.code().is_none(), "the child ended by itself: {ended}");
    reader.join().unwrap()
}

#[tokio::test]
async fn committed_records_survive_sigkill() {
    if let Some(path) = std::env::var_os(PATH) {
        write_for_ever(Path::new(&path)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(banger_store::FILE_NAME);
    let mut total = 0;
    for round in 0..ROUNDS {
        let committed =
            let_write_and_kill(&path, Duration::from_millis(u64::from(40 + 17 * round)));
        let store = Store::open(&path).unwrap();
        let loaded = store.load().await.unwrap();
        assert!(loaded.unreadable.is_empty(), "{:?}", loaded.unreadable);
        assert!(loaded.open_ops.is_empty(), "an operation without its end: {:?}", loaded.open_ops);
        let kept = loaded.vms.first().map_or(0, |web| web.generation);
        assert!(kept >= committed, "{committed} was reported as committed, {kept} is there");
        assert!(kept <= committed.max(total) + 1, "{kept} is there, {committed} was reported last");
        if kept > 0 {
            let newest = store.operations(1).await.unwrap();
            assert_eq!(newest[0].id, op_id(kept), "operation and VM are of one commit");
            assert_eq!(store.log(&op_id(kept)).await.unwrap().len(), 2);
        }
        total = kept;
    }
    assert!(total > u64::from(ROUNDS), "only {total} commits in {ROUNDS} rounds");
}
