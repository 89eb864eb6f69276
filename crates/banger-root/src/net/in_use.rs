//! Which network VMs have at the moment. It is not the wanted one where somebody changed that while
//! they run, or where root's own VMs and a user's want different ones: then theirs stays until the
//! last of them ends.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use banger_sys::fs::{Durability, open_folder, write_atomically};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::error::{Kind, RootError};
use crate::places::Places;

/// In the folder of what does not survive a reboot, as the network does not.
const FILE: &str = "network.json";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Network {
    bridge: String,
    subnet: Ipv4Addr,
    prefix: u8,
}

fn of(places: &Places) -> Network {
    let Places { bridge, network, .. } = places.clone();
    Network { bridge, subnet: network.addr(), prefix: network.prefix_len() }
}

fn path(places: &Places) -> PathBuf {
    places.run.join(FILE)
}

/// The places with the network that is in use; as they are where none is.
pub fn places(wanted: &Places) -> Places {
    let noted = fs::read(path(wanted)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let used = noted.and_then(|Network { bridge, subnet, prefix }| {
        let network = Ipv4Net::new(subnet, prefix).ok()?;
        Some(Places { bridge, network, ..wanted.clone() })
    });
    used.unwrap_or_else(|| wanted.clone())
}

/// Whether both mean the same network.
pub fn same(one: &Places, other: &Places) -> bool {
    of(one) == of(other)
}

/// What to say to who wants another one.
pub fn refusal(used: &Places, wanted: &Places) -> RootError {
    let show = |places: &Places| format!("`{}` on `{}`", places.network, places.bridge);
    let message = format!("VMs run in the network {}, not in {}", show(used), show(wanted));
    RootError::new(Kind::Refused, message)
        .with_hint("stop every VM of this host first, or use the network that they have")
}

/// Writes down that this network is in use now.
///
/// # Errors
/// Those of writing.
pub fn note(used: &Places) -> Result<(), RootError> {
    let path = path(used);
    let failed = |error| RootError::on_path("write", &path, &error);
    let text = serde_json::to_vec(&of(used)).map_err(|error| failed(error.into()))?;
    if fs::read(&path).is_ok_and(|noted| noted == text) {
        return Ok(());
    }
    let folder = open_folder(&used.run).map_err(failed)?;
    write_atomically(folder, FILE, &text, Durability::Cached).map_err(failed)
}

/// Nothing is in use any more.
///
/// # Errors
/// unlink(2), but for it being gone.
pub fn forget(used: &Places) -> Result<(), RootError> {
    super::forget(&path(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_wins_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let one = Places { run: folder.path().into(), ..Places::default() };
        let other = Places { network: "10.9.0.0/20".parse().unwrap(), ..one.clone() };
        assert_eq!(places(&other), other);
        note(&one).unwrap();
        note(&one).unwrap();
        assert_eq!(places(&other), one);
        assert!(!same(&one, &other));
        let refusal = refusal(&one, &other);
        assert_eq!(
            refusal.message,
            "VMs run in the network `172.16.0.0/24` on `br-fc`, not in `10.9.0.0/20` on `br-fc`"
        );
        forget(&one).unwrap();
        forget(&one).unwrap();
        assert_eq!(places(&other), other);
        fs::write(folder.path().join(FILE), "{").unwrap();
        assert_eq!(places(&other), other);
    }
}
