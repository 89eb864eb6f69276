//! Who a VM belongs to: the user that made it here first.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use banger_base::VmId;
use banger_sys::fs::{Durability, open_folder, write_atomically};

use crate::error::{Kind, RootError};
use crate::jail;
use crate::places::Places;
use crate::words::Did;

/// Mode of a folder that others may pass through.
const PASSABLE: u32 = 0o711;
/// Longest uid.
const MAX_UID: usize = 16;

/// Makes a folder, and those above it, that others may pass through but not look into: also where
/// this process's umask would forbid it, as a daemon's that is root does.
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

/// The owner of a VM; nothing where there is no such VM.
///
/// # Errors
/// read(2), or a file that holds no uid.
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
/// It does not, or there is none.
pub fn check(places: &Places, uid: u32, vm: &VmId) -> Result<(), RootError> {
    match of(places, vm)? {
        Some(owner) if owner == uid => Ok(()),
        Some(_) => {
            Err(RootError::new(Kind::Refused, format!("the VM {vm} belongs to another user")))
        }
        None => Err(RootError::new(Kind::NotFound, format!("there is no VM {vm} here"))),
    }
}

/// Checks that this user may take something back that belongs to a VM: its own, or one that is not
/// there any more.
///
/// # Errors
/// It belongs to another user.
pub fn check_undo(places: &Places, uid: u32, vm: &VmId) -> Result<(), RootError> {
    match check(places, uid, vm) {
        Err(error) if error.kind == Kind::NotFound => Ok(()),
        other => other,
    }
}

/// Gives a VM to a user.
///
/// # Errors
/// It is another user's, or another VM's processes run as the uid that this one would have.
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
    // Last: a folder without it is one whose making was interrupted.
    let text = format!("{uid}\n");
    write_atomically(opened, "owner", text.as_bytes(), Durability::Synced).map_err(at)?;
    Ok(Did::Made)
}

/// Forgets a VM.
///
/// # Errors
/// It is another user's, or cannot be removed.
pub fn remove(places: &Places, uid: u32, vm: &VmId) -> Result<Did, RootError> {
    check_undo(places, uid, vm)?;
    // Its uid would be another's.
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
            let text = format!("another VM runs as the uid {} that {vm} would have", vm.uid());
            return Err(RootError::new(Kind::Refused, text).with_hint("create the VM again"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_pass_through_our_folders_and_no_other_changes() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set(folder.path(), 0o700);
        let (above, below) = (folder.path().join("a"), folder.path().join("a/b"));
        assert_eq!(make_folder(&below).unwrap(), Did::Made);
        assert_eq!((mode(&above), mode(&below)), (0o711, 0o711));
        // As whoever was killed between the two calls left it.
        set(&below, 0o700);
        assert_eq!(make_folder(&below).unwrap(), Did::WasThere);
        assert_eq!(mode(&below), 0o711);
        assert_eq!(mode(folder.path()), 0o700);
    }

    #[test]
    fn a_vm_is_the_first_users() {
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
        // Differs only above the bits that the uid is made of.
        let twin: VmId = "f123456789ab".parse().unwrap();
        assert_eq!(twin.uid(), vm.uid());
        assert_eq!(make(&places, 1000, &twin).unwrap_err().kind, Kind::Refused);
        assert_eq!(remove(&places, 1000, &vm).unwrap(), Did::Removed);
        assert_eq!(remove(&places, 1000, &vm).unwrap(), Did::WasAbsent);
    }
}
