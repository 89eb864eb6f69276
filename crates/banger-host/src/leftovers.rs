//! The objects of VMs on this host, found without the database: the VM's folder and, with the
//! helper, the objects that root owns.
//!
//! Only objects of this daemon's state folder are found: the folders in it, and the VMs that the
//! helper has recorded for it. Objects of another daemon on the host are never touched.

use std::io;
use std::path::Path;
use std::time::Duration;

use banger_api::doctor::Leftover;
use banger_api::{ApiError, ByteString, VmId};
use banger_base::ProcRef;
use banger_root::protocol::{Objects, Request};
use banger_shim::record;
use banger_sys::proc;

use crate::HostConfig;
use crate::capabilities::ports::found;
use crate::failure::{blocking, on_path};
use crate::gate;
use crate::layout::Layout;

/// Files in the folder of a VM that are no disks. All others may contain data of the user.
const NO_DISKS: [&str; 4] = ["run", "shim", "logs", "ssh_host_ed25519_key"];

/// Time limit for a forwarding process to end after SIGTERM, which it does not handle.
const FORWARDER_END: Duration = Duration::from_secs(1);

/// The state folder as the helper records it.
pub fn home(layout: &Layout) -> ByteString {
    let state = &layout.state;
    // Two paths of one folder are the same home.
    state.canonicalize().unwrap_or_else(|_| state.clone()).into()
}

/// Names of the folders of VMs, and ids of the VMs that the helper knows.
///
/// # Errors
/// opendir(3); the helper's.
pub async fn vm_ids(config: &HostConfig) -> Result<Vec<String>, ApiError> {
    let folder = config.layout.vms();
    let mut ids = blocking(move || folders(&folder)).await?;
    let of_helper = config.helper.vms_of(home(&config.layout)).await?;
    ids.extend(of_helper.iter().map(|vm| vm.as_str().to_owned()));
    ids.extend(forwarders(config).await?.into_iter().map(|(vm, _)| vm.as_str().to_owned()));
    Ok(ids)
}

async fn forwarders(config: &HostConfig) -> Result<Vec<(VmId, ProcRef)>, ApiError> {
    let home = home(&config.layout);
    blocking(move || Ok(found::all(&home))).await
}

fn folders(folder: &Path) -> Result<Vec<String>, ApiError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(on_path("list", folder, &error)),
    };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// The objects of a VM.
///
/// # Errors
/// opendir(3); the helper's.
pub async fn objects(config: &HostConfig, id: &str) -> Result<Leftover, ApiError> {
    let folder = config.layout.vms().join(id);
    let mut leftover = in_folder(id.to_owned(), &folder)?;
    let forwarders = forwarders(config).await?;
    let of_this = forwarders.iter().filter(|(vm, _)| vm.as_str() == id);
    leftover.objects.extend(
        of_this
            .map(|(_, process)| format!("process {} that forwards published ports", process.pid)),
    );
    match id.parse() {
        Ok(vm) => Ok(with_helper(leftover, config.helper.objects(&vm).await?)),
        Err(_) => Ok(leftover),
    }
}

fn with_helper(mut leftover: Leftover, of_helper: Objects) -> Leftover {
    leftover.objects.extend(of_helper.objects);
    leftover.processes.extend(of_helper.processes);
    leftover
}

fn in_folder(id: String, folder: &Path) -> Result<Leftover, ApiError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Leftover { id, ..Leftover::default() });
        }
        Err(error) => return Err(on_path("list", folder, &error)),
    };
    let other = |name: &std::ffi::OsString| NO_DISKS.iter().all(|known| name != known);
    let names = entries.flatten().map(|entry| entry.file_name()).filter(other);
    let mut disks: Vec<String> =
        names.map(|name| folder.join(name).display().to_string()).collect();
    disks.sort();
    let shown = folder.display().to_string();
    Ok(Leftover {
        id,
        objects: vec![format!("folder `{shown}`")],
        folder: Some(shown),
        disks,
        processes: running(folder),
    })
}

fn running(folder: &Path) -> Vec<u32> {
    let Some(state) = record::state(&folder.join("shim")) else { return Vec::new() };
    let all = state.companion.into_iter().chain([state.vmm]);
    all.filter(|process| proc::is_alive(*process)).map(|process| process.pid).collect()
}

/// Removes the objects of a VM that does not run and has no disks, in the order of a delete.
///
/// # Errors
/// Those of the helper; unlink(2).
pub async fn remove(config: &HostConfig, vm: &VmId) -> Result<(), ApiError> {
    for (_, process) in forwarders(config).await?.into_iter().filter(|(of, _)| of == vm) {
        gate::end(process, FORWARDER_END).await?;
    }
    let helper = &config.helper;
    if !helper.objects(vm).await?.objects.is_empty() {
        for request in [
            Request::JailClear { vm: vm.clone() },
            Request::NetDetach { vm: vm.clone() },
            Request::SnapshotDetach { vm: vm.clone() },
            Request::Remove { vm: vm.clone() },
        ] {
            helper.remove(request).await?;
        }
    }
    let folder = config.layout.vm(vm);
    blocking(move || match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(on_path("remove", &folder, &error))
        }
        Ok(()) | Err(_) => Ok(()),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_found_with_their_disks_and_processes() {
        let state = tempfile::tempdir().unwrap();
        let vms = state.path().join("vms");
        assert_eq!(folders(&vms).unwrap(), Vec::<String>::new());
        for id in ["aaaaaaaaaaaa", "bbbbbbbbbbbb"] {
            for name in ["shim", "run", "logs"] {
                std::fs::create_dir_all(vms.join(id).join(name)).unwrap();
            }
        }
        let pid = std::process::id();
        let start_time = proc::start_time(pid).unwrap();
        let text =
            format!("{{\"companion\":null,\"vmm\":{{\"pid\":{pid},\"start_time\":{start_time}}}}}");
        std::fs::write(vms.join("bbbbbbbbbbbb/shim/shim.json"), text).unwrap();
        std::fs::write(vms.join("bbbbbbbbbbbb/work.ext4"), "").unwrap();
        let mut found = folders(&vms).unwrap();
        found.sort();
        assert_eq!(found, ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]);
        let of = |id: &str| in_folder(id.to_owned(), &vms.join(id)).unwrap();
        let idle = of("aaaaaaaaaaaa");
        assert_eq!(idle.objects, [format!("folder `{}`", vms.join("aaaaaaaaaaaa").display())]);
        assert_eq!((idle.disks.len(), idle.processes.len()), (0, 0));
        let busy = of("bbbbbbbbbbbb");
        assert_eq!(busy.processes, [pid]);
        assert_eq!(busy.disks, [vms.join("bbbbbbbbbbbb/work.ext4").display().to_string()]);
        assert_eq!(of("cccccccccccc").objects, Vec::<String>::new());
    }
}
