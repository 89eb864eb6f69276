//! What is stored on the host's disk, and the removal of what nothing uses.

use banger_api::disk::{
    DiskPrune, DiskPruned, DiskUsage, PrunedObject, Stored, StoredKind, StoredRef,
};
use banger_api::images::{ImageView, KernelView};
use banger_api::operation::Subject;
use banger_api::vm::VmSummary;
use banger_api::{ApiError, ErrorCode, Hint};

use crate::engine::Engine;

/// Maximum number of objects in one request.
const OBJECTS: usize = 10_000;
/// Maximum length of an id: that of a file's name.
const ID_BYTES: usize = 255;

impl Engine {
    /// All stored objects, with really allocated bytes.
    ///
    /// # Errors
    /// The stores cannot be read.
    pub async fn disk_usage(&self) -> Result<DiskUsage, ApiError> {
        let mut objects: Vec<Stored> = self.list().await.into_iter().map(of_vm).collect();
        objects.extend(self.images().await?.into_iter().map(of_image));
        objects.extend(self.kernels().await?.into_iter().map(of_kernel));
        objects.extend(self.shared.drivers.images.files().await?);
        let free_bytes = self.shared.drivers.host.capacity().disk_free_bytes;
        Ok(DiskUsage { objects, free_bytes })
    }

    /// Removes objects that nothing uses; continues after errors.
    ///
    /// # Errors
    /// Too many objects, an id that is too long; the stores cannot be read.
    pub async fn prune_disk(&self, prune: DiskPrune) -> Result<DiskPruned, ApiError> {
        if prune.objects.len() > OBJECTS {
            let text = format!("a prune has at most {OBJECTS} objects");
            return Err(ApiError::new(ErrorCode::BadRequest, text));
        }
        if let Some(object) = prune.objects.iter().find(|object| object.id.len() > ID_BYTES) {
            let id = banger_api::excerpt(&object.id);
            let text = format!("the id `{id}` has more than {ID_BYTES} bytes");
            return Err(ApiError::new(ErrorCode::BadRequest, text));
        }
        let mut objects = Vec::new();
        for StoredRef { kind, id } in prune.objects {
            let (freed_bytes, error) = match self.prune_one(kind, &id).await {
                Ok(freed_bytes) => (freed_bytes, None),
                Err(error) => (0, Some(error)),
            };
            objects.push(PrunedObject { kind, id, freed_bytes, error });
        }
        let freed_bytes = objects.iter().map(|object| object.freed_bytes).sum();
        Ok(DiskPruned { objects, freed_bytes })
    }

    /// Adds to an error of a full disk what a prune would free.
    pub async fn with_prune(&self, mut error: ApiError) -> ApiError {
        let known = error.hints.iter().any(|hint| matches!(hint, Hint::Prune { .. }));
        if error.code != ErrorCode::NoSpace || known {
            return error;
        }
        let Ok(usage) = self.disk_usage().await else { return error };
        let [frees_bytes, all_frees_bytes] = [false, true].map(|all| usage.pruned_bytes(all));
        if all_frees_bytes > 0 {
            error.hints.retain(|hint| !matches!(hint, Hint::FreeSpace { path: None }));
        }
        error.with_hint(Hint::Prune { frees_bytes, all_frees_bytes })
    }

    async fn prune_one(&self, kind: StoredKind, id: &str) -> Result<u64, ApiError> {
        match kind {
            StoredKind::Vm => {
                let text = format!("the VM `{}` has data of its own", banger_api::excerpt(id));
                let hint = Hint::text("`banger vm prune` deletes stopped VMs");
                Err(ApiError::new(ErrorCode::InUse, text).with_hint(hint))
            }
            // By id, with all its names.
            StoredKind::Image => Ok(self.delete_image(id).await?.freed_bytes),
            StoredKind::Kernel => Ok(self.delete_kernel(id).await?.freed_bytes),
            StoredKind::Layer | StoredKind::Cache | StoredKind::Log | StoredKind::Unfinished => {
                // No start uses a cached file meanwhile.
                let _exclusive = self.images_in_use.write().await;
                let remove = self.shared.drivers.images.remove_file(kind, id);
                self.recorded("prune", Subject::Host, remove).await
            }
        }
    }
}

fn of_vm(vm: VmSummary) -> Stored {
    let disk = vm.disk.unwrap_or_default();
    Stored {
        kind: StoredKind::Vm,
        id: vm.id.to_string(),
        names: vec![vm.name.to_string()],
        used_bytes: disk.root_used_bytes.saturating_add(disk.work_used_bytes),
        used_by: Vec::new(),
        removable: false,
    }
}

fn of_image(image: ImageView) -> Stored {
    Stored {
        kind: StoredKind::Image,
        id: image.id.to_string(),
        names: image.names,
        used_bytes: image.used_bytes,
        removable: image.used_by.is_empty(),
        used_by: image.used_by,
    }
}

fn of_kernel(kernel: KernelView) -> Stored {
    Stored {
        kind: StoredKind::Kernel,
        id: kernel.id.to_string(),
        names: kernel.names,
        used_bytes: kernel.used_bytes,
        removable: kernel.used_by.is_empty(),
        used_by: kernel.used_by,
    }
}
