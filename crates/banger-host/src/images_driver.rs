//! Kernels and images of this host as the engine's driver: names in, boot files out.

mod caches;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use banger_api::container_ref::image_name;
use banger_api::disk::{Stored, StoredKind};
use banger_api::images::{Deleted, ImageView, KernelView, Rebuild, TakenName};
use banger_api::operation::stage;
use banger_api::{ApiError, ImageId};
use banger_engine::drivers::{
    Archive, Images, KernelFiles, Progress, Registration, Replaced, WantedKernel,
};
use banger_engine::plan::{BootSet, VmPlan};
use banger_engine::program::ImageStart;

use crate::HostConfig;
use crate::advice;
use crate::available;
use crate::failure::{blocking, on_path};
use crate::image_views::{self as views, id};
use crate::layout::Layout;
use crate::relay::Relay;
use crate::stored_files;
use crate::vmm::BootFiles;
use crate::vmm_access;
use banger_image::fetch::{self, FetchError, Tools};
use banger_image::images::{Image, ImageRecord, ImageStore};
use banger_image::initramfs::Initramfs;
use banger_image::kernels::{self, KernelRecord, KernelStore};
use banger_image::registry;

/// The stores of this host.
pub struct LocalImages {
    pub(crate) kernels: Arc<KernelStore>,
    pub(crate) images: Arc<ImageStore>,
    initramfs: Initramfs,
    agent: PathBuf,
    image_folder: PathBuf,
    kernel_folder: PathBuf,
    layout: Layout,
}

impl LocalImages {
    /// Opens both stores; [`Images::clean`] removes incomplete objects of a crash.
    pub fn open(config: &HostConfig) -> Self {
        let tools = Tools::new(&config.search_path)
            .with_proxy(config.proxy.clone())
            .with_ca(config.ca.clone());
        let layout = &config.layout;
        let registries = registry::Settings {
            proxy: config.proxy.clone(),
            ca: config.ca.clone(),
            ..registry::Settings::default()
        };
        let images = ImageStore::new(layout.images(), tools.clone())
            .converting(config.conversion)
            .with_registries(registries.clone())
            .trusting(config.trust.clone());
        let (trust, cache) = (config.trust.clone(), Some(images.layers().clone()));
        let catalogs = kernels::Catalogs { trust, registries, cache };
        let kernels = KernelStore::new(layout.kernels(), tools).with_catalogs(catalogs);
        Self {
            kernels: Arc::new(kernels),
            images: Arc::new(images),
            initramfs: Initramfs::new(layout.initramfs()),
            agent: config.agent.clone(),
            image_folder: layout.images(),
            kernel_folder: layout.kernels(),
            layout: layout.clone(),
        }
    }

    /// The images.
    pub fn store(&self) -> Arc<ImageStore> {
        self.images.clone()
    }

    /// The files a VM boots from, checked to be whole.
    ///
    /// # Errors
    /// One of them is gone or damaged.
    pub fn boot_files(&self, vm: &VmPlan) -> Result<BootFiles, ApiError> {
        let kernel = self.kernels.resolve(vm.boot.kernel.as_str());
        let kernel = kernel.and_then(|kernel| kernel.check().map(|()| kernel));
        let kernel = kernel.map_err(|error| advice::of_vm(vm, "kernel", &error))?;
        let image = self.images.resolve(vm.boot.image.as_str());
        let image = image.and_then(|image| image.check().map(|()| image));
        let image = image.map_err(|error| advice::of_vm(vm, "image", &error))?;
        let initramfs = self
            .initramfs
            .get(&kernel, &self.agent)
            .map_err(|error| banger_image::advice::fetch(&error))?;
        vmm_access::open_to_vmm(&kernel.vmlinux())?;
        vmm_access::open_to_vmm(&initramfs)?;
        Ok(BootFiles {
            kernel: kernel.vmlinux(),
            initramfs,
            modules: kernel.modules_disk(),
            image: image.root_disk(),
        })
    }

    /// The root file system of a VM's image, whether or not it is there.
    pub fn image_root(&self, vm: &VmPlan) -> PathBuf {
        if let Ok(image) = self.images.resolve(vm.boot.image.as_str()) {
            return image.root_disk();
        }
        self.image_folder.join(vm.boot.image.as_str()).join(banger_image::images::ROOT_DISK)
    }

    /// The disk with the modules of a VM's kernel, whether or not it is there.
    pub fn modules_disk(&self, vm: &VmPlan) -> PathBuf {
        self.kernel_folder.join(vm.boot.kernel.as_str()).join(banger_image::kernels::MODULES)
    }

    async fn fetch_image(
        &self,
        name: &str,
        rebuild: Rebuild,
        progress: Arc<dyn Progress>,
    ) -> Result<Image, ApiError> {
        progress.stage(stage::PULL_IMAGE);
        let (store, name) = (self.images.clone(), name.to_owned());
        blocking(move || {
            store
                .pull(&name, rebuild, &Relay { progress })
                .map_err(|error| banger_image::advice::image(&error))
        })
        .await
    }
}

#[async_trait]
impl Images for LocalImages {
    fn check(&self, image: &str, kernel: WantedKernel<'_>) -> Result<(), ApiError> {
        available::image(&self.images, image)?;
        if kernel.is_own() {
            return Ok(());
        }
        available::kernel(&self.kernels, kernel.name())
    }

    async fn boot_set(
        &self,
        image: &str,
        kernel: WantedKernel<'_>,
        progress: Arc<dyn Progress>,
    ) -> Result<BootSet, ApiError> {
        let found = match self.images.resolve(image) {
            Ok(found) => found,
            Err(FetchError::NotFound { .. }) => {
                available::image(&self.images, image)?;
                self.fetch_image(image, Rebuild::IfOutdated, progress.clone()).await?
            }
            Err(error) => return Err(banger_image::advice::fetch(&error)),
        };
        let own = matches!(kernel, WantedKernel::Default(_)) && found.record.own_kernel;
        let kernel = if own || kernel.is_own() {
            self.own_kernel(&found, progress).await?
        } else {
            self.kernel(kernel.name(), progress).await?
        };
        Ok(BootSet {
            image: id(&found.record.id)?,
            image_name: image_name(image),
            image_bytes: found.record.virtual_bytes,
            kernel: id(&kernel.record.id)?,
            opencode: found.record.opencode,
        })
    }

    async fn image_start(&self, image: &ImageId) -> Result<ImageStart, ApiError> {
        let found = self.images.resolve(image.as_str());
        let record = found.map_err(|error| banger_image::advice::fetch(&error))?.record;
        let init = record.init.map(|init| init.as_str().to_owned());
        Ok(ImageStart { init, config: record.config })
    }

    async fn pull_image(
        &self,
        name: &str,
        rebuild: Rebuild,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError> {
        self.fetch_image(name, rebuild, progress).await.map(|image| image.record.id)
    }

    async fn import_image(
        &self,
        archive: &Archive,
        name: &str,
        taken: TakenName,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError> {
        let (store, name) = (self.images.clone(), name.to_owned());
        let (path, origin) = (archive.path.clone(), archive.origin.clone());
        progress.stage("import_image");
        blocking(move || {
            let imported = store.import(&path, &origin, &name, taken, &Relay { progress });
            imported
                .map(|image| image.record.id)
                .map_err(|error| banger_image::advice::image(&error))
        })
        .await
    }

    async fn register_image(
        &self,
        registration: Registration,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError> {
        self.register(registration, progress).await
    }

    async fn promote_image(
        &self,
        image: &ImageView,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError> {
        let (store, id) = (self.images.clone(), image.id.to_string());
        progress.stage("promote_image");
        blocking(move || {
            let promoted = store.promote(&id, &Relay { progress });
            promoted
                .map(|image| image.record.id)
                .map_err(|error| banger_image::advice::image(&error))
        })
        .await
    }

    fn upload(&self) -> Result<Archive, ApiError> {
        let staging = self.images.stage().map_err(|error| banger_image::advice::fetch(&error))?;
        let path = staging.join("archive");
        let made = std::fs::File::create_new(&path);
        made.map_err(|error| on_path("create", &path, &error))?;
        let origin = "standard input".to_owned();
        Ok(Archive { path, origin, temporary: Some(Box::new(staging)) })
    }

    async fn tag_image(&self, image: &ImageView, name: &str) -> Result<(), ApiError> {
        let (store, id, name) = (self.images.clone(), image.id.to_string(), name.to_owned());
        blocking(move || store.tag(&id, &name).map_err(|error| banger_image::advice::fetch(&error)))
            .await
    }

    async fn untag_image(&self, name: &str) -> Result<(), ApiError> {
        let (store, name) = (self.images.clone(), name.to_owned());
        blocking(move || store.untag(&name).map_err(|error| banger_image::advice::fetch(&error)))
            .await
    }

    async fn untag_kernel(&self, name: &str) -> Result<(), ApiError> {
        let (store, name) = (self.kernels.clone(), name.to_owned());
        blocking(move || store.untag(&name).map_err(|error| banger_image::advice::fetch(&error)))
            .await
    }

    async fn replaced(&self) -> Result<Vec<Replaced>, ApiError> {
        let store = self.images.clone();
        let moved =
            blocking(move || store.replaced().map_err(|error| banger_image::advice::fetch(&error)));
        let moved = moved.await?.into_iter();
        moved.map(|(name, old)| Ok(Replaced { name, image: id(&old)? })).collect()
    }

    async fn settled(&self, name: &str) -> Result<(), ApiError> {
        let (store, name) = (self.images.clone(), name.to_owned());
        blocking(move || store.settled(&name).map_err(|error| banger_image::advice::fetch(&error)))
            .await
    }

    async fn clean(&self) -> Result<u64, ApiError> {
        let (kernels, images) = (self.kernels.clone(), self.images.clone());
        blocking(move || {
            // Cleans both, even if the first fails.
            let cleaned = [kernels.clean_staging(), images.clean_staging()];
            let freed = cleaned.into_iter().sum::<Result<u64, FetchError>>();
            freed.map_err(|error| banger_image::advice::fetch(&error))
        })
        .await
    }

    async fn pull_kernel(&self, name: &str, p: Arc<dyn Progress>) -> Result<String, ApiError> {
        self.fetch_kernel(name, p).await.map(|kernel| kernel.record.id)
    }

    async fn build_kernel(
        &self,
        name: &str,
        log: Box<dyn std::io::Write + Send>,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError> {
        self.built_kernel(name, log, progress).await.map(|kernel| kernel.record.id)
    }

    async fn import_kernel(
        &self,
        files: &KernelFiles,
        name: &str,
        taken: TakenName,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError> {
        let (store, name, files) = (self.kernels.clone(), name.to_owned(), files.clone());
        progress.stage("import_kernel");
        blocking(move || {
            let given =
                kernels::KernelFiles { file: &files.path, modules: files.modules.as_deref() };
            let imported = store.import(given, &name, taken, &Relay { progress });
            imported
                .map(|kernel| kernel.record.id)
                .map_err(|error| banger_image::advice::kernel(&error))
        })
        .await
    }

    async fn images(&self) -> Result<Vec<ImageView>, ApiError> {
        let listing = self.images.list();
        for broken in &listing.broken {
            tracing::warn!(id = broken.id, error = %broken.error, "image");
        }
        let view = |(record, names): (ImageRecord, Vec<String>)| {
            let used_bytes = fetch::used_bytes(&self.image_folder.join(&record.id));
            views::image(record, names, used_bytes)
        };
        listing.objects.into_iter().map(view).collect()
    }

    async fn packages(&self, image: &ImageView) -> Result<Vec<String>, ApiError> {
        let (store, id) = (self.images.clone(), image.id.to_string());
        blocking(move || store.packages(&id).map_err(|error| banger_image::advice::image(&error)))
            .await
    }

    async fn kernels(&self) -> Result<Vec<KernelView>, ApiError> {
        let listing = self.kernels.list();
        for broken in &listing.broken {
            tracing::warn!(id = broken.id, error = %broken.error, "kernel");
        }
        let view = |(record, names): (KernelRecord, Vec<String>)| {
            let used_bytes =
                self.kernels.resolve(&record.id).map_or(0, |kernel| kernel.used_bytes());
            views::kernel(record, names, used_bytes)
        };
        listing.objects.into_iter().map(view).collect()
    }

    async fn files(&self) -> Result<Vec<Stored>, ApiError> {
        let (layout, used) = (self.layout.clone(), self.used_caches()?);
        let layers = self.images.layers().clone();
        blocking(move || stored_files::list(&layout, &layers, &used)).await
    }

    async fn remove_file(&self, kind: StoredKind, name: &str) -> Result<u64, ApiError> {
        if kind == StoredKind::Unfinished {
            return self.clean().await;
        }
        let (layout, used, name) = (self.layout.clone(), self.used_caches()?, name.to_owned());
        let layers = self.images.layers().clone();
        blocking(move || stored_files::remove((&layout, &layers), &used, kind, &name)).await
    }

    async fn delete_image(&self, image: &ImageView) -> Result<Deleted, ApiError> {
        let (store, wanted) = (self.images.clone(), image.id.to_string());
        let deleted = blocking(move || {
            store.delete(&wanted, &[]).map_err(|error| banger_image::advice::fetch(&error))
        });
        let deleted = deleted.await?;
        let (id, freed_bytes) = (deleted.id, deleted.freed_bytes);
        Ok(Deleted { id, freed_bytes, names: Vec::new() })
    }

    async fn delete_kernel(&self, kernel: &KernelView) -> Result<Deleted, ApiError> {
        let (store, wanted) = (self.kernels.clone(), kernel.id.to_string());
        let deleted = blocking(move || {
            store.delete(&wanted, &[]).map_err(|error| banger_image::advice::fetch(&error))
        });
        let deleted = deleted.await?;
        let (id, freed_bytes) = (deleted.id, deleted.freed_bytes);
        Ok(Deleted { id, freed_bytes, names: Vec::new() })
    }
}
