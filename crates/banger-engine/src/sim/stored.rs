//! Simulated files beside images and kernels: layers that pulls have left, and unfinished files.

use banger_api::disk::{Stored, StoredKind};
use banger_api::{ApiError, ErrorCode};

use super::Sim;
use super::images::MIB;
use super::world::When;

/// Prefix of the keys of layers.
const LAYER: &str = "layer:";

impl Sim {
    /// Keeps the layer of a pulled image.
    pub(super) fn keep_layer(&self, id: &str) {
        let mut inner = self.inner();
        inner.world.fetched.insert(format!("{LAYER}{id}"), id.to_owned());
        (self.sink)(&inner.world, &[]);
    }

    pub(super) fn stored_files(&self) -> Vec<Stored> {
        let inner = self.inner();
        let stored = |kind, file: &str| Stored {
            kind,
            id: file.to_owned(),
            names: Vec::new(),
            used_bytes: 64 * MIB,
            used_by: Vec::new(),
            removable: !inner.in_progress.contains(file),
        };
        let layers = inner.world.fetched.keys().filter_map(|key| key.strip_prefix(LAYER));
        let layers = layers.map(|id| stored(StoredKind::Layer, id));
        let unfinished = inner.world.unfinished.iter();
        layers.chain(unfinished.map(|file| stored(StoredKind::Unfinished, file))).collect()
    }

    pub(super) fn remove_stored(&self, kind: StoredKind, id: &str) -> Result<u64, ApiError> {
        self.try_effect("clean", When::Before)?;
        if kind == StoredKind::Layer && self.remove_layer(id) {
            self.try_effect("clean", When::After)?;
            return Ok(64 * MIB);
        }
        let in_progress = self.inner().in_progress.clone();
        let removed = self.remove_unfinished(|file| file == id && !in_progress.contains(file));
        if removed == 0 {
            let text = format!("there is no file `{}`", banger_api::excerpt(id));
            return Err(ApiError::new(ErrorCode::NotFound, text));
        }
        Ok(removed * 64 * MIB)
    }

    fn remove_layer(&self, id: &str) -> bool {
        let mut inner = self.inner();
        let removed = inner.world.fetched.remove(&format!("{LAYER}{id}")).is_some();
        (self.sink)(&inner.world, &[]);
        removed
    }
}
