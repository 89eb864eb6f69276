//! Names and origins of simulated images and kernels.

use banger_api::container_ref::ContainerRef;
use banger_api::hint::{Hint, Kind};
use banger_api::images::CommittedFrom;
use banger_api::{ApiError, ByteString, ErrorCode, reference};

use super::Sim;

/// Prefix of the keys of the origins of committed images.
pub(super) const COMMITTED: &str = "committed:";
/// Prefix of the keys of the files of registered images.
const REGISTERED: &str = "registered:";

impl Sim {
    /// The origin of a committed image.
    pub(super) fn committed(&self, id: &str) -> Option<CommittedFrom> {
        let origin = self.inner().world.fetched.get(&format!("{COMMITTED}{id}")).cloned();
        serde_json::from_str(&origin?).ok()
    }

    /// The file of a registered image.
    pub(super) fn registered(&self, id: &str) -> Option<ByteString> {
        let path = self.inner().world.fetched.get(&format!("{REGISTERED}{id}")).cloned();
        path.map(|path| ByteString::from(path.as_str()))
    }

    /// Notes the file of an image, to be stored with its name.
    pub(super) fn note_registered(&self, id: &str, path: String) {
        self.inner().world.fetched.insert(format!("{REGISTERED}{id}"), path);
    }

    /// Forgets the file of an image.
    pub(super) fn forget_registered(&self, id: &str) {
        let mut inner = self.inner();
        inner.world.fetched.remove(&format!("{REGISTERED}{id}"));
        (self.sink)(&inner.world, &[]);
    }

    pub(super) fn known(&self, what: &str, name: &str, recipe: &str) -> Result<(), ApiError> {
        if what == "image" && ContainerRef::is_explicit(name) {
            return Ok(());
        }
        let prefix = format!("{what}:");
        let here = self
            .inner()
            .world
            .fetched
            .iter()
            .any(|(key, id)| key.strip_prefix(&prefix) == Some(name) || id.starts_with(name));
        if here || name == recipe {
            return Ok(());
        }
        let names = self.named(what);
        let names = names.iter().map(|(name, _)| name.as_str()).chain([recipe]);
        let kind = if what == "kernel" { Kind::Kernel } else { Kind::Image };
        let hint = reference::suggest(kind, names, name);
        let is_pulled = kind == Kind::Image && !matches!(hint, Hint::SimilarNames { .. });
        let text = format!("there is no {what} `{name}`");
        let error = ApiError::new(ErrorCode::NotFound, text).with_hint(hint);
        let pull = Hint::Pull { what: Kind::Image, recipe: name.to_owned() };
        Err(if is_pulled { error.with_hint(pull) } else { error })
    }

    pub(super) fn named(&self, what: &str) -> Vec<(String, String)> {
        let prefix = format!("{what}:");
        let fetched = self.inner().world.fetched.clone();
        let pairs = fetched.iter().filter_map(|(key, id)| {
            key.strip_prefix(&prefix).map(|name| (name.to_owned(), id.clone()))
        });
        pairs.collect()
    }

    /// Ids with their names, in the order of their first names.
    pub(super) fn grouped(&self, what: &str) -> Vec<(String, Vec<String>)> {
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for (name, id) in self.named(what) {
            match groups.iter_mut().find(|(known, _)| *known == id) {
                Some((_, names)) => names.push(name),
                None => groups.push((id, vec![name])),
            }
        }
        groups
    }
}
