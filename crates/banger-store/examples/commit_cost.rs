//! Measures the duration of a commit: `cargo run --release -p banger-store --example commit_cost
//! [folder]`.

use std::time::{Duration, Instant};

use banger_api::operation::{OpState, Subject, VmTag};
use banger_api::{OpId, VmId};
use banger_engine::oplog::{StepEvent, StepEventKind, StepId};
use banger_engine::store::{Durability, OpRecord, Store as _, Write};
use banger_store::Store;

const COMMITS: u64 = 2000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = match std::env::args_os().nth(1) {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let store = Store::open(&folder.path().join(banger_store::FILE_NAME))?;
    for (name, durability) in [("process", Durability::Process), ("power", Durability::Power)] {
        let mut costs = Vec::new();
        for n in 0..COMMITS {
            // One step of a start writes the outcome of the last step and the start of the next.
            let op = OpId::from_entropy(
                n / 16 + if durability == Durability::Power { 1 << 20 } else { 0 },
            );
            let line = |step, kind| {
                Write::Log(
                    op.clone(),
                    StepEvent { step, kind, detail: "Created".into(), at_unix_ms: n },
                )
            };
            let mut writes = Vec::new();
            if n % 16 == 0 {
                writes.push(Write::AddOp(OpRecord {
                    id: op.clone(),
                    kind: "start".into(),
                    subject: Subject::Vm(VmTag { id: VmId::from_entropy(n), name: "web".parse()? }),
                    made: None,
                    state: OpState::Running,
                    error: None,
                    started_unix_ms: n,
                    trace: None,
                }));
            }
            writes.push(line(StepId::new("network"), StepEventKind::Succeeded));
            writes.push(line(StepId::new("run_folder"), StepEventKind::Started));
            let began = Instant::now();
            runtime.block_on(store.commit(writes, durability))?;
            costs.push(began.elapsed());
        }
        costs.sort();
        let at = |part: usize| costs[(costs.len() - 1) * part / 1000].as_secs_f64() * 1000.0;
        let mean = costs.iter().sum::<Duration>().as_secs_f64() * 1000.0 / costs.len() as f64;
        println!(
            "{name}: median {:.3} ms, mean {mean:.3}, p99 {:.3}, p99.9 {:.3} ({COMMITS} commits)",
            at(500),
            at(990),
            at(999),
        );
    }
    Ok(())
}
