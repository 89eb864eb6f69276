//! Readers of foreign images with any bytes as their input. Shared by the tests on a stable
//! compiler and by the fuzz targets of `fuzz/`.
//!
//! Each target returns whether the input was accepted, and panics if the reader breaks a promise.

use std::fs::File;
use std::io::{Read, Write};

use banger_image::ext4::layers::Layers;
use banger_image::ext4::tar::{self, EntryKind, TarError};
use banger_image::ext4::volume::{Volume, Window};
use banger_image::ext4::{Contents, Kind, TarContents, Tree, used};
use banger_image::images::manifest::{self, Config, MAX_LAYERS, Parsed, Saved};

/// A target.
pub type Target = fn(&[u8]) -> bool;

/// All targets by name.
pub const ALL: [(&str, Target); 5] = [
    ("tar", read_tar),
    ("layers", read_layers),
    ("manifest", read_manifest),
    ("ext4", read_ext4),
    ("used", read_used),
];

/// Contents are read up to this length: the longest can have terabytes of zeros.
const CONTENT_BYTES: u64 = 1 << 20;

fn drain(content: &mut dyn Read) -> std::io::Result<u64> {
    std::io::copy(&mut content.take(CONTENT_BYTES), &mut std::io::sink())
}

fn check_names(tree: &Tree) {
    for node in tree.live() {
        if let Kind::Folder(names) = &node.kind {
            let is_plain = |name: &[u8]| ![&b""[..], b".", b".."].contains(&name);
            assert!(names.keys().all(|name| is_plain(name) && !name.contains(&b'/')));
        }
    }
}

/// An archive: the names, then the contents of what the names promise.
pub fn read_tar(bytes: &[u8]) -> bool {
    let mut archive = TarContents::new(|| Ok(bytes));
    let mut files = Vec::new();
    let read = archive.tree(&mut |entry, content| {
        if matches!(entry.kind, EntryKind::Node(Kind::File(_))) {
            files.push(entry.index);
            drain(content).map_err(TarError::Read)?;
        }
        Ok(())
    });
    let Ok((tree, _)) = read else { return false };
    check_names(&tree);
    let mut again = Vec::new();
    let contents = archive.each(&mut |index, content| {
        again.push(index);
        drain(content).map_err(TarError::Read)?;
        Ok(())
    });
    assert!(contents.is_ok(), "the second pass reads what the first has read: {contents:?}");
    assert_eq!(files, again);
    true
}

/// Layers, each after its length as a little-endian number of four bytes.
pub fn read_layers(bytes: &[u8]) -> bool {
    let (mut merged, mut rest) = (Layers::default(), bytes);
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = (u32::from_le_bytes(*length) as usize).min(after.len());
        let (layer, next) = after.split_at(length);
        rest = next;
        let mut reader = tar::Reader::new(layer);
        loop {
            match reader.next_entry() {
                Ok(Some(entry)) => {
                    if merged.add(entry).is_err() {
                        return false;
                    }
                }
                Ok(None) | Err(TarError::Empty) => break,
                Err(_) => return false,
            }
        }
        if merged.end_layer().is_err() {
            return false;
        }
    }
    check_names(&merged.into_tree());
    true
}

/// The documents of an image: manifest or index, configuration, list of `docker save`.
pub fn read_manifest(bytes: &[u8]) -> bool {
    let mut accepted = false;
    match manifest::parse("m", bytes) {
        Ok(Parsed::Manifest(manifest)) => {
            assert!(manifest.layers.len() <= MAX_LAYERS);
            assert!(manifest.layers.iter().all(|layer| layer.digest().is_ok()));
            accepted = true;
        }
        Ok(Parsed::Index(_)) => accepted = true,
        Err(error) => assert!(error.to_string().len() < 4096),
    }
    if let Ok(config) = manifest::json::<Config>("c", bytes) {
        let fits = config.check_platform().is_ok();
        let _ = config.diff_ids();
        let _ = config.runtime();
        accepted |= fits;
    }
    accepted | manifest::json::<Vec<Saved>>("s", bytes).is_ok()
}

/// A file in memory with these bytes.
fn file(bytes: &[u8]) -> File {
    let made = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC);
    let mut file = File::from(made.unwrap());
    file.write_all(bytes).unwrap();
    file
}

/// A file system: the names, then the contents of all files.
pub fn read_ext4(bytes: &[u8]) -> bool {
    let window = Window::new(file(bytes), 0, u64::MAX).unwrap();
    let Ok(volume) = Volume::open(window) else { return false };
    let walked = volume.walk(&mut |path, _, content| {
        assert!(!path.starts_with(b"/") && !path.is_empty());
        drain(content).map_err(TarError::Read)?;
        Ok(())
    });
    let Ok(walked) = walked else { return false };
    let contents = volume.contents(&walked.files, &mut |_, content| {
        drain(content).map_err(TarError::Read)?;
        Ok(())
    });
    contents.is_ok()
}

/// The used blocks of a file system.
pub fn read_used(bytes: &[u8]) -> bool {
    let Ok(found) = used::ranges(&file(bytes)) else { return false };
    let mut end = 0;
    for range in &found.ranges {
        assert!(range.start >= end && range.start < range.end, "{found:?}");
        end = range.end;
    }
    assert!(end <= found.bytes && found.bytes <= bytes.len() as u64, "{found:?}");
    true
}
