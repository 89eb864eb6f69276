//! Signatures of minisign (its documentation, "Signature format"): Ed25519 of a BLAKE2b hash, with
//! a comment that is signed too.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{TrustError, read, read_text};

/// Added to the name of the signed file.
const SUFFIX: &str = ".minisig";
/// Largest key or signature file in bytes.
const SMALL_BYTES: u64 = 8 << 10;
/// Bytes of the algorithm before the id of the key, and of the id.
const ALGORITHM: usize = 2;
const ID: usize = 8;

/// The configured keys.
#[derive(Debug)]
pub struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: String,
    key: minisign_verify::PublicKey,
}

/// A signed file, verified.
#[derive(Debug)]
pub struct Verified {
    /// Its content.
    pub content: Vec<u8>,
    /// Id of the key, as minisign prints it.
    pub key: String,
}

/// The id of a key in its base64 text, or in that of a signature: a number, little-endian.
fn id(base64: &str) -> Option<String> {
    let bytes = STANDARD.decode(base64).ok()?;
    let id: [u8; ID] = bytes.get(ALGORITHM..ALGORITHM + ID)?.try_into().ok()?;
    Some(format!("{:X}", u64::from_le_bytes(id)))
}

impl Keys {
    /// Reads key files, as `minisign -G` writes them.
    ///
    /// # Errors
    /// The first one that is none.
    pub fn load(paths: &[PathBuf]) -> Result<Self, TrustError> {
        paths.iter().map(|path| key(path)).collect::<Result<_, _>>().map(Self)
    }

    /// Reads a file of at most `limit` bytes with its signature, and verifies it.
    ///
    /// # Errors
    /// No signature; one of another key; another content than the signed one.
    pub fn verify(&self, path: &Path, limit: u64) -> Result<Verified, TrustError> {
        let content = read(path, limit)?;
        let mut beside = OsString::from(path);
        beside.push(SUFFIX);
        let beside = PathBuf::from(beside);
        let text = read_text(&beside, SMALL_BYTES)?;
        let refused =
            |path: &Path, why: String| TrustError::BadSignature { path: path.to_owned(), why };
        let id =
            form(&text).ok_or_else(|| refused(&beside, "it is no signature of minisign".into()))?;
        let signature = minisign_verify::Signature::decode(&text)
            .map_err(|error| refused(&beside, error.to_string()))?;
        let key = self.0.iter().find(|key| key.id == id).ok_or_else(|| {
            refused(path, format!("it is signed by the key {id}, which `trust.keys` does not have"))
        })?;
        key.key.verify(&content, &signature, false).map_err(|error| {
            refused(path, format!("it or `{}` is not as it was signed: {error}", beside.display()))
        })?;
        Ok(Verified { content, key: id })
    }
}

fn key(path: &Path) -> Result<Key, TrustError> {
    let text = read_text(path, SMALL_BYTES)?;
    let unusable = |why: &str| TrustError::Unusable { path: path.to_owned(), why: why.to_owned() };
    // With its comment, or the key alone.
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    let known = id(line).zip(minisign_verify::PublicKey::from_base64(line).ok());
    let (id, key) = known.ok_or_else(|| unusable("is no public key of minisign"))?;
    Ok(Key { id, key })
}

/// The id of the key of a signature, if the file has exactly the form that minisign writes: the
/// verifying library ignores what follows, and bits that base64 does not use.
fn form(text: &str) -> Option<String> {
    let mut lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
    let mut line = || lines.next();
    line()?.strip_prefix("untrusted comment: ")?;
    let signature = line()?;
    line()?.strip_prefix("trusted comment: ")?;
    let of_comment = line()?;
    let is_exact =
        |text: &str| STANDARD.decode(text).is_ok_and(|bytes| STANDARD.encode(bytes) == text);
    let whole = lines.next().is_none() && is_exact(signature) && is_exact(of_comment);
    whole.then(|| id(signature)).flatten()
}
