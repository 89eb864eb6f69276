//! Ownership of VMs: the first user to create a VM's folder owns it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use banger_base::{HostHint, VmId};
use banger_sys::fs::{Durability, open_folder, write_atomically};

use crate::error::{Kind, RootError};
use crate::jail;
use crate::places::Places;
use crate::protocol::Did;

/// Mode of a folder that other users may traverse.
const PASSABLE: u32 = 0o711;
/// Maximum length of a uid in bytes.
const MAX_UID: usize = 16;

/// Creates a folder and its parents with a mode that lets other users traverse but not list them,
/// independent of the process's umask.
///
/// # Errors
/// mkdir(2), chmod(2).
pub fn make_folder(path: &Path) -> Result<Did, RootError> {
    let at = |error: std::io::Error| RootError::on_path("make the folder", path, &error);
    let opened = |mode: u32| mode & PASSABLE == PASSABLE;
    let did = match fs::metadata(path) {
        Ok(meta) if meta.is_dir() && opened(meta.permissions().mode()) => {
            return Ok(Did::WasThere);
        }
        Ok(meta) if meta.is_dir() => Did::WasThere,
        _ => {
            if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
                make_folder(parent)?;
            }
            match fs::create_dir(path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(at(error));
                }
                _ => Did::Made,
            }
        }
    };
    fs::set_permissions(path, fs::Permissions::from_mode(PASSABLE)).map_err(at)?;
    Ok(did)
}

/// The uid of a VM's owner; `None` if there is no such VM.
///
/// # Errors
/// read(2); a file without a valid uid.
pub fn of(places: &Places, vm: &VmId) -> Result<Option<u32>, RootError> {
    let path = places.owner(vm);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(RootError::on_path("read", &path, &error)),
    };
    let uid = text.get(..text.len().min(MAX_UID)).and_then(|text| text.trim().parse().ok());
    let damaged = || RootError::new(Kind::Internal, format!("`{}` is damaged", path.display()));
    uid.map(Some).ok_or_else(damaged)
}

/// Checks that a VM belongs to this user.
///
/// # Errors
/// `Refused` if it belongs to another user; `NotFound`.
pub fn check(places: &Places, uid: u32, vm: &VmId) -> Result<(), RootError> {
    match of(places, vm)? {
        Some(owner) if owner == uid => Ok(()),
        Some(_) => {
            Err(RootError::new(Kind::Refused, format!("the VM {vm} belongs to another user")))
        }
        None => Err(RootError::new(Kind::NotFound, format!("there is no VM {vm} here"))),
    }
}

/// Checks that this user may undo an operation on a VM: it owns the VM, or the VM no longer exists.
///
/// # Errors
/// `Refused` if the VM belongs to another user.
pub fn check_undo(places: &Places, uid: u32, vm: &VmId) -> Result<(), RootError> {
    match check(places, uid, vm) {
        Err(error) if error.kind == Kind::NotFound => Ok(()),
        other => other,
    }
}

/// Records a user as the owner of a VM.
///
/// # Errors
/// `Refused`: another user owns it, or another VM has the same uid; write(2).
pub fn make(places: &Places, uid: u32, vm: &VmId) -> Result<Did, RootError> {
    match of(places, vm)? {
        Some(owner) if owner == uid => return Ok(Did::WasThere),
        Some(_) => return check(places, uid, vm).map(|()| Did::WasThere),
        None => {}
    }
    make_folder(&places.vms())?;
    refuse_shared_uid(places, vm)?;
    let folder = places.vm(vm);
    make_folder(&folder)?;
    make_folder(&places.logs(vm))?;
    make_folder(&places.shim(vm))?;
    let at = |error: std::io::Error| RootError::on_path("write the owner of", &folder, &error);
    let opened = open_folder(&folder).map_err(at)?;
    // Written last: a folder without it is incomplete.
    let text = format!("{uid}\n");
    write_atomically(opened, "owner", text.as_bytes(), Durability::Synced).map_err(at)?;
    Ok(Did::Made)
}

/// Removes a VM's folder.
///
/// # Errors
/// `Refused`: another user owns the VM; `Busy`: its VMM is running; unlink(2).
pub fn remove(places: &Places, uid: u32, vm: &VmId) -> Result<Did, RootError> {
    check_undo(places, uid, vm)?;
    // The uid of a running VMM must not become another VM's.
    if jail::populated(places, vm)? {
        return Err(RootError::new(Kind::Busy, format!("the VMM of {vm} still runs")));
    }
    let folder = places.vm(vm);
    match fs::remove_dir_all(&folder) {
        Ok(()) => Ok(Did::Removed),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Did::WasAbsent),
        Err(error) => Err(RootError::on_path("remove", &folder, &error)),
    }
}

fn refuse_shared_uid(places: &Places, vm: &VmId) -> Result<(), RootError> {
    let folder = places.vms();
    let entries =
        fs::read_dir(&folder).map_err(|error| RootError::on_path("list", &folder, &error))?;
    for entry in entries.flatten() {
        let other = entry.file_name().to_str().and_then(|name| name.parse::<VmId>().ok());
        if other.is_some_and(|other| other != *vm && other.uid() == vm.uid()) {
            let text = format!("another VM already has the uid {} of {vm}", vm.uid());
            return Err(RootError::new(Kind::Refused, text).with_hint(HostHint::CreateAgain));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn make_folder_sets_the_mode_of_its_own_folders_only() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set(folder.path(), 0o700);
        let (above, below) = (folder.path().join("a"), folder.path().join("a/b"));
        assert_eq!(make_folder(&below).unwrap(), Did::Made);
        assert_eq!((mode(&above), mode(&below)), (0o711, 0o711));
        // State left by a process killed between the two calls.
        set(&below, 0o700);
        assert_eq!(make_folder(&below).unwrap(), Did::WasThere);
        assert_eq!(mode(&below), 0o711);
        assert_eq!(mode(folder.path()), 0o700);
    }

    #[test]
    fn a_vm_belongs_to_its_first_user() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places { state: folder.path().join("s"), ..Places::default() };
        let vm: VmId = "0123456789ab".parse().unwrap();
        assert_eq!(check(&places, 1000, &vm).unwrap_err().kind, Kind::NotFound);
        assert_eq!(make(&places, 1000, &vm).unwrap(), Did::Made);
        assert_eq!(make(&places, 1000, &vm).unwrap(), Did::WasThere);
        assert_eq!(make(&places, 1001, &vm).unwrap_err().kind, Kind::Refused);
        assert_eq!(check(&places, 1001, &vm).unwrap_err().kind, Kind::Refused);
        assert_eq!(remove(&places, 1001, &vm).unwrap_err().kind, Kind::Refused);
        check(&places, 1000, &vm).unwrap();
        // This id differs only in bits that the uid does not contain.
        let twin: VmId = "f123456789ab".parse().unwrap();
        assert_eq!(twin.uid(), vm.uid());
        assert_eq!(make(&places, 1000, &twin).unwrap_err().kind, Kind::Refused);
        assert_eq!(remove(&places, 1000, &vm).unwrap(), Did::Removed);
        assert_eq!(remove(&places, 1000, &vm).unwrap(), Did::WasAbsent);
    }
}
