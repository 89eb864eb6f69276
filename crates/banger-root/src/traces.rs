//! Finds VMs of a daemon that it may have lost: which VMs belong to its state folder, and which
//! objects each has on the host. Changes nothing but the record of that folder.

use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use banger_base::{ByteString, VmId};
use banger_sys::fs::{Durability, open_folder, write_atomically};

use crate::disks::snapshot;
use crate::error::{Kind, RootError};
use crate::places::Places;
use crate::protocol::{Did, Objects};
use crate::{jail, net, owner, run};

/// Maximum length of the path of a state folder in bytes: PATH_MAX.
const MAX_HOME: usize = 4096;
/// Maximum number of VMs in an answer, which must fit into one line.
const MAX_VMS: usize = 10_000;

/// Records the state folder of the daemon that a VM belongs to. The path is only compared with
/// that of other requests.
///
/// # Errors
/// `BadRequest`: not an absolute path, or too long; write(2).
pub fn set_home(places: &Places, vm: &VmId, home: &ByteString) -> Result<Did, RootError> {
    if home.as_bytes().len() > MAX_HOME || !home.as_path().is_absolute() {
        let text = "the state folder is not an absolute path of at most 4096 bytes";
        return Err(RootError::new(Kind::BadRequest, text));
    }
    if read_home(&places.home(vm))?.is_some_and(|recorded| recorded == home.as_bytes()) {
        return Ok(Did::WasThere);
    }
    let folder = places.vm(vm);
    let at = |error: io::Error| RootError::on_path("write the home of", &folder, &error);
    let opened = open_folder(&folder).map_err(at)?;
    write_atomically(opened, "home", home.as_bytes(), Durability::Synced).map_err(at)?;
    Ok(Did::Made)
}

/// `None`: not recorded, as by an earlier version.
fn read_home(path: &Path) -> Result<Option<Vec<u8>>, RootError> {
    let at = |error: io::Error| RootError::on_path("read", path, &error);
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(error)),
    };
    let mut home = Vec::new();
    file.take(MAX_HOME as u64).read_to_end(&mut home).map_err(at)?;
    Ok(Some(home))
}

/// The VMs of a user that belong to this state folder, in order; at most 10,000.
///
/// # Errors
/// opendir(3), read(2).
pub fn vms_of(places: &Places, uid: u32, home: &ByteString) -> Result<Vec<VmId>, RootError> {
    let folder = places.vms();
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RootError::on_path("list", &folder, &error)),
    };
    let mut vms = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let vm = std::str::from_utf8(name.as_bytes()).ok().and_then(|name| name.parse().ok());
        let Some(vm) = vm else { continue };
        if vms.len() < MAX_VMS
            && owner::of(places, &vm)? == Some(uid)
            && read_home(&places.home(&vm))?.is_some_and(|recorded| recorded == home.as_bytes())
        {
            vms.push(vm);
        }
    }
    vms.sort();
    Ok(vms)
}

/// The objects and processes of a VM.
///
/// # Errors
/// ioctl(2), sysfs(5), netlink errors, opendir(3).
pub fn objects(places: &Places, vm: &VmId) -> Result<Objects, RootError> {
    let mut objects = net::objects(places, vm)?;
    let devices = snapshot::all_of(vm)?.into_iter().map(|name| format!("device `{name}`"));
    objects.extend(devices);
    let folder = |path: &Path| format!("folder `{}`", path.display());
    objects.extend(jail::folders(places, vm)?.iter().map(|path| folder(path)));
    let groups = [places.cgroup(vm), places.shim_cgroup(vm)];
    let groups = groups.iter().filter(|path| path.is_dir());
    objects.extend(groups.map(|path| format!("cgroup `{}`", path.display())));
    let own = places.vm(vm);
    objects.extend(own.is_dir().then(|| folder(&own)));
    Ok(Objects { objects, processes: run::processes(places, vm)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_belongs_to_the_state_folder_of_its_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let places = Places { state: path.join("s"), ..Places::default() };
        let vm = |text: &str| text.parse::<VmId>().unwrap();
        let (mine, other, theirs) = (vm("00000000000a"), vm("00000000000b"), vm("00000000000c"));
        let home = |text: &str| ByteString::from(text);
        assert_eq!(vms_of(&places, 1000, &home("/h")).unwrap(), []);
        for (vm, uid, path) in [(&mine, 1000, "/h"), (&other, 1000, "/h2"), (&theirs, 1001, "/h")] {
            owner::make(&places, uid, vm).unwrap();
            assert_eq!(set_home(&places, vm, &home(path)).unwrap(), Did::Made);
            assert_eq!(set_home(&places, vm, &home(path)).unwrap(), Did::WasThere);
        }
        // Of an earlier version, without a record.
        owner::make(&places, 1000, &vm("00000000000d")).unwrap();
        assert_eq!(vms_of(&places, 1000, &home("/h")).unwrap(), std::slice::from_ref(&mine));
        assert_eq!(vms_of(&places, 1000, &home("/h2")).unwrap(), [other]);
        assert_eq!(vms_of(&places, 1001, &home("/h")).unwrap(), [theirs]);
        assert_eq!(vms_of(&places, 1001, &home("/h2")).unwrap(), []);
        for bad in ["", "h", "../h", &format!("/{}", "h".repeat(MAX_HOME))] {
            let error = set_home(&places, &mine, &home(bad)).unwrap_err();
            assert_eq!(error.kind, Kind::BadRequest, "{bad:.20}");
        }
    }

    #[test]
    fn folders_and_groups_of_a_vm_are_its_objects() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let places = Places {
            state: path.join("s"),
            run: path.join("r"),
            cgroups: path.join("c"),
            ..Places::default()
        };
        // An id of no VM on this host.
        let vm: VmId = "fffffffffff0".parse().unwrap();
        owner::make(&places, 0, &vm).unwrap();
        fs::create_dir_all(places.jail("firecracker", &vm)).unwrap();
        fs::create_dir_all(places.shim_cgroup(&vm)).unwrap();
        let found = objects(&places, &vm).unwrap();
        let expected = [
            format!("folder `{}/s/jail/firecracker/{vm}`", path.display()),
            format!("cgroup `{}/c/banger/shim-{vm}`", path.display()),
            format!("folder `{}/s/vms/{vm}`", path.display()),
        ];
        assert_eq!(found, Objects { objects: expected.into(), processes: Vec::new() });
    }
}
