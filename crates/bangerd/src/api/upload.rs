//! Stores the body of a request in a file.

use std::io;
use std::path::Path;

use axum::body::Body;
use banger_api::size::human_size;
use banger_api::{ApiError, ErrorCode, Hint};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;

/// Bytes that stay free on the disk.
const RESERVE_BYTES: u64 = 256 << 20;
/// Number of bytes between two checks of the free space.
const LOOK_BYTES: u64 = 32 << 20;

/// Writes a body to the empty file `path`.
///
/// # Errors
/// An empty or incomplete body; a disk without enough space.
pub async fn receive(mut body: Body, path: &Path) -> Result<(), ApiError> {
    let failed = |error: &io::Error| {
        let full = error.kind() == io::ErrorKind::StorageFull;
        let code = if full { ErrorCode::NoSpace } else { ErrorCode::Internal };
        ApiError::new(code, format!("cannot write `{}`", path.display())).caused_by(error)
    };
    let open = tokio::fs::File::options().write(true).open(path).await;
    let mut file = open.map_err(|error| failed(&error))?;
    // The simulated host does not store it.
    let kept = file.metadata().await.is_ok_and(|meta| meta.is_file());
    let (mut total, mut looked) = (0_u64, None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ApiError::new(ErrorCode::BadRequest, "the archive is incomplete").caused_by(&error)
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if kept && looked.is_none_or(|at| total >= at + LOOK_BYTES) {
            has_room(path, total)?;
            looked = Some(total);
        }
        file.write_all(&data).await.map_err(|error| failed(&error))?;
        total += data.len() as u64;
    }
    if total == 0 {
        return Err(ApiError::new(
            ErrorCode::BadRequest,
            "the data is empty: it needs a tar archive",
        ));
    }
    file.flush().await.map_err(|error| failed(&error))
}

fn has_room(path: &Path, received_bytes: u64) -> Result<(), ApiError> {
    let free_bytes = banger_image::fetch::free_bytes(path).unwrap_or(u64::MAX);
    if free_bytes >= RESERVE_BYTES {
        return Ok(());
    }
    let text = format!(
        "the disk is nearly full: {} free after {} of the archive",
        human_size(free_bytes),
        human_size(received_bytes)
    );
    Err(ApiError::new(ErrorCode::NoSpace, text).with_hint(Hint::FreeSpace { path: None }))
}
