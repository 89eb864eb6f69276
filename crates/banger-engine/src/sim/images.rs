//! Simulated images and kernels: one of each can be fetched.

use std::sync::Arc;

use async_trait::async_trait;
use banger_api::images::{DEFAULT_IMAGE, DEFAULT_KERNEL, Deleted, ImageView, KernelView};
use banger_api::operation::stage;
use banger_api::{ApiError, ErrorCode};

use super::Sim;
use crate::drivers::{Images, Progress};
use crate::plan::BootSet;

const MIB: u64 = 1 << 20;

fn id_of(name: &str) -> String {
    // FNV-1a: two names, two ids.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

impl Sim {
    fn fetch(
        &self,
        key: &str,
        name: &str,
        stage: &str,
        progress: &dyn Progress,
    ) -> Result<String, ApiError> {
        let fetched = self.world().fetched.get(key).cloned();
        if let Some(id) = fetched {
            return Ok(id);
        }
        progress.stage(stage);
        for done in [0, 32, 64] {
            progress.bytes(done * MIB, Some(64 * MIB));
        }
        let id = id_of(name);
        let mut inner = self.inner();
        inner.world.fetched.insert(key.into(), id.clone());
        (self.sink)(&inner.world);
        Ok(id)
    }

    fn known(&self, what: &str, name: &str, recipe: &str) -> Result<(), ApiError> {
        let world = self.world();
        let prefix = format!("{what}:");
        let here = world
            .fetched
            .iter()
            .any(|(key, id)| key.strip_prefix(&prefix) == Some(name) || id.starts_with(name));
        if here || name == recipe {
            return Ok(());
        }
        Err(ApiError::new(ErrorCode::NotFound, format!("there is no {what} `{name}`"))
            .with_hint(format!("`banger {what} list` shows what there is")))
    }

    fn named(&self, what: &str) -> Vec<(String, String)> {
        let prefix = format!("{what}:");
        let world = self.world();
        let pairs = world.fetched.iter().filter_map(|(key, id)| {
            key.strip_prefix(&prefix).map(|name| (name.to_owned(), id.clone()))
        });
        pairs.collect()
    }

    fn delete(&self, what: &str, names: &[String], id: &str) -> Deleted {
        let mut inner = self.inner();
        for name in names {
            inner.world.fetched.remove(&format!("{what}:{name}"));
        }
        (self.sink)(&inner.world);
        Deleted { id: id.into(), freed_bytes: 64 * MIB }
    }
}

#[async_trait]
impl Images for Sim {
    fn check(&self, image: &str, kernel: &str) -> Result<(), ApiError> {
        self.known("image", image, DEFAULT_IMAGE)?;
        self.known("kernel", kernel, DEFAULT_KERNEL)
    }

    async fn boot_set(
        &self,
        image: &str,
        kernel: &str,
        progress: Arc<dyn Progress>,
    ) -> Result<BootSet, ApiError> {
        let kernel_id = self.pull_kernel(kernel, progress.clone()).await?;
        let image_id = self.pull_image(image, progress).await?;
        let bad = |error: banger_api::ids::BadId| {
            ApiError::new(ErrorCode::Internal, "a simulated id").caused_by(&error)
        };
        Ok(BootSet {
            image: image_id.parse().map_err(bad)?,
            image_name: image.into(),
            image_bytes: 512 * MIB,
            kernel: kernel_id.parse().map_err(bad)?,
        })
    }

    async fn pull_image(&self, name: &str, p: Arc<dyn Progress>) -> Result<String, ApiError> {
        self.known("image", name, DEFAULT_IMAGE)?;
        self.fetch(&format!("image:{name}"), name, stage::PULL_IMAGE, p.as_ref())
    }

    async fn import_image(
        &self,
        _path: &str,
        name: &str,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ApiError> {
        self.fetch(&format!("image:{name}"), name, "import_image", progress.as_ref())
    }

    async fn pull_kernel(&self, name: &str, p: Arc<dyn Progress>) -> Result<String, ApiError> {
        self.known("kernel", name, DEFAULT_KERNEL)?;
        self.fetch(&format!("kernel:{name}"), name, stage::PULL_KERNEL, p.as_ref())
    }

    async fn images(&self) -> Result<Vec<ImageView>, ApiError> {
        let views = self.named("image").into_iter().filter_map(|(name, id)| {
            Some(ImageView {
                id: id.parse().ok()?,
                source: format!("simulated {name}"),
                names: vec![name],
                virtual_bytes: 512 * MIB,
                used_bytes: 64 * MIB,
                init: Some("/sbin/init".into()),
                created_at: "2026-01-01T00:00:00Z".into(),
                fingerprint: id,
                used_by: Vec::new(),
            })
        });
        Ok(views.collect())
    }

    async fn kernels(&self) -> Result<Vec<KernelView>, ApiError> {
        let views = self.named("kernel").into_iter().filter_map(|(name, id)| {
            Some(KernelView {
                id: id.parse().ok()?,
                source: format!("simulated {name}"),
                names: vec![name],
                release: "6.1.0-sim".into(),
                used_bytes: 64 * MIB,
                created_at: "2026-01-01T00:00:00Z".into(),
                used_by: Vec::new(),
            })
        });
        Ok(views.collect())
    }

    async fn delete_image(&self, image: &ImageView) -> Result<Deleted, ApiError> {
        Ok(self.delete("image", &image.names, image.id.as_str()))
    }

    async fn delete_kernel(&self, kernel: &KernelView) -> Result<Deleted, ApiError> {
        Ok(self.delete("kernel", &kernel.names, kernel.id.as_str()))
    }
}
