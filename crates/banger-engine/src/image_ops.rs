//! Names and deletion of images and kernels. An object that a VM uses cannot be deleted.

use banger_api::container_ref::{image_name, is_image_reference};
use banger_api::hint::Kind;
use banger_api::images::{Deleted, ImageView, KernelView, TakenName, is_ref_name, spare_name};
use banger_api::operation::Subject;
use banger_api::{ApiError, ErrorCode, Hint, reference};

use crate::drivers::{Progress, Replaced};
use crate::engine::Engine;
use crate::op_book::{InternalOp, OpBook};
use crate::plan::BootSet;

impl Engine {
    /// Checks that a name is valid and, unless it may be replaced, not in use.
    pub(crate) async fn check_name_available(
        &self,
        name: &str,
        taken: TakenName,
    ) -> Result<(), ApiError> {
        check_name(name)?;
        match self.image_named(name).await? {
            Some(owner) if taken == TakenName::Refuse => Err(owner.name_taken(name)),
            _ => Ok(()),
        }
    }

    pub(crate) async fn image_named(&self, name: &str) -> Result<Option<ImageView>, ApiError> {
        let images = self.images().await?;
        Ok(images.into_iter().find(|image| image.names.iter().any(|known| known == name)))
    }

    /// Decides about images that have lost their only name to another one: deletes each, or keeps
    /// it under its other name if VMs use it.
    pub(crate) async fn settle_replaced(&self, progress: &dyn Progress) {
        let _exclusive = self.images_in_use.write().await;
        let drivers = &self.shared.drivers.images;
        let replaced = match drivers.replaced().await {
            Ok(replaced) => replaced,
            Err(error) => return progress.warning(&format!("images that lost a name: {error}")),
        };
        for old in replaced {
            let settled = match self.settle(&old, progress).await {
                Ok(()) => drivers.settled(&old.name).await,
                Err(error) => Err(error),
            };
            if let Err(error) = settled {
                // The next operation on names, or the next daemon, tries again.
                progress.warning(&format!("the image {} before it: {error}", old.image));
            }
        }
    }

    async fn settle(&self, old: &Replaced, progress: &dyn Progress) -> Result<(), ApiError> {
        let spare = spare_name(&old.name, old.image.as_str());
        let image = self.images().await?.into_iter().find(|image| image.id == old.image);
        // It was deleted, or has got another name meanwhile.
        let only_spare = |image: &ImageView| image.names.iter().all(|name| *name == spare);
        let Some(image) = image.filter(only_spare) else { return Ok(()) };
        if image.used_by.is_empty() {
            self.delete_with_kernel(&image).await?;
            progress.note(&format!("deleted the image {} before it", old.image));
            return Ok(());
        }
        let users = image.used_by.join(", ");
        let named = image.names.first().map_or("without a name".into(), |name| format!("`{name}`"));
        progress.note(&format!("the image before it, used by {users}, is {named} now"));
        Ok(())
    }

    /// Adds a name to an image.
    ///
    /// # Errors
    /// Not found; an invalid name, or one that another image has.
    pub async fn tag_image(
        &self,
        reference: &str,
        name: &str,
        taken: TakenName,
    ) -> Result<ImageView, ApiError> {
        check_name(name)?;
        {
            let _exclusive = self.images_in_use.write().await;
            let image = self.image(reference).await?;
            let owner = self.image_named(name).await?.filter(|owner| owner.id != image.id);
            if let Some(owner) = owner.filter(|_| taken == TakenName::Refuse) {
                return Err(owner.name_taken(name));
            }
            let tag = self.shared.drivers.images.tag_image(&image, name);
            self.recorded("tag_image", of_image(reference, &image), tag).await?;
        }
        self.settle_replaced(&LogProgress).await;
        self.image(name).await
    }

    /// Removes a name of an image that has other names; returns the image.
    ///
    /// # Errors
    /// No such name; the last name of an image.
    pub async fn untag_image(&self, name: &str) -> Result<ImageView, ApiError> {
        let name = image_name(name);
        let name = name.as_str();
        let _exclusive = self.images_in_use.write().await;
        let Some(image) = self.image_named(name).await? else {
            let images = self.images().await?;
            let names = images.iter().flat_map(|image| &image.names).map(String::as_str);
            let shown = banger_api::excerpt(name);
            return Err(ApiError::new(ErrorCode::NotFound, format!("no image is named `{shown}`"))
                .with_hint(reference::suggest(Kind::Image, names, name)));
        };
        if image.names.len() == 1 {
            let text = format!("`{name}` is the only name of the image {}", image.id);
            return Err(ApiError::new(ErrorCode::WrongState, text)
                .with_hint(Hint::Delete { what: Kind::Image, name: name.to_owned() })
                .with_hint(Hint::TagImage { image: name.to_owned() }));
        }
        let untag = self.shared.drivers.images.untag_image(name);
        self.recorded("untag_image", of_image(name, &image), untag).await?;
        self.image(image.id.as_str()).await
    }

    /// Names of the VMs whose boot set matches.
    fn users(&self, matches: impl Fn(&BootSet) -> bool) -> Vec<String> {
        let mut users: Vec<String> = self
            .all()
            .iter()
            .filter(|vm| matches(&vm.record.plan.boot))
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
        pick("image", images, &image_name(reference), |image| (image.id.as_str(), &image.names))
    }

    /// Deletes an image. Of several names, only the one that is given is removed.
    ///
    /// # Errors
    /// Not found, or used by a VM.
    pub async fn delete_image(&self, reference: &str) -> Result<Deleted, ApiError> {
        let name = image_name(reference);
        let reference = name.as_str();
        let _exclusive = self.images_in_use.write().await;
        let image = self.image(reference).await?;
        if image.names.len() > 1 && image.names.iter().any(|name| name == reference) {
            let untag = self.shared.drivers.images.untag_image(reference);
            self.recorded("untag_image", of_image(reference, &image), untag).await?;
            let names = image.names.into_iter().filter(|name| name != reference).collect();
            return Ok(Deleted { id: image.id.to_string(), freed_bytes: 0, names });
        }
        check_unused("image", reference, &image.used_by)?;
        let delete = self.delete_with_kernel(&image);
        let freed_bytes =
            self.recorded("delete_image", of_image(reference, &image), delete).await?;
        Ok(Deleted { id: image.id.to_string(), freed_bytes, names: Vec::new() })
    }

    /// Deletes a kernel. Of several names, only the one that is given is removed.
    ///
    /// # Errors
    /// Not found, or used by a VM.
    pub async fn delete_kernel(&self, reference: &str) -> Result<Deleted, ApiError> {
        let _exclusive = self.images_in_use.write().await;
        let kernels = self.kernels().await?;
        let kernel = pick("kernel", kernels, reference, |k| (k.id.as_str(), &k.names))?;
        let subject = Subject::Kernel { name: reference.into(), id: Some(kernel.id.clone()) };
        if kernel.names.len() > 1 && kernel.names.iter().any(|name| name == reference) {
            let untag = self.shared.drivers.images.untag_kernel(reference);
            self.recorded("untag_kernel", subject, untag).await?;
            let names = kernel.names.into_iter().filter(|name| name != reference).collect();
            return Ok(Deleted { id: kernel.id.to_string(), freed_bytes: 0, names });
        }
        check_unused("kernel", reference, &kernel.used_by)?;
        let delete = self.shared.drivers.images.delete_kernel(&kernel);
        self.recorded("delete_kernel", subject, delete).await
    }

    /// Does short work as a recorded operation. An error of the store does not prevent it: deleting
    /// an image frees space on a full disk.
    pub(crate) async fn recorded<T>(
        &self,
        kind: &str,
        subject: Subject,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let book = OpBook { shared: self.shared.clone(), subject };
        let InternalOp { op, unsaved } = book.open_best_effort(kind).await;
        self.shared.crash_point(kind, "begun");
        let result = work.await;
        self.shared.crash_point(kind, "done");
        book.end_with(&op, result.as_ref().map(|_| None).map_err(Clone::clone), unsaved).await;
        result.map_err(|error| error.in_operation(&op.id))
    }
}

fn of_image(reference: &str, image: &ImageView) -> Subject {
    Subject::Image { name: reference.into(), id: Some(image.id.clone()) }
}

/// Checks what a pull is asked for: a recipe, or an image of a registry.
pub(crate) fn check_pulled(name: &str) -> Result<(), ApiError> {
    if is_image_reference(name) {
        return Ok(());
    }
    let text = match name.parse::<banger_api::container_ref::ContainerRef>() {
        Err(bad) => bad.to_string(),
        Ok(_) => return Ok(()),
    };
    Err(ApiError::new(ErrorCode::BadRequest, text))
}

pub(crate) fn check_name(name: &str) -> Result<(), ApiError> {
    if is_ref_name(name) {
        return Ok(());
    }
    let shown = banger_api::excerpt(name);
    let text = format!("`{shown}` is not a name for an image or kernel");
    Err(ApiError::new(ErrorCode::BadRequest, text)
        .with_hint(Hint::FollowNameRule { what: Kind::Image }))
}

/// Logs the progress of work without an operation of its own.
pub(crate) struct LogProgress;

impl Progress for LogProgress {
    fn stage(&self, _name: &str) {}
    fn bytes(&self, _done: u64, _total: Option<u64>) {}
    fn items(&self, _unit: &str, _done: u64, _total: Option<u64>) {}
    fn note(&self, text: &str) {
        tracing::info!("{text}");
    }
    fn warning(&self, text: &str) {
        tracing::warn!("{text}");
    }
    fn cancelled(&self) -> bool {
        false
    }
}

fn check_unused(what: &str, reference: &str, users: &[String]) -> Result<(), ApiError> {
    if users.is_empty() {
        return Ok(());
    }
    let text = format!("{what} `{reference}` is used by {}", users.join(", "));
    Err(ApiError::new(ErrorCode::InUse, text).with_hint(Hint::DeleteUsers))
}

/// Finds an image or kernel by name, id or unique prefix of the id.
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
    let kind = if what == "kernel" { Kind::Kernel } else { Kind::Image };
    let names = all.iter().flat_map(|thing| keys(thing).1).map(String::as_str);
    let suggestion = reference::suggest(kind, names, reference);
    let mut found: Vec<T> = all
        .into_iter()
        .filter(|thing| if by_name { exact(thing) } else { prefix(thing) })
        .collect();
    let shown = banger_api::excerpt(reference);
    match (found.pop(), found.is_empty()) {
        (Some(thing), true) => Ok(thing),
        (Some(_), false) => {
            let text = format!("`{shown}` could be more than one {what}");
            Err(ApiError::new(ErrorCode::Ambiguous, text).with_hint(Hint::NarrowReference))
        }
        (None, _) => {
            let text = format!("there is no {what} `{shown}`");
            Err(ApiError::new(ErrorCode::NotFound, text).with_hint(suggestion))
        }
    }
}
