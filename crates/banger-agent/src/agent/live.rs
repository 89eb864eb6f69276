//! `POST /sync`: the guest's side of a live folder.
//!
//! `path` is the folder, `make=yes` makes it, `user` is its user as for `/archive`: the thread has
//! that user's permissions from then on.

use std::io;
use std::os::unix::ffi::OsStrExt as _;

use banger_agent_proto::archive::NO_PATH;
use banger_sync_side::{Rules, Side, UPGRADE};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::archive::caller;
use super::http::{Refusal, Request};
use super::routes::Client;
use crate::beneath::Folder;

/// Serves the folder until the host closes the connection.
///
/// # Errors
/// The connection's.
pub fn serve(mut client: Client, request: &Request) -> io::Result<()> {
    if request.upgrade.as_deref() != Some(UPGRADE) {
        return client.refuse(&Refusal::bad(format!("a live folder needs `Upgrade: {UPGRADE}`")));
    }
    let side = match open(request) {
        Ok(side) => side,
        Err(refusal) => return client.refuse(&refusal),
    };
    client.switch(UPGRADE)?;
    let (stream, early) = client.into_parts();
    for direction in [Timeout::Recv, Timeout::Send] {
        // Nothing may change for hours.
        set_socket_timeout(&stream, direction, None)?;
    }
    banger_sync_side::serve(stream, &early, side)
}

fn open(request: &Request) -> Result<Side, Refusal> {
    let (_, path) = caller(request)?;
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(&path));
    let failed = |error: io::Error| {
        let status = if error.kind() == io::ErrorKind::NotFound { NO_PATH } else { 409 };
        Refusal::new(status, format!("cannot open `{}`: {error}", path.display()))
    };
    if request.parameter("make").is_some() {
        std::fs::create_dir_all(path).map_err(failed)?;
    }
    let folder = Folder::open(path).map_err(failed)?;
    Ok(Side::new(folder, Rules::default()).map_err(failed)?.at(path))
}
