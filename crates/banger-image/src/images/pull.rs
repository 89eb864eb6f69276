//! Pulls container images from registries.

use banger_api::container_ref::ContainerRef;
use banger_api::images::TakenName;

use super::{Image, ImageError, ImageStore, Origin};
use crate::fetch::{Flight, Progress};
use crate::images::Digest;
use crate::registry;

/// Origin of an image, as its record has it.
fn provenance(digest: &Digest) -> String {
    format!("{} with SHA-256 {}", super::sources::oci::IMAGE, digest.hex())
}

impl ImageStore {
    /// Sets how registries are reached.
    #[must_use]
    pub fn with_registries(self, registries: registry::Settings) -> Self {
        Self { registries, ..self }
    }

    /// Pulls an image of a registry. If the image is here already, under any name, nothing is
    /// downloaded. Concurrent callers share one pull.
    ///
    /// # Errors
    /// Those of the registry; an image that cannot be used; no space; cancellation.
    pub(super) fn pull_container(
        &self,
        wanted: &ContainerRef,
        progress: &dyn Progress,
    ) -> Result<Image, ImageError> {
        let name = wanted.to_string();
        self.store.check_name(&name)?;
        let lead = match self.flight.join(&name, progress)? {
            Flight::Done(id) => return Ok(self.resolve(&id)?),
            Flight::Leader(lead) => lead,
        };
        let runtime = registry::runtime()?;
        let pulled = self.pull_by(&runtime, wanted, progress);
        // Does not wait for the resolver of the system, which cannot be cancelled.
        runtime.shutdown_background();
        let id = pulled?;
        lead.done(&id);
        Ok(self.resolve(&id)?)
    }

    fn pull_by(
        &self,
        runtime: &tokio::runtime::Runtime,
        wanted: &ContainerRef,
        progress: &dyn Progress,
    ) -> Result<String, ImageError> {
        let name = wanted.to_string();
        progress.stage("ask the registry");
        let found = registry::find(wanted, &self.registries, &self.tools, progress);
        let found = runtime.block_on(found)?;
        match self.made_of(&provenance(&found.digest)) {
            Some(known) => {
                progress.stage("up to date");
                self.store.move_name(&name, &known)?;
                Ok(known)
            }
            None => {
                let staging = self.store.stage()?;
                let layout = staging.join("layout");
                runtime.block_on(found.pull(&self.layers, &layout, progress))?;
                let origin = format!("registry {name}");
                let (path, origin) = (layout.as_path(), origin.as_str());
                self.make(
                    &name,
                    &Origin::File { path, origin, taken: TakenName::Replace },
                    progress,
                )
            }
        }
    }

    /// The downloaded layers of pulls.
    pub fn layers(&self) -> &registry::Cache {
        &self.layers
    }

    /// Id of an intact image with this origin.
    fn made_of(&self, provenance: &str) -> Option<String> {
        let records = self.store.list().objects.into_iter();
        let mut fitting = records.filter(|(record, _)| record.provenance == provenance);
        fitting.find_map(|(record, _)| {
            let image = self.resolve(&record.id).ok()?;
            image.check().is_ok().then_some(record.id)
        })
    }
}
