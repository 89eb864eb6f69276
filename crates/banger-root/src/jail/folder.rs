//! Finds a VM's jail. The jailer names a parent folder after the VMM's program, and that name may
//! have changed since: a link to a newer version. So every such folder is searched.

use std::fs;
use std::io;
use std::path::PathBuf;

use banger_base::VmId;

use crate::error::{Kind, RootError};
use crate::places::Places;
use crate::protocol::Did;

/// The jails of a VM, one for each program name; usually one.
///
/// # Errors
/// opendir(3).
pub fn all(places: &Places, vm: &VmId) -> Result<Vec<PathBuf>, RootError> {
    let jails = places.jails();
    let entries = match fs::read_dir(&jails) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RootError::on_path("list", &jails, &error)),
    };
    let folders = entries.flatten().map(|entry| entry.path().join(vm.as_str()));
    Ok(folders.filter(|folder| folder.is_dir()).collect())
}

/// The root folder of a VM's jail.
///
/// # Errors
/// `NotFound`: the VM has no jail.
pub fn find(places: &Places, vm: &VmId) -> Result<PathBuf, RootError> {
    let missing = || RootError::new(Kind::NotFound, format!("the VM {vm} has no jail"));
    let folder = all(places, vm)?.into_iter().next().ok_or_else(missing)?;
    Ok(folder.join("root"))
}

/// Removes the folders of a VM's jails.
///
/// # Errors
/// rmdir(2), unlink(2).
pub fn remove(places: &Places, vm: &VmId) -> Result<Did, RootError> {
    let mut did = Did::WasAbsent;
    for folder in all(places, vm)? {
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(RootError::on_path("remove the jail", &folder, &error));
            }
            _ => did = Did::Removed,
        }
    }
    Ok(did)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jail_is_found_under_an_earlier_program_name() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places { state: folder.path().into(), ..Places::default() };
        let vm: VmId = "0123456789ab".parse().unwrap();
        let other: VmId = "0123456789ac".parse().unwrap();
        assert_eq!(find(&places, &vm).unwrap_err().kind, Kind::NotFound);
        assert_eq!(remove(&places, &vm).unwrap(), Did::WasAbsent);
        let old = places.jail("firecracker-v1.12.1", &vm);
        fs::create_dir_all(&old).unwrap();
        fs::create_dir_all(places.jail("firecracker-v1.13.0", &other)).unwrap();
        assert_eq!(find(&places, &vm).unwrap(), old);
        assert_eq!(remove(&places, &vm).unwrap(), Did::Removed);
        assert_eq!(find(&places, &vm).unwrap_err().kind, Kind::NotFound);
        find(&places, &other).unwrap();
    }
}
