//! Simulated images and kernels: the default ones can be fetched.

use std::sync::Arc;

use async_trait::async_trait;
use banger_api::container_ref::{ContainerRef, image_name};
use banger_api::disk::{Stored, StoredKind};
use banger_api::hint::{Hint, ImageAdvice};
use banger_api::ids::ImageId;
use banger_api::images::{
    DEFAULT_IMAGE, DEFAULT_KERNEL, Deleted, ImageView, KernelView, Rebuild, TakenName,
    own_kernel_name,
};
use banger_api::operation::stage;
use banger_api::{ApiError, ErrorCode};

use super::world::When;
use super::{Sim, containers};
use crate::drivers::{
    Archive, Images, KernelFiles, Progress, Registration, Replaced, WantedKernel,
};
use crate::plan::BootSet;
use crate::program::ImageStart;

pub(super) const MIB: u64 = 1 << 20;
/// The simulated registries have every image but those of this name.
const MISSING: &str = "/nope";
/// Images of registries with this name are too large for the simulated disk.
const TOO_LARGE: &str = "/too-large";
/// Images with this in their name have opencode.
const WITH_OPENCODE: &str = "debian-dev";
/// Stages of imports.
const IMPORT: &str = "import_image";
const IMPORT_KERNEL: &str = "import_kernel";

pub(super) fn id_of(name: &str) -> String {
    // FNV-1a.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// Prefix of the keys of moved names, with the ids of the images that had them before.
pub(super) const REPLACED: &str = "replaced:";

impl Sim {
    async fn fetch(
        &self,
        key: &str,
        name: &str,
        stage: &str,
        progress: &dyn Progress,
    ) -> Result<String, ApiError> {
        let fetched = self.inner().world.fetched.get(key).cloned();
        let other = |id: &String| [IMPORT, IMPORT_KERNEL].contains(&stage) && *id != id_of(name);
        if let Some(id) = fetched.filter(|id| !other(id)) {
            return Ok(id);
        }
        progress.stage(stage);
        self.try_effect("fetch", When::Before)?;
        let file = self.begin(key);
        let id = id_of(name);
        let received = self.receive(key, progress).await;
        let published = received.and_then(|()| {
            self.try_effect("fetch", When::After)?;
            self.publish(key, &id);
            Ok(id)
        });
        self.finished(&file);
        published
    }

    fn untag(&self, key: &str) -> Result<(), ApiError> {
        self.try_effect("untag", When::Before)?;
        let mut inner = self.inner();
        inner.world.fetched.remove(key);
        (self.sink)(&inner.world, &[]);
        Ok(())
    }

    fn delete(&self, what: &str, names: &[String], id: &str) -> Result<Deleted, ApiError> {
        self.try_effect("delete", When::Before)?;
        let mut inner = self.inner();
        for name in names {
            inner.world.fetched.remove(&format!("{what}:{name}"));
        }
        (self.sink)(&inner.world, &[]);
        drop(inner);
        self.try_effect("delete", When::After)?;
        Ok(Deleted { id: id.into(), freed_bytes: 64 * MIB, names: Vec::new() })
    }
}

#[async_trait]
impl Images for Sim {
    fn check(&self, image: &str, kernel: WantedKernel<'_>) -> Result<(), ApiError> {
        self.known("image", image, DEFAULT_IMAGE)?;
        if kernel.is_own() {
            return Ok(());
        }
        self.known("kernel", kernel.name(), DEFAULT_KERNEL)
    }

    async fn boot_set(
        &self,
        image: &str,
        kernel: WantedKernel<'_>,
        progress: Arc<dyn Progress>,
    ) -> Result<BootSet, ApiError> {
        self.known("image", image, DEFAULT_IMAGE)?;
        let image_id =
            self.pull_image(&image_name(image), Rebuild::IfOutdated, progress.clone()).await?;
        let name = own_kernel_name(&image_id);
        // An image with a kernel of its own boots it by default.
        let given = || self.named("kernel").iter().any(|(known, _)| *known == name);
        let own = kernel.is_own() || matches!(kernel, WantedKernel::Default(_)) && given();
        let kernel_id = if own {
            self.fetch(&format!("kernel:{name}"), &name, stage::OWN_KERNEL, progress.as_ref())
                .await?
        } else {
            self.pull_kernel(kernel.name(), progress).await?
        };
        let bad = |error: banger_api::ids::BadId| {
            ApiError::new(ErrorCode::Internal, "a simulated id").caused_by(&error)
        };
        Ok(BootSet {
            image: image_id.parse().map_err(bad)?,
            image_name: image_name(image),
            image_bytes: 512 * MIB,
            kernel: kernel_id.parse().map_err(bad)?,
            opencode: image_name(image).contains(WITH_OPENCODE),
        })
    }

    async fn image_start(&self, image: &ImageId) -> Result<ImageStart, ApiError> {
        let view = self.images().await?.into_iter().find(|view| view.id == *image);
        let view = view.ok_or_else(|| {
            ApiError::new(ErrorCode::NotFound, format!("there is no image `{image}`"))
        })?;
        Ok(ImageStart { init: view.init, config: view.config })
    }

    async fn pull_image(
        &self,
        name: &str,
        _rebuild: Rebuild,
        p: Arc<dyn Progress>,
    ) -> Result<String, ApiError> {
        if self.named("image").iter().any(|(_, id)| id == name) {
            return Ok(name.to_owned());
        }
        // A bare name is a recipe's, that of an image that is here, or one of the default registry.
        let here = self.known("image", name, DEFAULT_IMAGE).is_ok();
        let wanted = name.parse::<ContainerRef>().ok();
        let wanted = wanted.filter(|_| !here || ContainerRef::is_explicit(name));
        if let Some(wanted) =
            wanted.as_ref().filter(|wanted| wanted.repository().ends_with(MISSING))
        {
            let text = format!("the registry {} has no image `{wanted}`", wanted.host());
            return Err(
                ApiError::new(ErrorCode::NotFound, text).with_hint(ImageAdvice::CheckReference)
            );
        }
        let Some(wanted) = wanted else {
            return self.fetch(&format!("image:{name}"), name, stage::PULL_IMAGE, p.as_ref()).await;
        };
        if wanted.repository().ends_with(TOO_LARGE) {
            let text = format!("not enough space for `{wanted}`: 100 GiB free, 4 TiB needed");
            return Err(
                ApiError::new(ErrorCode::NoSpace, text).with_hint(Hint::FreeSpace { path: None })
            );
        }
        let name = wanted.to_string();
        let id = self.fetch(&format!("image:{name}"), &name, stage::PULL_IMAGE, p.as_ref()).await?;
        self.keep_layer(&id);
        Ok(id)
    }

    async fn import_image(
        &self,
        archive: &Archive,
        name: &str,
        _taken: TakenName,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError> {
        // Another archive is another image.
        let (key, origin) = (format!("image:{name}"), archive.path.to_string_lossy());
        self.fetch(&key, &origin, IMPORT, progress.as_ref()).await
    }

    async fn register_image(
        &self,
        registration: Registration,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError> {
        self.try_effect("register", When::Before)?;
        let key = format!("image:{}", registration.name);
        let origin = registration.rootfs.to_string_lossy().into_owned();
        let id = id_of(&origin);
        let file = self.begin(&key);
        let received = self.receive(&key, progress.as_ref()).await;
        let published = received.and_then(|()| {
            self.try_effect("register", When::After)?;
            if registration.kernel.is_some() {
                let kernel = own_kernel_name(&id);
                self.publish(&format!("kernel:{kernel}"), &id_of(&kernel));
            }
            self.note_registered(&id, origin);
            self.publish(&key, &id);
            Ok(id)
        });
        self.finished(&file);
        published
    }

    async fn promote_image(
        &self,
        image: &ImageView,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError> {
        self.try_effect("promote", When::Before)?;
        let key = format!("image:{}", image.names.first().map_or("", String::as_str));
        let file = self.begin(&key);
        let received = self.receive(&key, progress.as_ref()).await;
        self.finished(&file);
        received?;
        self.forget_registered(image.id.as_str());
        self.try_effect("promote", When::After)?;
        Ok(image.id.to_string())
    }

    /// The uploaded bytes are discarded.
    fn upload(&self) -> Result<Archive, ApiError> {
        let (path, origin) = ("/dev/null".into(), "standard input".into());
        Ok(Archive { path, origin, temporary: None })
    }

    async fn tag_image(&self, image: &ImageView, name: &str) -> Result<(), ApiError> {
        self.try_effect("tag", When::Before)?;
        self.publish(&format!("image:{name}"), image.id.as_str());
        Ok(())
    }

    async fn replaced(&self) -> Result<Vec<Replaced>, ApiError> {
        self.try_effect("replaced", When::Before)?;
        let fetched = self.inner().world.fetched.clone();
        let moved = fetched.iter().filter_map(|(key, id)| {
            let name = key.strip_prefix(REPLACED)?.to_owned();
            Some(Replaced { name, image: id.parse().ok()? })
        });
        Ok(moved.collect())
    }

    async fn settled(&self, name: &str) -> Result<(), ApiError> {
        self.try_effect("settled", When::Before)?;
        let mut inner = self.inner();
        inner.world.fetched.remove(&format!("{REPLACED}{name}"));
        (self.sink)(&inner.world, &[]);
        Ok(())
    }

    async fn untag_image(&self, name: &str) -> Result<(), ApiError> {
        self.untag(&format!("image:{name}"))
    }

    async fn untag_kernel(&self, name: &str) -> Result<(), ApiError> {
        self.untag(&format!("kernel:{name}"))
    }

    async fn clean(&self) -> Result<u64, ApiError> {
        self.try_effect("clean", When::Before)?;
        let in_progress = self.inner().in_progress.clone();
        let removed = self.remove_unfinished(|file| !in_progress.contains(file));
        self.try_effect("clean", When::After)?;
        Ok(removed * 64 * MIB)
    }

    async fn pull_kernel(&self, name: &str, p: Arc<dyn Progress>) -> Result<String, ApiError> {
        self.known("kernel", name, DEFAULT_KERNEL)?;
        self.fetch(&format!("kernel:{name}"), name, stage::PULL_KERNEL, p.as_ref()).await
    }

    async fn build_kernel(
        &self,
        name: &str,
        mut log: Box<dyn std::io::Write + Send>,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError> {
        let _ = log.write_all(b"  CC      init/main.o\n");
        self.fetch(&format!("kernel:{name}"), name, stage::BUILD_KERNEL, progress.as_ref()).await
    }

    async fn import_kernel(
        &self,
        files: &KernelFiles,
        name: &str,
        _taken: TakenName,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError> {
        let (key, origin) = (format!("kernel:{name}"), files.path.to_string_lossy());
        self.fetch(&key, &origin, IMPORT_KERNEL, progress.as_ref()).await
    }

    async fn images(&self) -> Result<Vec<ImageView>, ApiError> {
        let views = self.grouped("image").into_iter().filter_map(|(id, names)| {
            let container = containers::config(&names);
            Some(ImageView {
                id: id.parse().ok()?,
                source: format!("simulated {}", names.first()?),
                provenance: format!("simulated, of {}", names.first()?),
                system: None,
                packages: None,
                init: if container.is_some() { None } else { Some("/sbin/init".into()) },
                opencode: names.iter().any(|name| name.contains(WITH_OPENCODE)),
                config: container,
                names,
                virtual_bytes: 512 * MIB,
                used_bytes: 64 * MIB,
                created_at: "2026-01-01T00:00:00Z".into(),
                fingerprint: id.clone(),
                built: None,
                committed: self.committed(&id),
                registered: self.registered(&id),
                used_by: Vec::new(),
                signature: None,
            })
        });
        Ok(views.collect())
    }

    async fn packages(&self, image: &ImageView) -> Result<Vec<String>, ApiError> {
        self.try_effect("packages", When::Before)?;
        Ok(vec![format!("{} 1.0", image.names.first().map_or("nameless", String::as_str))])
    }

    async fn kernels(&self) -> Result<Vec<KernelView>, ApiError> {
        let views = self.grouped("kernel").into_iter().filter_map(|(id, names)| {
            Some(KernelView {
                id: id.parse().ok()?,
                source: format!("simulated {}", names.first()?),
                names,
                release: "6.1.0-sim".into(),
                used_bytes: 64 * MIB,
                created_at: "2026-01-01T00:00:00Z".into(),
                used_by: Vec::new(),
            })
        });
        Ok(views.collect())
    }

    async fn delete_image(&self, image: &ImageView) -> Result<Deleted, ApiError> {
        self.delete("image", &image.names, image.id.as_str())
    }

    async fn delete_kernel(&self, kernel: &KernelView) -> Result<Deleted, ApiError> {
        self.delete("kernel", &kernel.names, kernel.id.as_str())
    }

    async fn files(&self) -> Result<Vec<Stored>, ApiError> {
        Ok(self.stored_files())
    }

    async fn remove_file(&self, kind: StoredKind, id: &str) -> Result<u64, ApiError> {
        self.remove_stored(kind, id)
    }
}
