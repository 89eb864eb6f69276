//! Kernel parameters of the calling thread's network namespace: proc(5), `/proc/sys`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::RootError;

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

/// Reads a parameter.
///
/// # Errors
/// read(2).
pub fn get(name: &str) -> Result<String, RootError> {
    let path = path(name);
    let text = fs::read_to_string(&path);
    text.map(|text| text.trim().to_owned())
        .map_err(|error| RootError::on_path("read", &path, &error))
}

/// Sets a parameter.
///
/// # Errors
/// open(2), write(2).
pub fn set(name: &str, value: &str) -> Result<(), RootError> {
    let path = path(name);
    write(&path, value).map_err(|error| RootError::on_path("write", &path, &error))
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Disables IPv6 on an interface. Does nothing on a kernel without IPv6.
///
/// # Errors
/// open(2), write(2).
pub fn no_ipv6(interface: &str) -> Result<(), RootError> {
    let path = path("net/ipv6/conf").join(interface).join("disable_ipv6");
    match write(&path, "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RootError::on_path("write", &path, &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
