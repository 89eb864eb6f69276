//! The network (bridge and subnet) that VMs use now. It differs from the configured one if the
//! configuration changed while VMs ran, or if root's daemon and a user's are configured
//! differently; it stays until the last VM ends.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use banger_base::HostHint;
use banger_sys::fs::{Durability, open_folder, write_atomically};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::error::{Kind, RootError};
use crate::places::Places;

/// In the folder that is cleared at boot, as the network is.
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

/// The places with the network in use; `wanted` if none is in use.
pub fn places(wanted: &Places) -> Places {
    let noted = fs::read(path(wanted)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let used = noted.and_then(|Network { bridge, subnet, prefix }| {
        let network = Ipv4Net::new(subnet, prefix).ok()?;
        Some(Places { bridge, network, ..wanted.clone() })
    });
    used.unwrap_or_else(|| wanted.clone())
}

/// Whether both have the same network.
pub fn same(one: &Places, other: &Places) -> bool {
    of(one) == of(other)
}

/// The error for a request for another network than the one in use.
pub fn refusal(used: &Places, wanted: &Places) -> RootError {
    let show = |places: &Places| format!("`{}` on `{}`", places.network, places.bridge);
    let message = format!("VMs run in the network {}, not in {}", show(used), show(wanted));
    RootError::new(Kind::Refused, message).with_hint(HostHint::ShareNetwork {
        subnet: used.network.to_string(),
        bridge: used.bridge.clone(),
    })
}

/// Records that this network is in use.
///
/// # Errors
/// mkdir(2), open(2), write(2), renameat(2).
pub fn record(used: &Places) -> Result<(), RootError> {
    let path = path(used);
    let failed = |error| RootError::on_path("write", &path, &error);
    let text = serde_json::to_vec(&of(used)).map_err(|error| failed(error.into()))?;
    if fs::read(&path).is_ok_and(|noted| noted == text) {
        return Ok(());
    }
    let folder = open_folder(&used.run).map_err(failed)?;
    write_atomically(folder, FILE, &text, Durability::Cached).map_err(failed)
}

/// Records that no network is in use.
///
/// # Errors
/// unlink(2), except ENOENT.
pub fn forget(used: &Places) -> Result<(), RootError> {
    super::forget(&path(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_in_use_replaces_the_wanted_one_until_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let one = Places { run: folder.path().into(), ..Places::default() };
        let other = Places { network: "10.9.0.0/20".parse().unwrap(), ..one.clone() };
        assert_eq!(places(&other), other);
        record(&one).unwrap();
        record(&one).unwrap();
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
