//! Pulls container images from registries.

use banger_api::container_ref::ContainerRef;
use banger_api::images::{ImageSignature, TakenName};

use super::{Image, ImageError, ImageStore, Origin};
use crate::fetch::{Flight, Progress};
use crate::images::Digest;
use crate::registry::{self, RegistryError};
use crate::trust::{Listed, Requirement, TrustSettings};

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

    /// Sets the catalogs and what is demanded of images of registries.
    #[must_use]
    pub fn trusting(self, trust: TrustSettings) -> Self {
        Self { trust, ..self }
    }

    /// The catalogs.
    pub fn trust(&self) -> &TrustSettings {
        &self.trust
    }

    /// Pulls an image of a catalog. If it is here already, under any name, nothing is downloaded.
    /// Concurrent callers share one pull.
    ///
    /// # Errors
    /// Those of the server; an image that cannot be used; no space; cancellation.
    pub(super) fn pull_listed(
        &self,
        name: &str,
        listed: &Listed,
        progress: &dyn Progress,
    ) -> Result<Image, ImageError> {
        self.store.check_name(name)?;
        let lead = match self.flight.join(name, progress)? {
            Flight::Done(id) => return Ok(self.resolve(&id)?),
            Flight::Leader(lead) => lead,
        };
        let digest = format!("with SHA-256 {}", listed.digest.hex());
        let id = match self.made_of(|origin| origin.ends_with(&digest)) {
            Some(known) => self.up_to_date(name, known, Some(&listed.signature), progress)?,
            None => {
                let staging = self.store.stage()?;
                let path = staging.join("download");
                registry::fetch(listed, &self.layers, &self.registries, &path, progress)?;
                let origin = format!("catalog {}", listed.signature.signed);
                let (path, origin) = (path.as_path(), origin.as_str());
                let signature = Some(listed.signature.clone());
                let file = Origin::File { path, origin, taken: TakenName::Replace, signature };
                self.make(name, &file, progress)?
            }
        };
        lead.done(&id);
        Ok(self.resolve(&id)?)
    }

    /// Points a name to an image that is here, and keeps a signature that was verified just now.
    fn up_to_date(
        &self,
        name: &str,
        id: String,
        signature: Option<&ImageSignature>,
        progress: &dyn Progress,
    ) -> Result<String, ImageError> {
        progress.stage("up to date");
        let record = self.store.record(&id)?;
        if signature.is_some() && record.signature.as_ref() != signature {
            self.store
                .replace_record(&super::ImageRecord { signature: signature.cloned(), ..record })?;
        }
        self.store.move_name(name, &id)?;
        Ok(id)
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
        let repository = format!("{}/{}", wanted.host(), wanted.repository());
        let signature = match self.trust.rule(&repository) {
            Some(rule) if rule.signature == Requirement::Required => {
                progress.stage("verify the signature");
                let keys = rule.load().map_err(RegistryError::from)?;
                Some(runtime.block_on(found.verify(&keys, progress))?)
            }
            _ => None,
        };
        let provenance = provenance(&found.digest);
        match self.made_of(|origin| origin == provenance) {
            Some(known) => self.up_to_date(&name, known, signature.as_ref(), progress),
            None => {
                let staging = self.store.stage()?;
                let layout = staging.join("layout");
                runtime.block_on(found.pull(&self.layers, &layout, progress))?;
                let origin = format!("registry {name}");
                let (path, origin) = (layout.as_path(), origin.as_str());
                let file = Origin::File { path, origin, taken: TakenName::Replace, signature };
                self.make(&name, &file, progress)
            }
        }
    }

    /// The downloaded layers of pulls.
    pub fn layers(&self) -> &registry::Cache {
        &self.layers
    }

    /// Id of an intact image with this origin.
    fn made_of(&self, is_origin: impl Fn(&str) -> bool) -> Option<String> {
        let records = self.store.list().objects.into_iter();
        let mut fitting = records.filter(|(record, _)| is_origin(&record.provenance));
        fitting.find_map(|(record, _)| {
            let image = self.resolve(&record.id).ok()?;
            image.check().is_ok().then_some(record.id)
        })
    }
}
