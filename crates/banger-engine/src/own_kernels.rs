//! Kernels that images contain: a VM boots one by the name [`OWN_KERNEL`], and they are deleted
//! with their images.

use std::collections::BTreeSet;

use banger_api::images::{ImageView, KernelView, OWN_KERNEL, is_own_kernel_name, own_kernel_name};
use banger_api::vm::{VmAction, VmState};
use banger_api::{ApiError, ErrorCode, Hint};

use crate::drivers::WantedKernel;
use crate::engine::Engine;
use crate::image_ops::check_name;
use crate::ops::OpProgress;
use crate::record::VmRecord;
use crate::runner::Worker;
use crate::store::Durability;

/// Checks the name of a new kernel: names that stand for the kernels of images are not free.
///
/// # Errors
/// `BadRequest`.
pub(crate) fn check_kernel_name(name: &str) -> Result<(), ApiError> {
    check_name(name)?;
    if is_own_kernel_name(name) {
        let text = format!("`{name}` stands for the kernel of an image (`--kernel {OWN_KERNEL}`)");
        return Err(ApiError::new(ErrorCode::BadRequest, text).with_hint(Hint::ChooseAnotherName));
    }
    Ok(())
}

impl Engine {
    /// Deletes an image, and the kernel that was unpacked from it unless VMs or other names use
    /// it; returns the freed bytes. The caller holds the write lock of `images_in_use`.
    pub(crate) async fn delete_with_kernel(&self, image: &ImageView) -> Result<u64, ApiError> {
        let freed_bytes = self.shared.drivers.images.delete_image(image).await?.freed_bytes;
        match self.delete_own_kernel(image).await {
            Ok(of_kernel) => Ok(freed_bytes + of_kernel),
            Err(error) => {
                // A prune of kernels deletes it.
                tracing::warn!(image = %image.id, error = %error, "the kernel of an image is left");
                Ok(freed_bytes)
            }
        }
    }

    async fn delete_own_kernel(&self, image: &ImageView) -> Result<u64, ApiError> {
        let drivers = &self.shared.drivers.images;
        let name = own_kernel_name(image.id.as_str());
        let named = |kernel: &KernelView| kernel.names.contains(&name);
        match self.kernels().await?.into_iter().find(named) {
            Some(kernel) if kernel.names.len() > 1 => {
                drivers.untag_kernel(&name).await?;
                Ok(0)
            }
            Some(kernel) if kernel.used_by.is_empty() => {
                Ok(drivers.delete_kernel(&kernel).await?.freed_bytes)
            }
            _ => Ok(0),
        }
    }
}

impl Engine {
    /// Deletes the kernels of images that are not there, unless VMs use them: a registration keeps
    /// the kernel before the image, and may be interrupted between.
    ///
    /// # Errors
    /// An error of the store.
    pub(crate) async fn delete_kernels_without_images(&self) -> Result<(), ApiError> {
        let _in_use = self.shared.images_in_use.write().await;
        let images = self.images().await?;
        let owned: BTreeSet<String> =
            images.iter().map(|image| own_kernel_name(image.id.as_str())).collect();
        for kernel in self.kernels().await? {
            let (lost, kept): (Vec<&String>, Vec<&String>) = kernel
                .names
                .iter()
                .partition(|name| is_own_kernel_name(name) && !owned.contains(name.as_str()));
            if lost.is_empty() {
                continue;
            }
            if !kept.is_empty() {
                for name in lost {
                    self.shared.drivers.images.untag_kernel(name).await?;
                }
            } else if kernel.used_by.is_empty() {
                self.shared.drivers.images.delete_kernel(&kernel).await?;
            }
        }
        Ok(())
    }
}

impl Worker {
    /// Changes the kernel of a stopped VM.
    ///
    /// # Errors
    /// The VM is not stopped; the kernel is not there and cannot be fetched.
    pub(crate) async fn set_kernel(&mut self, kernel: &str) -> Result<(), ApiError> {
        let name = self.record.plan.name.clone();
        if !matches!(self.record.state, VmState::Stopped) {
            let text = format!("cannot set `{name}`: its kernel changes only while it is stopped");
            return Err(ApiError::new(ErrorCode::WrongState, text)
                .with_hint(Hint::ask(&name, VmAction::STOP)));
        }
        let images = self.shared.drivers.images.clone();
        let in_use = self.shared.images_in_use.clone();
        let wanted = WantedKernel::Named(kernel);
        let image = self.record.plan.boot.image.to_string();
        images.check(&image, wanted)?;
        let progress = std::sync::Arc::new(OpProgress::new(self.op.clone(), "set"));
        images.boot_set(&image, wanted, progress.clone()).await?;
        // Looked up again under the lock that prevents its deletion until it is on record.
        let _in_use = in_use.read().await;
        let boot = images.boot_set(&image, wanted, progress).await?;
        let replace = |record: &mut VmRecord| {
            record.plan.boot.kernel = boot.kernel.clone();
            Ok(())
        };
        self.decide(Durability::Process, replace).await
    }
}
