//! Questions about an image: what it was made from, what is installed in it.

use banger_api::ApiError;
use banger_api::images::{ImageHistoryEntry, ImageView};

use crate::engine::Engine;

/// Maximum length of a chain; a record could name itself.
const MAX_CHAIN: usize = 100;

impl Engine {
    /// An image, and the images from which it was made, the newest first.
    ///
    /// # Errors
    /// Not found, or ambiguous.
    pub async fn image_history(&self, reference: &str) -> Result<Vec<ImageHistoryEntry>, ApiError> {
        let first = self.image(reference).await?;
        Ok(chain(first, &self.images().await?))
    }

    /// Installed packages of an image with their versions.
    ///
    /// # Errors
    /// Not found, or ambiguous; a list that cannot be read.
    pub async fn image_packages(&self, reference: &str) -> Result<Vec<String>, ApiError> {
        let image = self.image(reference).await?;
        self.shared.drivers.images.packages(&image).await
    }
}

fn chain(first: ImageView, all: &[ImageView]) -> Vec<ImageHistoryEntry> {
    let mut chain = Vec::new();
    let mut next = Some((first.id.clone(), String::new(), Some(first)));
    while let Some((id, name, image)) = next.take().filter(|_| chain.len() < MAX_CHAIN) {
        next = image.as_ref().and_then(ImageView::base).map(|(id, name)| {
            let known = all.iter().find(|image| image.id == *id).cloned();
            (id.clone(), name.to_owned(), known)
        });
        let names = image.as_ref().map_or_else(|| vec![name], |image| image.names.clone());
        chain.push(ImageHistoryEntry { id, names, image });
    }
    chain
}

#[cfg(test)]
mod tests {
    use banger_api::build::BuildInputs;
    use banger_api::images::CommittedFrom;
    use banger_api::operation::VmTag;

    use super::*;

    fn image(id: u64) -> ImageView {
        ImageView {
            id: format!("{id:016x}").parse().unwrap(),
            names: vec![format!("i{id}")],
            source: String::new(),
            provenance: String::new(),
            system: None,
            packages: None,
            virtual_bytes: 0,
            used_bytes: 0,
            init: None,
            opencode: false,
            created_at: String::new(),
            fingerprint: String::new(),
            built: None,
            committed: None,
            registered: None,
            used_by: Vec::new(),
            config: None,
            signature: None,
        }
    }

    fn built_from(id: u64, base: u64) -> ImageView {
        let built = BuildInputs {
            base: image(base).id,
            base_name: format!("was{base}"),
            copies: Vec::new(),
            packages: Vec::new(),
            script_sha256: None,
            root_bytes: 1,
        };
        ImageView { built: Some(built), ..image(id) }
    }

    fn names(first: &ImageView, all: &[ImageView]) -> Vec<String> {
        let chain = chain(first.clone(), all);
        chain.iter().map(|entry| format!("{} {}", entry.names[0], entry.image.is_some())).collect()
    }

    #[test]
    fn a_chain_ends_with_its_origin_or_a_deleted_image() {
        let vm = VmTag { id: banger_api::VmId::from_entropy(1), name: "web".parse().unwrap() };
        let from = CommittedFrom { vm, base: image(2).id, base_name: "was2".into() };
        let third = ImageView { committed: Some(from), ..image(3) };
        let all = [image(1), built_from(2, 1), third.clone(), built_from(4, 9)];
        assert_eq!(names(&third, &all), ["i3 true", "i2 true", "i1 true"]);
        assert_eq!(names(&all[3], &all), ["i4 true", "was9 false"]);
        let own = built_from(5, 5);
        assert_eq!(names(&own, std::slice::from_ref(&own)).len(), MAX_CHAIN);
    }
}
