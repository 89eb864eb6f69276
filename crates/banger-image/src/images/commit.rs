//! Images of the root disks of stopped VMs, read and written anew as imports are.

use std::fs;

use banger_api::images::{CommittedFrom, TakenName};

use super::convert::Input;
use super::worker::{self, Amendments};
use super::{Image, ImageError, ImageRecord, ImageStore, VmDisk, digest, work_seed};
use crate::fetch::{self, PathContext, Progress};

/// A root disk that becomes an image.
#[derive(Debug, Clone, Copy)]
pub struct Committed<'a> {
    /// Name of the image.
    pub name: &'a str,
    /// Whether the name moves from another image.
    pub taken: TakenName,
    /// The disk of a VM that does not run.
    pub disk: &'a VmDisk,
    /// The VM, and its image.
    pub from: &'a CommittedFrom,
}

impl ImageStore {
    /// Creates an image from the disk of a stopped VM. Identity, caches, logs and histories of the
    /// machine are left out. The configuration of a container image stays that of its image.
    ///
    /// # Errors
    /// A disk that cannot be read; a taken name; no space; cancellation.
    pub fn commit(
        &self,
        committed: Committed<'_>,
        progress: &dyn Progress,
    ) -> Result<Image, ImageError> {
        self.alone(committed.name, progress, || self.make_committed(committed, progress))
    }

    fn make_committed(
        &self,
        committed: Committed<'_>,
        progress: &dyn Progress,
    ) -> Result<String, ImageError> {
        let Committed { name, taken, disk, from } = committed;
        let staging = self.store.stage()?;
        let object = staging.join("object");
        fs::create_dir(&object).at("make the folder", &object)?;
        let (input, amendments) = (Input::Vm(disk), Amendments::Machine);
        let job = worker::Job { input, object: &object, amendments, tools: &self.tools, progress };
        let converted = worker::run(self.conversion, job)?;
        progress.stage("compute the fingerprint");
        let files = vec![digest(&object)?];
        let (fingerprint, id) = fetch::id_of(&files);
        let base = self.resolve(from.base.as_str()).ok();
        let record = ImageRecord {
            id,
            source: format!("commit of the VM {}", from.vm.name),
            provenance: format!(
                "root disk of the VM {}, made from image {}",
                from.vm.id, from.base
            ),
            system: converted.facts.system,
            virtual_bytes: converted.virtual_bytes,
            init: converted.init,
            opencode: converted.opencode,
            packages: converted.facts.packages,
            hidden_by_overlay: converted.hidden_by_overlay,
            checked_for_overlay: true,
            own_kernel: base.as_ref().is_some_and(|base| base.record.own_kernel),
            config: base.and_then(|base| base.record.config),
            signature: None,
            created_at: fetch::now(),
            fingerprint,
            files,
            built: None,
            committed: Some(from.clone()),
            registered: None,
        };
        progress.go_on()?;
        self.check_taken(name, taken, &record.id)?;
        work_seed::record(&object, &record.fingerprint)?;
        self.store.publish(&object, &record, |known| self.is_intact(known))?;
        self.store.move_name(name, &record.id)?;
        Ok(record.id)
    }
}
