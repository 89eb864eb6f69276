//! Records of images and kernels as the API shows them.

use banger_api::images::{ImageView, KernelView};
use banger_api::{ApiError, ErrorCode};
use banger_image::images::ImageRecord;
use banger_image::kernels::KernelRecord;

/// Parses the id of a stored object.
pub fn id<T: std::str::FromStr<Err = banger_api::ids::BadId>>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error| {
        ApiError::new(ErrorCode::Corrupt, "a stored object has a bad id").caused_by(&error)
    })
}

/// An image that takes this many bytes; `used_by` is left empty.
///
/// # Errors
/// A bad id.
pub fn image(
    record: ImageRecord,
    names: Vec<String>,
    used_bytes: u64,
) -> Result<ImageView, ApiError> {
    Ok(ImageView {
        id: id(&record.id)?,
        names,
        source: record.source,
        provenance: record.provenance,
        system: record.system,
        packages: record.packages,
        virtual_bytes: record.virtual_bytes,
        used_bytes,
        init: record.init.map(|init| init.as_str().to_owned()),
        opencode: record.opencode,
        created_at: record.created_at,
        fingerprint: record.fingerprint,
        built: record.built.map(|built| built.inputs),
        committed: record.committed,
        registered: record.registered.map(|file| file.path),
        used_by: Vec::new(),
        config: record.config,
        signature: record.signature,
    })
}

/// A kernel that takes this many bytes; `used_by` is left empty.
///
/// # Errors
/// A bad id.
pub fn kernel(
    record: KernelRecord,
    names: Vec<String>,
    used_bytes: u64,
) -> Result<KernelView, ApiError> {
    Ok(KernelView {
        id: id(&record.id)?,
        names,
        release: record.release,
        source: record.source,
        used_bytes,
        created_at: record.created_at,
        used_by: Vec::new(),
    })
}
