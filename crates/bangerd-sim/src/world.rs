//! The simulated host of `bangerd-sim`, stored in a file so that it survives the daemon as a real
//! host does: `sim-world.json` in the state folder, or the file named by `BANGER_SIM_WORLD`. The
//! first line of the file is a complete world, each further line a change, all in JSON.
//!
//! Two variables inject faults: `BANGER_SIM_BEHAVIORS=web=stubborn,db=silent` for guests, by the
//! name of their VM, and `BANGER_SIM_FAULTS=vmm:before:1,undo root:after:2` for effects, with the
//! kind of object, the time of the fault (before or after the effect), and the number of faults.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use banger_api::hint::SetupAdvice;
use banger_api::{ApiError, ErrorCode};
use banger_engine::drivers::{Drivers, Host as _};
use banger_engine::sim::world::{Fault, When, World};
use banger_engine::sim::{GuestBehavior, Sim};

use bangerd::failure::io_failure;
use serde::{Deserialize, Serialize};

use crate::{agent, crash};

/// File of the world in the state folder.
pub const FILE: &str = "sim-world.json";
/// Folder of the VMs' logs in the state folder.
const LOGS: &str = "sim-logs";
/// Folder of the files of simulated guests in the state folder.
const FILES: &str = "sim-files";
/// Size of the changes, in bytes, after which the complete world is written.
const MAX_CHANGES: usize = 4 << 20;
/// Variable with the path of the world's file.
pub const WORLD: &str = "BANGER_SIM_WORLD";
/// Variable with the behaviour of guests.
pub const BEHAVIORS: &str = "BANGER_SIM_BEHAVIORS";
/// Variable with the faults of effects.
pub const FAULTS: &str = "BANGER_SIM_FAULTS";

/// The drivers of the simulated host stored in `state`.
///
/// # Errors
/// The file cannot be read, is damaged, or cannot be written.
pub fn open(state: &Path) -> Result<Drivers, ApiError> {
    let crash = crash::from_environment()?;
    let path = std::env::var_os(WORLD).map_or_else(|| state.join(FILE), PathBuf::from);
    let world = read(&path)?;
    let file = WorldFile::create(path.clone(), &world);
    let file = Mutex::new(file.map_err(|error| io_failure("write", &path, &error))?);
    let entropy = getrandom::u64().map_err(|error| {
        ApiError::new(ErrorCode::HostNotReady, "no random numbers").caused_by(&error)
    })?;
    let sink = {
        let path = path.clone();
        Box::new(move |world: &World, keys: &[String]| {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = file.change(world, keys) {
                tracing::error!(error = %error, path = %path.display(), "the simulated host");
            }
        })
    };
    // Host and agents refer to each other.
    let host: Arc<OnceLock<Weak<Sim>>> = Arc::default();
    let connect = {
        let (host, files) = (host.clone(), state.join(FILES));
        Box::new(move |vm: &banger_engine::plan::VmPlan| {
            let sim = host
                .get()
                .and_then(Weak::upgrade)
                .ok_or_else(|| ApiError::new(ErrorCode::Internal, "the simulated host is gone"))?;
            agent::connect(sim, vm, &files)
        })
    };
    let sim = Sim::new(world, entropy, sink, connect);
    sim.set_logs(state.join(LOGS));
    // Set once, here.
    let _ = host.set(Arc::downgrade(&sim));
    for (name, behavior) in listed(BEHAVIORS, read_behavior)? {
        sim.set_behavior(&name, behavior);
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

/// Parses a variable with a list.
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

fn read_behavior(item: &str) -> Option<(String, GuestBehavior)> {
    let (name, behavior) = item.split_once('=')?;
    let behavior = match behavior {
        "good" => GuestBehavior::Good,
        "stubborn" => GuestBehavior::Stubborn,
        "silent" => GuestBehavior::Silent,
        "sluggish" => GuestBehavior::NeverBooted,
        "ends-early" => GuestBehavior::PowersOff,
        "crowded" => GuestBehavior::DiskNearlyFull,
        exits => GuestBehavior::Exits(exits.strip_prefix("exits-")?.parse().ok()?),
    };
    Some((name.to_owned(), behavior))
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

/// Reads the stored world; without a file, an empty one.
///
/// # Errors
/// The file cannot be read, or is damaged.
pub fn read(path: &Path) -> Result<World, ApiError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(World::default()),
        Err(error) => return Err(io_failure("read", path, &error)),
        Ok(bytes) => bytes,
    };
    parse(&bytes).map_err(|error| {
        let text = format!("the simulated host in `{}` is damaged", path.display());
        ApiError::new(ErrorCode::Corrupt, text)
            .caused_by(&error)
            .with_hint(SetupAdvice::RemoveFile { path: path.display().to_string() })
    })
}

fn parse(bytes: &[u8]) -> serde_json::Result<World> {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let mut world: World = serde_json::from_slice(lines.next().unwrap_or_default())?;
    // A killed daemon may leave an incomplete last line: that change is discarded.
    for line in lines.filter(|line| line.ends_with(b"\n")) {
        let change: Change = serde_json::from_slice(line)?;
        world.spawned = change.spawned;
        for (key, value) in change.objects {
            match value {
                Some(value) => drop(world.objects.insert(key, value)),
                None => drop(world.objects.remove(&key)),
            }
        }
    }
    Ok(world)
}

/// A line of the file after the first one.
#[derive(Serialize, Deserialize)]
struct Change {
    spawned: u64,
    /// Objects with their values; `None` for a removed object.
    objects: BTreeMap<String, Option<String>>,
}

/// The file of a world: a line is appended for each change, and the complete world is written when
/// the changes grow large. It is not synced to the disk.
struct WorldFile {
    path: PathBuf,
    file: File,
    /// Bytes of changes.
    changes: usize,
}

impl WorldFile {
    fn create(path: PathBuf, world: &World) -> io::Result<Self> {
        let file = write_whole(&path, world)?;
        Ok(Self { path, file, changes: 0 })
    }

    fn change(&mut self, world: &World, keys: &[String]) -> io::Result<()> {
        if keys.is_empty() || self.changes > MAX_CHANGES {
            self.file = write_whole(&self.path, world)?;
            self.changes = 0;
            return Ok(());
        }
        let value = |key: &String| (key.clone(), world.objects.get(key).cloned());
        let objects = keys.iter().map(value).collect();
        let mut line = serde_json::to_vec(&Change { spawned: world.spawned, objects })?;
        line.push(b'\n');
        self.changes += line.len();
        self.file.write_all(&line)
    }
}

/// Replaces the file atomically; returns it, open for appending.
fn write_whole(path: &Path, world: &World) -> io::Result<File> {
    let new = path.with_extension("new");
    let mut bytes = serde_json::to_vec(world)?;
    bytes.push(b'\n');
    fs::write(&new, bytes)?;
    let file = File::options().append(true).open(&new)?;
    fs::rename(new, path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let (mut world, vm) = (World::default(), banger_api::VmId::from_entropy(1));
        let mut file = WorldFile::create(path.clone(), &world).unwrap();
        let mut change = |world: &World, keys: &[String]| {
            file.change(world, keys).unwrap();
            assert_eq!(read(&path).unwrap(), *world);
        };
        world.spawned = 7;
        world.insert("shim", &vm, "7".into());
        world.insert("vmm", &vm, String::new());
        change(&world, &["shim", "vmm"].map(|kind| World::key(kind, &vm)));
        world.remove("vmm", &vm);
        change(&world, &[World::key("vmm", &vm)]);
        world.fetched.insert("image:debian".into(), "1".into());
        change(&world, &[]);
        world.remove("shim", &vm);
        change(&world, &[World::key("shim", &vm)]);
        let whole = fs::read(&path).unwrap();
        // An incomplete last line is discarded; any other incomplete line is an error.
        fs::write(&path, [&whole[..], b"{\"spawned\": 8"].concat()).unwrap();
        assert_eq!(read(&path).unwrap(), world);
        fs::write(&path, [&whole[..], b"{\"spawned\": 8\n"].concat()).unwrap();
        assert_eq!(read(&path).unwrap_err().code, ErrorCode::Corrupt);
        assert_eq!(read(&folder.path().join("none")).unwrap(), World::default());
    }

    #[test]
    fn behaviors_and_faults_are_read() {
        assert_eq!(read_behavior("web=silent"), Some(("web".into(), GuestBehavior::Silent)));
        let fault = Fault { effect: "undo root".into(), when: When::After, times: 2 };
        assert_eq!(read_fault("undo root:after:2"), Some(fault));
        for bad in ["web", "web=", "web=sad"] {
            assert_eq!(read_behavior(bad), None, "{bad}");
        }
        for bad in ["root", "root:after", "root:never:1", "root:after:x", "root:after:1:1"] {
            assert_eq!(read_fault(bad), None, "{bad}");
        }
    }
}
