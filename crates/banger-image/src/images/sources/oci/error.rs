//! Errors of container images.

use crate::fetch::FetchError;

/// Errors of reading a container image.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A file cannot be read; cancellation.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A file of the image is missing.
    #[error("the image has no `{name}`")]
    Missing {
        /// Name of the file.
        name: String,
    },
    /// A document is not valid.
    #[error("`{name}` of the image is not valid")]
    BadDocument {
        /// Name of the file.
        name: String,
        /// The defect.
        #[source]
        source: serde_json::Error,
    },
    /// A document exceeds the limit.
    #[error("`{name}` of the image is larger than 4 MiB")]
    DocumentTooLarge {
        /// Name of the file.
        name: String,
    },
    /// A file does not have the content that the image names.
    #[error("`{name}` does not match its digest sha256:{expected}: it is damaged or was altered")]
    DigestMismatch {
        /// Name of the file.
        name: String,
        /// SHA-256 that the image names, as lowercase hex.
        expected: String,
    },
    /// A digest of another algorithm, or none.
    #[error("`{text}` is not a SHA-256 digest")]
    BadDigest {
        /// The text.
        text: String,
    },
    /// The image has a part that cannot be used.
    #[error("it is or has {what}, which is not supported")]
    Unsupported {
        /// The part.
        what: String,
    },
    /// Too many layers.
    #[error("the image has {count} layers; at most {} are allowed", super::manifest::MAX_LAYERS)]
    TooManyLayers {
        /// Their number.
        count: usize,
    },
    /// No image for the platform of the guests.
    #[error("there is no image for linux/amd64{}", list(": only for ", offered))]
    NoPlatform {
        /// Platforms of the images.
        offered: Vec<String>,
    },
    /// Several images in one file.
    #[error("it has several images{}", quoted(names))]
    SeveralImages {
        /// Their names.
        names: Vec<String>,
    },
    /// The decompressed layer is much larger than its file.
    #[error("`{name}` unpacks to more than {limit_mib} MiB, too much for its {bytes} bytes")]
    Bomb {
        /// Name of the file.
        name: String,
        /// Its length.
        bytes: u64,
        /// The limit.
        limit_mib: u64,
    },
}

fn quoted(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    list(": ", &quoted)
}

fn list(before: &str, items: &[String]) -> String {
    if items.is_empty() { String::new() } else { format!("{before}{}", items.join(", ")) }
}
