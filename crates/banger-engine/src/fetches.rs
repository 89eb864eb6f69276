//! Operations that fetch or build an image or a kernel.

use std::path::Path;
use std::sync::Arc;

use banger_api::container_ref::image_name;
use banger_api::hint::KernelAdvice;
use banger_api::images::{
    FAST_KERNEL, ImageKernel, ImageRegisterRequest, ImageView, KernelView, Rebuild, TakenName,
};
use banger_api::operation::{Accepted, Subject, stage};
use banger_api::{ApiError, ErrorCode, Hint};
use tracing::Instrument as _;

use crate::cancel;
use crate::drivers::{Archive, GivenKernel, KernelFiles, Registration};
use crate::engine::Engine;
use crate::image_ops::{check_name, check_pulled};
use crate::op_book::OpBook;
use crate::ops::{Op, OpProgress};
use crate::own_kernels::check_kernel_name;
use crate::recipes::{Keep, Making, recipe};
use crate::store::Durability;

/// The error of an operation whose task panicked.
pub(crate) fn failed(panic: &tokio::task::JoinError) -> ApiError {
    ApiError::new(ErrorCode::Internal, "the daemon failed during this operation").caused_by(panic)
}

fn check_absolute(path: &Path) -> Result<(), ApiError> {
    if path.is_absolute() {
        return Ok(());
    }
    let text = format!("`{}` is not an absolute path", path.display());
    Err(ApiError::new(ErrorCode::BadRequest, text))
}

fn given_kernel(kernel: ImageKernel) -> Result<GivenKernel, ApiError> {
    let ImageKernel::Files { path, modules } = kernel else { return Ok(GivenKernel::Contained) };
    let modules = modules.map(|path| path.as_path().to_owned());
    let files = KernelFiles { path: path.as_path().to_owned(), modules };
    check_absolute(&files.path)?;
    files.modules.as_deref().map_or(Ok(()), check_absolute)?;
    Ok(GivenKernel::Files(files))
}

/// The object that an operation fetches or builds.
enum Fetch {
    Image(String, Rebuild),
    Kernel(String),
    BuildKernel(String),
    Import { archive: Archive, name: String, taken: TakenName },
    Register(Registration),
    Promote(Box<ImageView>),
    ImportKernel { files: KernelFiles, name: String, taken: TakenName },
}

impl Fetch {
    fn subject(&self) -> Subject {
        match self {
            Self::Image(name, _)
            | Self::Import { name, .. }
            | Self::Register(Registration { name, .. }) => {
                Subject::Image { name: name.clone(), id: None }
            }
            Self::Promote(image) => {
                let name = image.names.first().map_or(image.id.as_str(), String::as_str);
                Subject::Image { name: name.to_owned(), id: Some(image.id.clone()) }
            }
            Self::Kernel(name) | Self::BuildKernel(name) | Self::ImportKernel { name, .. } => {
                Subject::Kernel { name: name.clone(), id: None }
            }
        }
    }
}

impl Engine {
    /// Builds an image by a built-in recipe, or pulls one from a registry.
    ///
    /// # Errors
    /// An invalid name, or an error of the store.
    pub async fn pull_image(&self, name: &str, rebuild: Rebuild) -> Result<Accepted, ApiError> {
        check_pulled(name)?;
        if let Some(recipe) = recipe(name) {
            let subject = Subject::Image { name: name.to_owned(), id: None };
            let work = move |engine: Arc<Self>, op: Arc<Op>| async move {
                engine.built(&op, Keep::No, Making::Recipe(recipe, rebuild)).await
            };
            return self.in_background("pull_image", subject, work).await;
        }
        let what = Fetch::Image(image_name(name), rebuild);
        self.fetch("pull_image", stage::PULL_IMAGE, what).await
    }

    /// Fetches a kernel.
    ///
    /// # Errors
    /// An invalid name, or an error of the store.
    pub async fn pull_kernel(&self, name: &str) -> Result<Accepted, ApiError> {
        check_name(name)?;
        self.fetch("pull_kernel", stage::PULL_KERNEL, Fetch::Kernel(name.into())).await
    }

    /// Builds a kernel by a recipe.
    ///
    /// # Errors
    /// An unknown recipe, or an error of the store.
    pub async fn build_kernel(&self, name: &str) -> Result<Accepted, ApiError> {
        check_name(name)?;
        if name != FAST_KERNEL {
            let shown = banger_api::excerpt(name);
            let text = format!("there is no recipe that builds a kernel `{shown}`");
            let build = KernelAdvice::Build { recipe: FAST_KERNEL.to_owned() };
            return Err(ApiError::new(ErrorCode::NotFound, text).with_hint(build));
        }
        self.fetch("build_kernel", stage::BUILD_KERNEL, Fetch::BuildKernel(name.into())).await
    }

    /// Imports a kernel from files.
    ///
    /// # Errors
    /// An invalid name, or one that another kernel has; a relative path.
    pub async fn import_kernel(
        &self,
        files: KernelFiles,
        name: &str,
        taken: TakenName,
    ) -> Result<Accepted, ApiError> {
        check_absolute(&files.path)?;
        files.modules.as_deref().map_or(Ok(()), check_absolute)?;
        check_kernel_name(name)?;
        let named = |kernel: &KernelView| kernel.names.iter().any(|known| known == name);
        match self.kernels().await?.into_iter().find(named) {
            Some(owner) if taken == TakenName::Refuse => return Err(owner.name_taken(name)),
            _ => {}
        }
        let fetch = Fetch::ImportKernel { files, name: name.into(), taken };
        self.fetch("import_kernel", "import_kernel", fetch).await
    }

    /// Imports an image from a file.
    ///
    /// # Errors
    /// An invalid name, or one that another image has; a relative path.
    pub async fn import_image(
        &self,
        path: &Path,
        name: &str,
        taken: TakenName,
    ) -> Result<Accepted, ApiError> {
        check_absolute(path)?;
        let origin = format!("file {}", path.display());
        let archive = Archive { path: path.into(), origin, temporary: None };
        self.import_archive(archive, name, taken).await
    }

    /// Imports an image from an archive.
    ///
    /// # Errors
    /// An invalid name, or one that another image has.
    pub async fn import_archive(
        &self,
        archive: Archive,
        name: &str,
        taken: TakenName,
    ) -> Result<Accepted, ApiError> {
        self.check_name_available(name, taken).await?;
        let fetch = Fetch::Import { archive, name: name.into(), taken };
        self.fetch("import_image", "import_image", fetch).await
    }

    /// Makes an image of a file that stays where it is.
    ///
    /// # Errors
    /// An invalid name, or one that another image has; a relative path.
    pub async fn register_image(
        &self,
        request: ImageRegisterRequest,
    ) -> Result<Accepted, ApiError> {
        let rootfs = request.rootfs.as_path().to_owned();
        check_absolute(&rootfs)?;
        let kernel = request.kernel.map(given_kernel).transpose()?;
        let taken = TakenName::replacing(request.replace);
        self.check_name_available(&request.name, taken).await?;
        let fetch = Fetch::Register(Registration { rootfs, name: request.name, taken, kernel });
        self.fetch("register_image", "register_image", fetch).await
    }

    /// Copies the file of a registered image into the store. Without an operation if it is there.
    ///
    /// # Errors
    /// Not found, or ambiguous; an error of the store.
    pub async fn promote_image(&self, reference: &str) -> Result<Accepted, ApiError> {
        let image = self.image(reference).await?;
        if image.registered.is_none() {
            return Ok(Accepted { operation: None, vm: None, warnings: Vec::new() });
        }
        self.fetch("promote_image", "promote_image", Fetch::Promote(Box::new(image))).await
    }

    /// A new file for an archive that is imported after its upload.
    ///
    /// # Errors
    /// An invalid name, or one that another image has; the file cannot be created.
    pub async fn upload(&self, name: &str, taken: TakenName) -> Result<Archive, ApiError> {
        self.check_name_available(name, taken).await?;
        self.shared.drivers.images.upload()
    }

    async fn fetch(&self, kind: &str, stage: &str, what: Fetch) -> Result<Accepted, ApiError> {
        let (subject, stage) = (what.subject(), stage.to_owned());
        let work = move |engine: Arc<Self>, op: Arc<Op>| async move {
            let progress = Arc::new(OpProgress::new(op, &stage));
            engine.carry_out(what, &progress).await
        };
        self.in_background(kind, subject, work).await
    }

    /// Records an operation, and carries out its work in the background; the work returns the id of
    /// what it made.
    pub(crate) async fn in_background<F>(
        &self,
        kind: &str,
        subject: Subject,
        work: impl FnOnce(Arc<Self>, Arc<Op>) -> F + Send + 'static,
    ) -> Result<Accepted, ApiError>
    where
        F: Future<Output = Result<String, ApiError>> + Send + 'static,
    {
        let engine = self.arc().ok_or_else(|| {
            ApiError::new(ErrorCode::DaemonUnavailable, "the daemon is shutting down")
        })?;
        let book = OpBook { shared: self.shared.clone(), subject };
        let op = book.open(kind, Durability::Power).await?;
        let operation = Some(op.id.clone());
        tokio::spawn(async move {
            book.shared.crash_point(&op.kind, "begun");
            // In a separate task, so that the operation ends even if the work panics.
            let work = tokio::spawn(work(engine, op.clone()).instrument(op.span.clone()));
            let result = work.await.unwrap_or_else(|panic| Err(failed(&panic)));
            let result = match result {
                Err(error) if error.code == ErrorCode::Cancelled => Err(cancel::cancelled(&op)),
                other => other,
            };
            book.shared.crash_point(&op.kind, "done");
            book.end(&op, result.map(Some)).await;
        });
        Ok(Accepted { operation, vm: None, warnings: Vec::new() })
    }

    /// Fetches or builds the object; returns its id.
    async fn carry_out(&self, what: Fetch, progress: &Arc<OpProgress>) -> Result<String, ApiError> {
        let images = &self.shared.drivers.images;
        let names_image = matches!(what.subject(), Subject::Image { .. });
        let made = match what {
            Fetch::Image(name, rebuild) => {
                images.pull_image(&name, rebuild, progress.clone()).await
            }
            Fetch::Kernel(name) => images.pull_kernel(&name, progress.clone()).await,
            Fetch::BuildKernel(name) => {
                let log = self.shared.drivers.builds.log(&format!("kernel-{name}"))?;
                let built = images.build_kernel(&name, log.file, progress.clone()).await;
                built.map_err(|error| match error.code {
                    ErrorCode::Internal => error.with_hint(Hint::ReadFile { path: log.path }),
                    _ => error,
                })
            }
            Fetch::ImportKernel { files, name, taken } => {
                images.import_kernel(&files, &name, taken, progress.clone()).await
            }
            Fetch::Register(registration) => {
                images.register_image(registration, progress.clone()).await
            }
            Fetch::Promote(image) => images.promote_image(&image, progress.clone()).await,
            Fetch::Import { archive, name, taken } => {
                images.import_image(&archive, &name, taken, progress.clone()).await
            }
        }?;
        if names_image {
            self.settle_replaced(progress.as_ref()).await;
        }
        Ok(made)
    }
}
