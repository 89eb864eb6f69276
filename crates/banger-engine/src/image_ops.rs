//! Images and kernels: operations of their own, and deletions that no VM may stand against.

use std::sync::Arc;

use banger_api::images::{Deleted, ImageView, KernelView, is_ref_name};
use banger_api::operation::{Accepted, stage};
use banger_api::{ApiError, ErrorCode};

use crate::engine::Engine;
use crate::ops::OpProgress;
use crate::plan::BootSet;

/// Something fetched or made in an operation without a VM.
enum Fetch {
    Image(String),
    Kernel(String),
    Import { path: String, name: String },
}

impl Engine {
    /// Fetches an image by a built-in recipe.
    ///
    /// # Errors
    /// A name that is not one.
    pub fn pull_image(&self, name: &str) -> Result<Accepted, ApiError> {
        check_name(name)?;
        self.fetch("pull_image", stage::PULL_IMAGE, Fetch::Image(name.into()))
    }

    /// Fetches a kernel.
    ///
    /// # Errors
    /// A name that is not one.
    pub fn pull_kernel(&self, name: &str) -> Result<Accepted, ApiError> {
        check_name(name)?;
        self.fetch("pull_kernel", stage::PULL_KERNEL, Fetch::Kernel(name.into()))
    }

    /// Makes an image of a file.
    ///
    /// # Errors
    /// A name that is not one, a path that is not absolute.
    pub fn import_image(&self, path: &str, name: &str) -> Result<Accepted, ApiError> {
        check_name(name)?;
        if !path.starts_with('/') {
            let text = format!("`{path}` is not an absolute path");
            return Err(ApiError::new(ErrorCode::BadRequest, text));
        }
        let fetch = Fetch::Import { path: path.into(), name: name.into() };
        self.fetch("import_image", "import_image", fetch)
    }

    fn fetch(&self, kind: &str, stage: &str, what: Fetch) -> Result<Accepted, ApiError> {
        let op = self.shared.new_op(kind);
        self.shared.ops.add(op.clone());
        let operation = Some(op.id.clone());
        let progress = Arc::new(OpProgress::new(op.clone(), stage));
        let images = self.shared.drivers.images.clone();
        tokio::spawn(async move {
            let result = match what {
                Fetch::Image(name) => images.pull_image(&name, progress).await,
                Fetch::Kernel(name) => images.pull_kernel(&name, progress).await,
                Fetch::Import { path, name } => images.import_image(&path, &name, progress).await,
            };
            if let Err(error) = &result {
                tracing::warn!(op = %op.id, error = %error, causes = ?error.causes, "fetch failed");
            }
            op.end(result.map(Some));
        });
        Ok(Accepted { operation, vm: None, warnings: Vec::new() })
    }

    /// Names of the VMs whose boot set has what is looked for.
    fn users(&self, has: impl Fn(&BootSet) -> bool) -> Vec<String> {
        let mut users: Vec<String> = self
            .all()
            .iter()
            .filter(|vm| has(&vm.record.plan.boot))
            .map(|vm| vm.record.plan.name.to_string())
            .collect();
        users.sort();
        users
    }

    /// All images.
    ///
    /// # Errors
    /// The image store cannot be read.
    pub async fn images(&self) -> Result<Vec<ImageView>, ApiError> {
        let mut images = self.shared.drivers.images.images().await?;
        for image in &mut images {
            image.used_by = self.users(|boot| boot.image == image.id);
        }
        Ok(images)
    }

    /// All kernels.
    ///
    /// # Errors
    /// The kernel store cannot be read.
    pub async fn kernels(&self) -> Result<Vec<KernelView>, ApiError> {
        let mut kernels = self.shared.drivers.images.kernels().await?;
        for kernel in &mut kernels {
            kernel.used_by = self.users(|boot| boot.kernel == kernel.id);
        }
        Ok(kernels)
    }

    /// One image by name, id or unique prefix.
    ///
    /// # Errors
    /// Not found, or ambiguous.
    pub async fn image(&self, reference: &str) -> Result<ImageView, ApiError> {
        let images = self.images().await?;
        pick("image", images, reference, |image| (image.id.as_str(), &image.names))
    }

    /// Deletes an image.
    ///
    /// # Errors
    /// Not found, or used by a VM.
    pub async fn delete_image(&self, reference: &str) -> Result<Deleted, ApiError> {
        let _alone = self.images_in_use.write().await;
        let image = self.image(reference).await?;
        unused("image", reference, &image.used_by)?;
        self.shared.drivers.images.delete_image(&image).await
    }

    /// Deletes a kernel.
    ///
    /// # Errors
    /// Not found, or used by a VM.
    pub async fn delete_kernel(&self, reference: &str) -> Result<Deleted, ApiError> {
        let _alone = self.images_in_use.write().await;
        let kernels = self.kernels().await?;
        let names = |kernel: &KernelView| kernel.used_by.clone();
        let kernel = pick("kernel", kernels, reference, |k| (k.id.as_str(), &k.names))?;
        unused("kernel", reference, &names(&kernel))?;
        self.shared.drivers.images.delete_kernel(&kernel).await
    }
}

fn check_name(name: &str) -> Result<(), ApiError> {
    if is_ref_name(name) {
        return Ok(());
    }
    let shown: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    let text = format!("`{shown}` is not a name for an image or kernel");
    Err(ApiError::new(ErrorCode::BadRequest, text)
        .with_hint("use a-z, 0-9, dots, underscores and hyphens, beginning with a letter or digit"))
}

fn unused(what: &str, reference: &str, users: &[String]) -> Result<(), ApiError> {
    if users.is_empty() {
        return Ok(());
    }
    let text = format!("{what} `{reference}` is used by {}", users.join(", "));
    Err(ApiError::new(ErrorCode::InUse, text).with_hint("delete these VMs first"))
}

/// Finds one thing by name, id or unique prefix of the id.
fn pick<T>(
    what: &str,
    all: Vec<T>,
    reference: &str,
    keys: impl Fn(&T) -> (&str, &Vec<String>),
) -> Result<T, ApiError> {
    let exact = |thing: &T| {
        let (id, names) = keys(thing);
        id == reference || names.iter().any(|name| name == reference)
    };
    let prefix = |thing: &T| !reference.is_empty() && keys(thing).0.starts_with(reference);
    let by_name = all.iter().any(exact);
    let mut found: Vec<T> = all
        .into_iter()
        .filter(|thing| if by_name { exact(thing) } else { prefix(thing) })
        .collect();
    let shown: String = reference.chars().take(80).flat_map(char::escape_debug).collect();
    match (found.pop(), found.is_empty()) {
        (Some(thing), true) => Ok(thing),
        (Some(_), false) => {
            let text = format!("`{shown}` could be more than one {what}");
            Err(ApiError::new(ErrorCode::Ambiguous, text).with_hint("use more digits of the id"))
        }
        (None, _) => {
            let text = format!("there is no {what} `{shown}`");
            let hint = format!("`banger {what} list` shows what there is");
            Err(ApiError::new(ErrorCode::NotFound, text).with_hint(hint))
        }
    }
}
