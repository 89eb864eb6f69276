//! Leases: the address of each VM, one file per lease, named by the address. Bridge, rules and TAPs
//! derive from them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use banger_base::{HostHint, VmId};
use banger_sys::fs::Durability;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::subnet::GuestNetwork;
use crate::error::{Kind, RootError};
use crate::protocol::{Did, Nat};

/// Maximum size of a lease file in bytes.
const MAX_BYTES: u64 = 4096;

/// The content of a lease file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseFile {
    /// Uid of the VM's owner.
    pub owner: u32,
    /// The VM.
    pub vm: VmId,
    /// Whether the VM has NAT.
    pub nat: Nat,
}

/// All leases.
#[derive(Debug)]
pub struct Leases {
    folder: PathBuf,
    held: BTreeMap<Ipv4Addr, LeaseFile>,
}

impl Leases {
    /// Reads all leases; skips incomplete files and addresses outside the subnet.
    ///
    /// # Errors
    /// opendir(3), read(2).
    pub fn read(folder: PathBuf, subnet: Ipv4Net) -> Result<Self, RootError> {
        let mut held = BTreeMap::new();
        each(&folder, |path, name| {
            if let Some((address, lease)) = parse(path, name, subnet)? {
                held.insert(address, lease);
            }
            Ok(())
        })
        .map_err(|error| RootError::on_path("read leases in", &folder, &error))?;
        Ok(Self { folder, held })
    }

    /// As [`Leases::read`], and removes invalid files and second leases of a VM. Only for the
    /// holder of the network lock.
    ///
    /// # Errors
    /// Those of [`Leases::read`]; unlink(2).
    pub fn tidied(folder: PathBuf, subnet: Ipv4Net) -> Result<Self, RootError> {
        let mut held: BTreeMap<Ipv4Addr, LeaseFile> = BTreeMap::new();
        each(&folder, |path, name| match parse(path, name, subnet)? {
            Some((address, lease)) if !held.values().any(|other| other.vm == lease.vm) => {
                held.insert(address, lease);
                Ok(())
            }
            _ => fs::remove_file(path),
        })
        .map_err(|error| RootError::on_path("read leases in", &folder, &error))?;
        Ok(Self { folder, held })
    }

    /// Whether there are no leases.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// All leases, by address.
    pub fn iter(&self) -> impl Iterator<Item = (Ipv4Addr, &LeaseFile)> {
        self.held.iter().map(|(address, held)| (*address, held))
    }

    /// Whether any VM has NAT.
    pub fn any_nat(&self) -> bool {
        self.held.values().any(|held| held.nat == Nat::On)
    }

    /// The lease of a VM.
    pub fn of(&self, vm: &VmId) -> Option<(Ipv4Addr, &LeaseFile)> {
        self.iter().find(|(_, held)| held.vm == *vm)
    }

    /// Gives a VM a lease; returns the existing one if there is one.
    ///
    /// # Errors
    /// `Refused`: the VM belongs to another user. `HostNotReady`: no address is free. open(2),
    /// write(2).
    pub fn take(
        &mut self,
        wanted: LeaseFile,
        subnet: Ipv4Net,
    ) -> Result<(Ipv4Addr, Did), RootError> {
        let address = match self.of(&wanted.vm) {
            Some((_, held)) if held.owner != wanted.owner => {
                let message = format!("VM `{}` belongs to another user", wanted.vm);
                return Err(RootError::new(Kind::Refused, message));
            }
            Some((address, held)) if *held == wanted => return Ok((address, Did::WasThere)),
            Some((address, _)) => address,
            None => subnet
                .candidates(&wanted.vm)
                .find(|address| !self.held.contains_key(address))
                .ok_or_else(|| {
                    let message = format!("all addresses of `{subnet}` are taken");
                    RootError::new(Kind::HostNotReady, message)
                        .with_hint(HostHint::StopVm)
                        .with_hint(HostHint::ChooseSubnet)
                })?,
        };
        let failed = |error| RootError::on_path("write a lease in", &self.folder, &error);
        let text = serde_json::to_vec(&wanted).map_err(|error| failed(error.into()))?;
        fs::create_dir_all(&self.folder).map_err(failed)?;
        let folder = banger_sys::fs::open_folder(&self.folder).map_err(failed)?;
        banger_sys::fs::write_atomically(folder, &address.to_string(), &text, Durability::Cached)
            .map_err(failed)?;
        self.held.insert(address, wanted);
        Ok((address, Did::Made))
    }

    /// Removes a VM's lease.
    ///
    /// # Errors
    /// unlink(2), except ENOENT.
    pub fn end(&mut self, vm: &VmId) -> Result<Did, RootError> {
        let Some((address, _)) = self.of(vm) else { return Ok(Did::WasAbsent) };
        let path = self.folder.join(address.to_string());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(RootError::on_path("remove the lease", &path, &error));
            }
            Ok(()) | Err(_) => {}
        }
        self.held.remove(&address);
        Ok(Did::Removed)
    }
}

/// Calls a function for each file of a folder; an absent folder has none.
fn each(folder: &Path, mut with: impl FnMut(&Path, &str) -> io::Result<()>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    // Sorted, so that it is deterministic which of two leases stays.
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        with(&path, &name)?;
    }
    Ok(())
}

/// `None`: not a valid lease, or removed meanwhile.
fn parse(path: &Path, name: &str, subnet: Ipv4Net) -> io::Result<Option<(Ipv4Addr, LeaseFile)>> {
    let address = name.parse().ok().filter(|address| subnet.has_guest(*address));
    let Some(address) = address else { return Ok(None) };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text).ok().map(|held| (address, held)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::places::Places;

    fn held(vm: &str, owner: u32, nat: Nat) -> LeaseFile {
        LeaseFile { owner, vm: vm.parse().unwrap(), nat }
    }

    #[test]
    fn a_lease_is_kept_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let subnet = super::super::subnet::checked(&Places::default()).unwrap();
        let read = || Leases::tidied(folder.path().join("leases"), subnet).unwrap();
        let vm = "0123456789ab";
        let (address, did) = read().take(held(vm, 7, Nat::On), subnet).unwrap();
        assert_eq!(did, Did::Made);
        assert_eq!(read().take(held(vm, 7, Nat::On), subnet).unwrap(), (address, Did::WasThere));
        assert_eq!(read().take(held(vm, 7, Nat::Off), subnet).unwrap(), (address, Did::Made));
        assert_eq!(read().of(&vm.parse().unwrap()).unwrap().1.nat, Nat::Off);
        assert_eq!(read().take(held(vm, 8, Nat::On), subnet).unwrap_err().kind, Kind::Refused);
        assert_eq!(read().end(&vm.parse().unwrap()).unwrap(), Did::Removed);
        assert_eq!(read().end(&vm.parse().unwrap()).unwrap(), Did::WasAbsent);
        assert!(read().is_empty());
    }

    #[test]
    fn a_full_subnet_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places { network: "172.16.0.0/29".parse().unwrap(), ..Places::default() };
        let subnet = super::super::subnet::checked(&places).unwrap();
        let mut leases = Leases::tidied(folder.path().to_owned(), subnet).unwrap();
        for n in 0..5 {
            leases.take(held(&format!("00000000000{n}"), 7, Nat::On), subnet).unwrap();
        }
        let full = leases.take(held("aaaaaaaaaaaa", 7, Nat::On), subnet).unwrap_err();
        assert_eq!(full.kind, Kind::HostNotReady);
        assert_eq!(full.message, "all addresses of `172.16.0.0/29` are taken");
        assert!(full.hints.0.contains(&HostHint::ChooseSubnet));
    }

    #[test]
    fn invalid_leases_are_removed_by_tidied_only() {
        let folder = tempfile::tempdir().unwrap();
        let subnet = super::super::subnet::checked(&Places::default()).unwrap();
        let path = folder.path();
        let mut leases = Leases::read(path.to_owned(), subnet).unwrap();
        let (address, _) = leases.take(held("0123456789ab", 7, Nat::On), subnet).unwrap();
        let good = fs::read(path.join(address.to_string())).unwrap();
        let other = if address == Ipv4Addr::new(172, 16, 0, 9) { 8 } else { 9 };
        fs::write(path.join(format!("172.16.0.{other}")), &good).unwrap();
        fs::write(path.join("172.16.0.77"), &good[..10]).unwrap();
        for name in [".172.16.0.5.new", "10.0.0.1", "172.16.0.1", "x"] {
            fs::write(path.join(name), &good).unwrap();
        }
        assert_eq!(Leases::read(path.to_owned(), subnet).unwrap().iter().count(), 2);
        assert_eq!(fs::read_dir(path).unwrap().count(), 7);
        assert_eq!(Leases::tidied(path.to_owned(), subnet).unwrap().iter().count(), 1);
        assert_eq!(fs::read_dir(path).unwrap().count(), 1);
    }
}
