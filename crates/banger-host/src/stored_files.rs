//! Files of banger besides disks, images and kernels: caches, kept logs, unfinished objects.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use banger_api::disk::{Stored, StoredKind};
use banger_api::{ApiError, ErrorCode};
use banger_image::advice;
use banger_image::fetch;
use banger_image::registry::{Cache, Cached, Removal};

use crate::failure::on_path;
use crate::layout::Layout;

/// The folders besides the cache of layers, with the kind of what is in them.
fn folders(layout: &Layout) -> [(StoredKind, PathBuf); 5] {
    [
        (StoredKind::Cache, layout.initramfs()),
        (StoredKind::Cache, layout.blank_disks()),
        (StoredKind::Log, layout.failed_starts()),
        (StoredKind::Unfinished, layout.images().join("staging")),
        (StoredKind::Unfinished, layout.kernels().join("staging")),
    ]
}

/// All such files; `used` are the paths that a VM in operation uses.
///
/// # Errors
/// A folder cannot be read.
pub fn list(
    layout: &Layout,
    layers: &Cache,
    used: &HashSet<PathBuf>,
) -> Result<Vec<Stored>, ApiError> {
    let mut all = Vec::new();
    for Cached { name, bytes, in_use } in layers.files().map_err(|error| advice::fetch(&error))? {
        let (kind, names, used_by) = (StoredKind::Layer, Vec::new(), Vec::new());
        all.push(Stored { kind, id: name, names, used_bytes: bytes, used_by, removable: !in_use });
    }
    for (kind, folder) in folders(layout) {
        for path in entries(&folder)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Staging folders of caches.
            if kind == StoredKind::Cache && path.is_dir() {
                continue;
            }
            let removable = match kind {
                StoredKind::Unfinished => fetch::is_abandoned(&path),
                _ => !used.contains(&path),
            };
            let (names, used_by) = (Vec::new(), Vec::new());
            let used_bytes = fetch::used_bytes(&path);
            all.push(Stored { kind, id: name, names, used_bytes, used_by, removable });
        }
    }
    Ok(all)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, ApiError> {
    let failed = |error: io::Error| on_path("read the folder", folder, &error);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let paths = entries.map(|entry| Ok(entry.map_err(failed)?.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<Result<_, ApiError>>()?;
    paths.sort();
    Ok(paths)
}

/// Removes a cached file or a log that is not in `used`; returns the freed bytes.
///
/// # Errors
/// No such file; it is in use; unlink(2).
pub fn remove(
    (layout, layers): (&Layout, &Cache),
    used: &HashSet<PathBuf>,
    kind: StoredKind,
    name: &str,
) -> Result<u64, ApiError> {
    let in_use = || {
        let text = format!("the file `{}` is in use", banger_api::excerpt(name));
        ApiError::new(ErrorCode::InUse, text)
    };
    if kind == StoredKind::Layer {
        match layers.remove_file(name).map_err(|error| advice::fetch(&error))? {
            Removal::Removed(bytes) => return Ok(bytes),
            Removal::InUse => return Err(in_use()),
            Removal::Absent => {}
        }
    }
    let of_kind = folders(layout).into_iter().filter(|(known, _)| *known == kind);
    for path in of_kind.map(|(_, folder)| entries(&folder)).collect::<Result<Vec<_>, _>>()?.concat()
    {
        if path.file_name().is_none_or(|known| known.to_string_lossy() != name) || path.is_dir() {
            continue;
        }
        if used.contains(&path) {
            return Err(in_use());
        }
        let bytes = fetch::used_bytes(&path);
        fs::remove_file(&path).map_err(|error| on_path("remove", &path, &error))?;
        return Ok(bytes);
    }
    let shown = banger_api::excerpt(name);
    Err(ApiError::new(ErrorCode::NotFound, format!("there is no file `{shown}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_and_logs_are_listed_and_removed_unless_they_are_used() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout {
            state: home.path().join("state"),
            data: home.path().join("data"),
            cache: home.path().join("cache"),
        };
        let layers = Cache::new(layout.data.join("layers"));
        let list = |used: &HashSet<PathBuf>| list(&layout, &layers, used);
        assert_eq!(list(&HashSet::new()).unwrap(), []);
        for folder in
            [layout.initramfs(), layout.failed_starts(), layout.images().join("staging/0")]
        {
            fs::create_dir_all(folder).unwrap();
        }
        let (old, new) = (layout.initramfs().join("old.cpio"), layout.initramfs().join("new.cpio"));
        fs::write(&old, vec![1; 100_000]).unwrap();
        fs::write(&new, vec![1; 100_000]).unwrap();
        fs::write(layout.failed_starts().join("web-op.log"), "text").unwrap();
        let used = HashSet::from([new.clone()]);
        layers.create().unwrap();
        fs::write(layers.folder().join("a.part"), vec![1; 100_000]).unwrap();
        let found = list(&used).unwrap();
        let shown: Vec<_> =
            found.iter().map(|file| (file.kind, file.id.as_str(), file.removable)).collect();
        let wanted = [
            (StoredKind::Layer, "a.part", true),
            (StoredKind::Cache, "new.cpio", false),
            (StoredKind::Cache, "old.cpio", true),
            (StoredKind::Log, "web-op.log", true),
            (StoredKind::Unfinished, "0", true),
        ];
        assert_eq!(shown, wanted);
        let remove = |kind, name: &str| remove((&layout, &layers), &used, kind, name);
        assert!(remove(StoredKind::Cache, "old.cpio").unwrap() >= 100_000);
        assert!(remove(StoredKind::Layer, "a.part").unwrap() >= 100_000);
        assert_eq!(remove(StoredKind::Layer, "a.part").unwrap_err().code, ErrorCode::NotFound);
        let code = |name| remove(StoredKind::Cache, name).unwrap_err().code;
        assert_eq!(code("new.cpio"), ErrorCode::InUse);
        assert_eq!(code("../../data/images/x"), ErrorCode::NotFound);
        assert!(new.exists() && !old.exists());
        remove(StoredKind::Log, "web-op.log").unwrap();
        assert_eq!(list(&used).unwrap().len(), 2);
    }
}
