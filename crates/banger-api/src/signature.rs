//! Signatures of images.

use serde::{Deserialize, Serialize};

/// A signature that was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSignature {
    /// Kind of signature.
    pub scheme: SignatureScheme,
    /// The key: its id, and its file if the id is not enough to find it.
    pub key: String,
    /// What was signed: the path of a catalog, or the digest of an image of a registry.
    pub signed: String,
}

/// A kind of signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignatureScheme {
    /// Of cosign, by key.
    Cosign,
    /// Of minisign.
    Minisign,
}

impl SignatureScheme {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cosign => "cosign",
            Self::Minisign => "minisign",
        }
    }
}
