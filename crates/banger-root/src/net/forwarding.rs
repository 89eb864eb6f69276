//! Whether the host passes packets on: `net.ipv4.ip_forward`, ip(7).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::sysctl;
use crate::error::RootError;
use crate::places::Places;
use crate::words::Did;

const SWITCH: &str = "net/ipv4/ip_forward";

/// Whether Docker is there: it relies on forwarding, and only sets it where it is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Docker {
    /// It is.
    There,
    /// It is not.
    Absent,
}

/// Says that it was off until we came, and whether Docker was there then.
fn record(places: &Places) -> PathBuf {
    places.run.join("forwarding")
}

/// Whether it is on.
///
/// # Errors
/// read(2).
pub fn is_on() -> Result<bool, RootError> {
    sysctl::get(SWITCH).map(|value| value == "1")
}

/// Whether it was us who set it.
pub fn is_ours(places: &Places) -> bool {
    record(places).exists()
}

/// Sets it, remembering first that it was not.
///
/// # Errors
/// open(2), write(2).
pub fn on(places: &Places, docker: Docker) -> Result<Did, RootError> {
    if is_on()? {
        return Ok(Did::WasThere);
    }
    let record = record(places);
    let text = if docker == Docker::There { "docker" } else { "alone" };
    if !record.exists() {
        fs::write(&record, text).map_err(|error| RootError::on_path("write", &record, &error))?;
    }
    sysctl::set(SWITCH, "1")?;
    Ok(Did::Made)
}

/// Puts it back as it was, unless Docker came meanwhile and found it set.
///
/// # Errors
/// open(2), write(2), unlink(2).
pub fn back(places: &Places, docker: Docker) -> Result<Did, RootError> {
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
