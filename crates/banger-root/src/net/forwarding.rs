//! IP forwarding of the host: `net.ipv4.ip_forward`, ip(7).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::sysctl;
use crate::error::RootError;
use crate::places::Places;
use crate::protocol::Did;

const SWITCH: &str = "net/ipv4/ip_forward";

/// Whether Docker is present: it relies on forwarding, and enables it only if it is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Docker {
    /// Docker's chains exist.
    Present,
    /// They do not.
    Absent,
}

/// Record that forwarding was off before banger, and whether Docker was present then.
fn record(places: &Places) -> PathBuf {
    places.run.join("forwarding")
}

/// Whether forwarding is on.
///
/// # Errors
/// read(2).
pub fn is_on() -> Result<bool, RootError> {
    sysctl::get(SWITCH).map(|value| value == "1")
}

/// Whether banger enabled forwarding.
pub fn is_ours(places: &Places) -> bool {
    record(places).exists()
}

/// Enables forwarding; first records that it was off.
///
/// # Errors
/// open(2), write(2).
pub fn on(places: &Places, docker: Docker) -> Result<Did, RootError> {
    if is_on()? {
        return Ok(Did::WasThere);
    }
    let record = record(places);
    let text = if docker == Docker::Present { "docker" } else { "alone" };
    if !record.exists() {
        fs::write(&record, text).map_err(|error| RootError::on_path("write", &record, &error))?;
    }
    sysctl::set(SWITCH, "1")?;
    Ok(Did::Made)
}

/// Restores the previous value, unless Docker started meanwhile and relies on it.
///
/// # Errors
/// open(2), write(2), unlink(2).
pub fn restore(places: &Places, docker: Docker) -> Result<Did, RootError> {
    let record = record(places);
    let was = match fs::read_to_string(&record) {
        Ok(was) => was,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Did::WasAbsent),
        Err(error) => return Err(RootError::on_path("read", &record, &error)),
    };
    if docker == Docker::Absent || was == "docker" {
        sysctl::set(SWITCH, "0")?;
    }
    remove(&record)?;
    Ok(Did::Removed)
}

fn remove(record: &Path) -> Result<(), RootError> {
    fs::remove_file(record).map_err(|error| RootError::on_path("remove", record, &error))
}
