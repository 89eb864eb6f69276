//! Public keys in PEM (SubjectPublicKeyInfo, RFC 5280), as `cosign generate-key-pair` and
//! `openssl pkey -pubout` write them. `ring` verifies, which TLS uses anyway; `p256` would add 25
//! crates and verify one kind of key.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
use sha2::{Digest as _, Sha256};
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::spki::SubjectPublicKeyInfoRef;

use super::{TrustError, read_text};

/// Largest key file in bytes.
const KEY_BYTES: u64 = 16 << 10;
/// Digits of an id.
const ID_DIGITS: usize = 16;

const EC: &str = "1.2.840.10045.2.1";
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const ED: &str = "1.3.101.112";
const RSA: &str = "1.2.840.113549.1.1.1";

/// A public key.
#[derive(Clone)]
pub struct PublicKey {
    /// The first digits of the SHA-256 of the key in DER.
    pub id: String,
    /// Its file.
    pub path: PathBuf,
    algorithm: &'static dyn VerificationAlgorithm,
    point: Vec<u8>,
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublicKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl PublicKey {
    /// Reads a key.
    ///
    /// # Errors
    /// Not one public key in PEM; one of another type.
    pub fn load(path: &Path) -> Result<Self, TrustError> {
        let text = read_text(path, KEY_BYTES)?;
        let unusable = |why: &str| TrustError::Unusable { path: path.to_owned(), why: why.into() };
        let der = der(&text).ok_or_else(|| unusable("is no public key in PEM"))?;
        let info = SubjectPublicKeyInfoRef::from_der(&der)
            .map_err(|_| unusable("is no public key in PEM"))?;
        let curve =
            info.algorithm.parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        let curve = curve.map(|curve| curve.to_string()).unwrap_or_default();
        let algorithm: &dyn VerificationAlgorithm =
            match (info.algorithm.oid.to_string().as_str(), curve.as_str()) {
                (EC, P256) => &ECDSA_P256_SHA256_ASN1,
                (EC, P384) => &ECDSA_P384_SHA256_ASN1,
                (ED, _) => &ED25519,
                (RSA, _) => &RSA_PKCS1_2048_8192_SHA256,
                _ => return Err(unusable("is a key of a type that is not supported")),
            };
        let point = info.subject_public_key.as_bytes();
        let point = point.ok_or_else(|| unusable("is no public key in PEM"))?.to_vec();
        let hash = Sha256::digest(&der);
        let id: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { id: id[..ID_DIGITS].to_owned(), path: path.to_owned(), algorithm, point })
    }

    /// Whether the key has signed a message.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm, &self.point).verify(message, signature).is_ok()
    }
}

/// The content of the only PEM block.
fn der(text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once("-----BEGIN PUBLIC KEY-----")?;
    let (base64, after) = rest.split_once("-----END PUBLIC KEY-----")?;
    let base64: String = base64.split_whitespace().collect();
    (!after.contains("-----BEGIN")).then(|| STANDARD.decode(base64).ok())?
}
