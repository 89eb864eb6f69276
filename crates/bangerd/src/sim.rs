//! The simulated host of `bangerd --sim`: the engine's own, kept in a file so that it outlives the
//! daemon as a real host would.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

use banger_api::{ApiError, ErrorCode};
use banger_engine::drivers::{CrashPoints, Drivers};
use banger_engine::sim::Sim;
use banger_engine::sim::world::World;

use crate::failure::io_failure;
use crate::sim_agent;

/// File of the world in the state folder.
pub const FILE: &str = "sim-world.json";

/// The drivers of the simulated host that is kept in `state`.
///
/// # Errors
/// The file cannot be read, is damaged, or cannot be written.
pub fn open(state: &Path, crash: CrashPoints) -> Result<Drivers, ApiError> {
    let path = state.join(FILE);
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
            sim_agent::connect(sim, vm)
        })
    };
    let sim = Sim::new(world, entropy, sink, connect);
    // Set once, here.
    let _ = host.set(Arc::downgrade(&sim));
    Ok(sim.drivers(crash))
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
