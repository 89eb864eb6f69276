//! The simulated host of `bangerd-sim`: the engine's own, kept in a file so that it outlives the
//! daemon as a real host would: `sim-world.json` in the state folder, or the file that
//! `BANGER_SIM_WORLD` names.
//!
//! Tests of clients can have it behave badly: `BANGER_SIM_MOODS=web=stubborn,db=silent` for
//! guests, by the name of their VM, and `BANGER_SIM_FAULTS=vmm:before:1,undo root:after:2` for
//! effects, with the kind of object, when it fails, and how often.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

use banger_api::{ApiError, ErrorCode};
use banger_engine::drivers::{Drivers, Host as _};
use banger_engine::sim::world::{Fault, When, World};
use banger_engine::sim::{Mood, Sim};

use bangerd::failure::io_failure;

use crate::{agent, crash};

/// File of the world in the state folder.
pub const FILE: &str = "sim-world.json";
/// Folder in the state folder where the logs of VMs are looked for.
const LOGS: &str = "sim-logs";
/// Variable with the path of the world's file.
pub const WORLD: &str = "BANGER_SIM_WORLD";
/// Variable with the moods of guests.
pub const MOODS: &str = "BANGER_SIM_MOODS";
/// Variable with the effects that fail.
pub const FAULTS: &str = "BANGER_SIM_FAULTS";

/// The drivers of the simulated host that is kept in `state`.
///
/// # Errors
/// The file cannot be read, is damaged, or cannot be written.
pub fn open(state: &Path) -> Result<Drivers, ApiError> {
    let crash = crash::from_environment()?;
    let path = std::env::var_os(WORLD).map_or_else(|| state.join(FILE), PathBuf::from);
    let world = load(&path)?;
    save(&path, &world).map_err(|error| io_failure("write", &path, &error))?;
    let entropy = getrandom::u64().map_err(|error| {
        ApiError::new(ErrorCode::HostNotReady, "no random numbers").caused_by(&error)
    })?;
    let sink = {
        let path = path.clone();
        Box::new(move |world: &World| {
            if let Err(error) = save(&path, world) {
                tracing::error!(error = %error, path = %path.display(), "the simulated host");
            }
        })
    };
    // The agents need the host they are on, which needs to know how to reach them.
    let host: Arc<OnceLock<Weak<Sim>>> = Arc::default();
    let connect = {
        let host = host.clone();
        Box::new(move |vm: &banger_engine::plan::VmPlan| {
            let sim = host
                .get()
                .and_then(Weak::upgrade)
                .ok_or_else(|| ApiError::new(ErrorCode::Internal, "the simulated host is gone"))?;
            agent::connect(sim, vm)
        })
    };
    let sim = Sim::new(world, entropy, sink, connect);
    sim.set_logs(state.join(LOGS));
    // Set once, here.
    let _ = host.set(Arc::downgrade(&sim));
    for (name, mood) in listed(MOODS, read_mood)? {
        sim.set_mood(&name, mood);
    }
    for fault in listed(FAULTS, read_fault)? {
        sim.fail(fault);
    }
    Ok(sim.drivers(crash))
}

/// CPUs and bytes of memory of the simulated host.
pub fn capacity() -> (u32, u64) {
    let capacity = Sim::empty().capacity();
    (capacity.cpus, capacity.memory_bytes)
}

/// Reads a variable that is a list.
fn listed<T>(variable: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, ApiError> {
    let value = std::env::var(variable).unwrap_or_default();
    let items = value.split(',').filter(|item| !item.is_empty());
    let read = |item| {
        read(item).ok_or_else(|| {
            let text = format!("`{variable}`: `{item}` is not understood");
            ApiError::new(ErrorCode::BadRequest, text)
        })
    };
    items.map(read).collect()
}

fn read_mood(item: &str) -> Option<(String, Mood)> {
    let (name, mood) = item.split_once('=')?;
    let mood = match mood {
        "good" => Mood::Good,
        "stubborn" => Mood::Stubborn,
        "silent" => Mood::Silent,
        "sluggish" => Mood::Sluggish,
        _ => return None,
    };
    Some((name.to_owned(), mood))
}

fn read_fault(item: &str) -> Option<Fault> {
    let mut parts = item.split(':');
    let effect = parts.next()?.to_owned();
    let when = match parts.next()? {
        "before" => When::Before,
        "after" => When::After,
        _ => return None,
    };
    let times = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some(Fault { effect, when, times })
}

fn load(path: &PathBuf) -> Result<World, ApiError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(World::default()),
        Err(error) => return Err(io_failure("read", path, &error)),
        Ok(bytes) => bytes,
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        let text = format!("the simulated host in `{}` is damaged", path.display());
        ApiError::new(ErrorCode::Corrupt, text)
            .caused_by(&error)
            .with_hint("remove the file to begin with an empty host")
    })
}

/// Replaces the file at once. It need not survive a power cut: it is a toy.
fn save(path: &Path, world: &World) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(world)?)?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moods_and_faults_are_read() {
        assert_eq!(read_mood("web=silent"), Some(("web".into(), Mood::Silent)));
        let fault = Fault { effect: "undo root".into(), when: When::After, times: 2 };
        assert_eq!(read_fault("undo root:after:2"), Some(fault));
        for bad in ["web", "web=", "web=sad"] {
            assert_eq!(read_mood(bad), None, "{bad}");
        }
        for bad in ["root", "root:after", "root:never:1", "root:after:x", "root:after:1:1"] {
            assert_eq!(read_fault(bad), None, "{bad}");
        }
    }
}
