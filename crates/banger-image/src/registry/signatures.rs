//! Finds the signatures of an image in its registry: the tag `sha256-HEX.sig` of cosign, and the
//! referrers of the image (OCI distribution specification 1.1, "Listing Referrers").

use std::collections::BTreeMap;

use banger_api::images::{ImageSignature, SignatureScheme};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{Found, RegistryError};
use crate::fetch::Progress;
use crate::images::{Digest, OciError, manifest};
use crate::trust::PublicKey;
use crate::trust::cosign::{BUNDLE, Mismatch, PAYLOAD, SIGNATURE, Signed};

/// Most signatures of an image that are looked at, and most referrers.
const MAX_SIGNATURES: usize = 32;
/// Largest payload or bundle in bytes.
const SIGNED_BYTES: u64 = 1 << 20;

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Entry>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Entry>,
}

/// A layer of a manifest, or a manifest of an index.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    artifact_type: String,
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Found {
    /// Verifies that one of these keys has signed the image, or the index that names it.
    ///
    /// # Errors
    /// [`RegistryError::Unsigned`]; the registry's; cancellation.
    pub async fn verify(
        &self,
        keys: &[PublicKey],
        progress: &dyn Progress,
    ) -> Result<ImageSignature, RegistryError> {
        let (mut by_others, mut for_others) = (0, 0);
        for digest in &self.digests {
            for signed in self.signatures(digest, progress).await? {
                match signed.signer(digest, keys) {
                    Ok(key) => {
                        return Ok(ImageSignature {
                            scheme: SignatureScheme::Cosign,
                            key: format!("{} ({})", key.id, key.path.display()),
                            signed: digest.to_string(),
                        });
                    }
                    Err(Mismatch::Key) => by_others += 1,
                    Err(Mismatch::Image) => for_others += 1,
                }
            }
        }
        let why = match (by_others, for_others) {
            (0, 0) => "has no signature".to_owned(),
            (count, 0) => format!("has {count} signatures, but none by a configured key"),
            (_, count) => format!("has {count} signatures that are of another image"),
        };
        Err(RegistryError::Unsigned { name: self.session.name().to_owned(), why })
    }

    async fn signatures(
        &self,
        digest: &Digest,
        progress: &dyn Progress,
    ) -> Result<Vec<Signed>, RegistryError> {
        let mut found = Vec::new();
        let tag = format!("sha256-{}.sig", digest.hex());
        if let Some(manifest) = self.optional_manifest(&tag, progress).await? {
            for layer in manifest.layers.iter().take(MAX_SIGNATURES) {
                if let (PAYLOAD, Some(signature)) =
                    (layer.media_type.as_str(), layer.annotations.get(SIGNATURE))
                {
                    let payload = self.small(&layer.digest, progress).await?;
                    found.extend(Signed::payload(payload, signature));
                }
            }
        }
        for entry in self.referrers(digest, progress).await?.into_iter().take(MAX_SIGNATURES) {
            // An index that was made without the API may not know the types.
            if !(entry.artifact_type.is_empty() || entry.artifact_type.starts_with(BUNDLE)) {
                continue;
            }
            let digest = Digest::parse(&entry.digest)?.to_string();
            let Some(manifest) = self.optional_manifest(&digest, progress).await? else { continue };
            for layer in manifest.layers.iter().take(MAX_SIGNATURES) {
                if layer.media_type.starts_with(BUNDLE) {
                    found.extend(Signed::bundle(&self.small(&layer.digest, progress).await?));
                }
            }
        }
        Ok(found)
    }

    async fn referrers(
        &self,
        digest: &Digest,
        progress: &dyn Progress,
    ) -> Result<Vec<Entry>, RegistryError> {
        let listed = match self.session.referrers(digest, progress).await {
            Ok(bytes) => Some(bytes),
            // A registry without the API: the index has a tag.
            Err(RegistryError::NotFound { .. }) => {
                let tag = format!("sha256-{}", digest.hex());
                self.optional(&tag, progress).await?
            }
            Err(error) => return Err(error),
        };
        let Some(bytes) = listed else { return Ok(Vec::new()) };
        Ok(manifest::json::<Index>("the list of signatures", &bytes)?.manifests)
    }

    /// A document, if it is there.
    async fn optional(
        &self,
        version: &str,
        progress: &dyn Progress,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        match self.session.document(version, progress).await {
            Ok(document) => Ok(Some(document.bytes)),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn optional_manifest(
        &self,
        version: &str,
        progress: &dyn Progress,
    ) -> Result<Option<Manifest>, RegistryError> {
        let Some(bytes) = self.optional(version, progress).await? else { return Ok(None) };
        Ok(Some(manifest::json("the signature", &bytes)?))
    }

    /// A small blob, checked by its digest.
    async fn small(&self, digest: &str, progress: &dyn Progress) -> Result<Vec<u8>, RegistryError> {
        let digest = Digest::parse(digest)?;
        let response = self.session.blob(&digest, 0, progress).await?;
        let bytes = self.session.http.body(response, SIGNED_BYTES, progress).await?;
        let hash = Sha256::digest(&bytes);
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        if hex == digest.hex() {
            return Ok(bytes);
        }
        let (name, expected) = (digest.to_string(), digest.hex().to_owned());
        Err(OciError::DigestMismatch { name, expected }.into())
    }
}
