//! Snapshot devices without device-mapper: changed chunks lie in the file of changes at their own
//! place, and which those are is kept here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Mutex;

use async_trait::async_trait;
use banger_api::{ApiError, VmId};
use banger_engine::drivers::{Applied, Undone};
use banger_engine::plan::VmPlan;
use banger_host::storage::SnapshotRoot;

use super::conformance::RootDisk;

const CHUNK: u64 = 4096;

struct Device {
    image: File,
    cow: File,
    bytes: u64,
}

#[derive(Default)]
struct State {
    devices: BTreeMap<String, Device>,
    /// Changed chunks of each file of changes, by its inode.
    changed: BTreeMap<u64, BTreeSet<u64>>,
}

#[derive(Default)]
pub struct Root(Mutex<State>);

impl Root {
    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap().devices.is_empty()
    }
}

#[async_trait]
impl SnapshotRoot for Root {
    async fn attach(
        &self,
        vm: &VmId,
        image: OwnedFd,
        cow: OwnedFd,
        root_bytes: u64,
    ) -> Result<Applied, ApiError> {
        let device = Device { image: image.into(), cow: cow.into(), bytes: root_bytes };
        let room = device.cow.metadata().unwrap().len();
        assert!(room > root_bytes + root_bytes / 256, "room for every chunk and its table");
        assert!(device.image.write_at(&[0], 0).is_err(), "the image is opened for reading");
        let meta = device.cow.metadata().unwrap();
        let mut state = self.0.lock().unwrap();
        if meta.blocks() == 0 {
            // A blank file may have the inode of one that was removed.
            state.changed.remove(&meta.ino());
        }
        match state.devices.insert(vm.to_string(), device) {
            None => Ok(Applied::Created),
            Some(_) => Ok(Applied::AlreadyThere),
        }
    }

    async fn reload(&self, _vm: &VmId) -> Result<Applied, ApiError> {
        Ok(Applied::AlreadyThere)
    }

    async fn detach(&self, vm: &VmId) -> Result<Undone, ApiError> {
        match self.0.lock().unwrap().devices.remove(vm.as_str()) {
            Some(_) => Ok(Undone::Removed),
            None => Ok(Undone::WasAbsent),
        }
    }
}

impl State {
    fn read(&self, vm: &VmPlan, at: u64, length: usize) -> Vec<u8> {
        let device = &self.devices[vm.id.as_str()];
        assert!(at + length as u64 <= device.bytes);
        let inode = device.cow.metadata().unwrap().ino();
        let mut bytes = Vec::new();
        for chunk in at / CHUNK..=(at + length as u64 - 1) / CHUNK {
            let mut piece = vec![0; CHUNK as usize];
            let changed = self.changed.get(&inode).is_some_and(|all| all.contains(&chunk));
            let from = if changed { &device.cow } else { &device.image };
            // Beyond the image there are zeros.
            let _ = from.read_at(&mut piece, chunk * CHUNK).unwrap();
            bytes.extend(piece);
        }
        let begin = (at % CHUNK) as usize;
        bytes[begin..begin + length].to_vec()
    }
}

impl RootDisk for Root {
    fn write(&self, vm: &VmPlan, at: u64, bytes: &[u8]) {
        assert!(at.is_multiple_of(CHUNK) && (bytes.len() as u64).is_multiple_of(CHUNK));
        let mut state = self.0.lock().unwrap();
        let device = &state.devices[vm.id.as_str()];
        device.cow.write_all_at(bytes, at).unwrap();
        device.cow.sync_data().unwrap();
        let inode = device.cow.metadata().unwrap().ino();
        let chunks = at / CHUNK..(at + bytes.len() as u64) / CHUNK;
        state.changed.entry(inode).or_default().extend(chunks);
    }

    fn read(&self, vm: &VmPlan, at: u64, length: usize) -> Vec<u8> {
        self.0.lock().unwrap().read(vm, at, length)
    }
}
