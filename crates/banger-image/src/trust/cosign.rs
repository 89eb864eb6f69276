//! What cosign stores beside an image, and what it signs.
//!
//! - Simple signing: a JSON payload with the digest of the image, signed as it is; the signature is
//!   an annotation of its layer (cosign, `specs/SIGNATURE_SPEC.md`).
//! - Bundles: an in-toto statement in a DSSE envelope (sigstore, `protobuf-specs`), since cosign 3
//!   the default.
//!
//! Signatures count by key only: neither certificates nor transparency logs are looked at.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::PublicKey;
use crate::images::Digest;

/// Media type of a payload of simple signing.
pub const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Beginning of the media types of bundles; the version follows.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
/// Annotation with the signature of a payload.
pub const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const PAYLOAD_KIND: &str = "cosign container image signature";
/// Type of a statement that is a signature; others are attestations about the image.
const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
const STATEMENT: &str = "application/vnd.in-toto+json";

/// Something that was signed, and what it says.
#[derive(Debug)]
pub struct Signed {
    message: Vec<u8>,
    signatures: Vec<Vec<u8>>,
    /// `sha256:` and the digits of each image that it is about.
    digests: Vec<String>,
}

/// Why something signed does not count for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// None of the keys has signed it.
    Key,
    /// It is about another image.
    Image,
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    dsse_envelope: Envelope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    predicate_type: String,
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
}

impl Signed {
    /// A payload of simple signing with its signature in base64; `None` if it is none.
    pub fn payload(payload: Vec<u8>, signature: &str) -> Option<Self> {
        let parsed: Payload = serde_json::from_slice(&payload).ok()?;
        let signature = STANDARD.decode(signature).ok()?;
        let digests = vec![parsed.critical.image.digest];
        (parsed.critical.kind == PAYLOAD_KIND).then_some(Self {
            message: payload,
            signatures: vec![signature],
            digests,
        })
    }

    /// A bundle; `None` if it is none with a statement.
    pub fn bundle(bytes: &[u8]) -> Option<Self> {
        let envelope = serde_json::from_slice::<Bundle>(bytes).ok()?.dsse_envelope;
        let payload = STANDARD.decode(&envelope.payload).ok()?;
        if envelope.payload_type != STATEMENT {
            return None;
        }
        let statement: Statement = serde_json::from_slice(&payload).ok()?;
        if statement.predicate_type != PREDICATE {
            return None;
        }
        let subjects = statement.subject.iter();
        let digests = subjects.filter_map(|subject| subject.digest.get("sha256"));
        let digests = digests.map(|hex| format!("sha256:{hex}")).collect();
        let signatures = envelope.signatures.iter();
        let signatures = signatures.filter_map(|one| STANDARD.decode(&one.sig).ok()).collect();
        // The pre-authentication encoding of DSSE.
        let head = format!("DSSEv1 {} {STATEMENT} {} ", STATEMENT.len(), payload.len());
        let message = [head.as_bytes(), &payload].concat();
        Some(Self { message, signatures, digests })
    }

    /// The key that has signed it, if it is about this image.
    ///
    /// # Errors
    /// [`Mismatch`].
    pub fn signer<'a>(
        &self,
        digest: &Digest,
        keys: &'a [PublicKey],
    ) -> Result<&'a PublicKey, Mismatch> {
        let has_signed =
            |key: &&PublicKey| self.signatures.iter().any(|one| key.has_signed(&self.message, one));
        let key = keys.iter().find(has_signed).ok_or(Mismatch::Key)?;
        let digest = digest.to_string();
        if self.digests.contains(&digest) { Ok(key) } else { Err(Mismatch::Image) }
    }
}
