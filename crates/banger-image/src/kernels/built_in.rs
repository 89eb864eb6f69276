//! What an unpacked kernel tells about itself: its release, and the drivers that are built in.
//!
//! `modules.builtin` lists built-in drivers, but only a folder of modules has that file. A kernel
//! without modules is searched for texts that such a driver has in its read-only data.

/// Text before the release in `linux_banner` (init/version-timestamp.c).
const BANNER: &[u8] = b"Linux version ";
/// Maximum length of a release: `__NEW_UTS_LEN`.
const RELEASE_BYTES: usize = 64;

/// Drivers that guests need or use, each with a text that only the driver itself contains: the name
/// that it registers, or the beginning of its messages.
const MARKS: [(&str, &[u8]); 8] = [
    ("virtio_mmio", b"virtio-mmio\0"),
    ("virtio_blk", b"virtio_blk\0"),
    ("virtio_net", b"virtio_net\0"),
    ("vmw_vsock_virtio_transport", b"vmw_vsock_virtio_transport\0"),
    ("ext4", b"EXT4-fs (%s): "),
    ("overlay", b"overlayfs: "),
    ("virtio_rng", b"virtio_rng\0"),
    ("virtio_balloon", b"virtio_balloon\0"),
];

/// The release (`uname -r`) of an ELF kernel; `None` if it has no banner.
pub fn release(elf: &[u8]) -> Option<String> {
    positions(elf, BANNER).find_map(|at| {
        let text = &elf[at + BANNER.len()..];
        let end = text.iter().take(RELEASE_BYTES + 1).position(|byte| *byte == b' ')?;
        let release = std::str::from_utf8(&text[..end]).ok()?;
        is_release(release).then(|| release.to_owned())
    })
}

/// Whether a text can be a release: it is a plain name of a folder, and begins with a digit.
pub fn is_release(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+~-".contains(&byte);
    text.len() <= RELEASE_BYTES
        && text.bytes().all(plain)
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_digit())
}

/// The content of a `modules.builtin` for the drivers of guests that an ELF kernel contains.
pub fn modules_builtin(elf: &[u8]) -> String {
    let contained = MARKS.iter().filter(|(_, mark)| positions(elf, mark).next().is_some());
    contained.map(|(name, _)| format!("kernel/{name}.ko\n")).collect()
}

/// Offsets of a text.
fn positions<'a>(bytes: &'a [u8], text: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let first = text[0];
    let mut from = 0;
    std::iter::from_fn(move || {
        while let Some(at) = bytes.get(from..)?.iter().position(|byte| *byte == first) {
            let at = from + at;
            from = at + 1;
            if bytes[at..].starts_with(text) {
                return Some(at);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_that_of_the_banner() {
        let elf = b"\x7fELF Linux version %s\0Linux version 6.1.0-56-cloud-amd64 (a@b) #1\0";
        assert_eq!(release(elf).as_deref(), Some("6.1.0-56-cloud-amd64"));
        for bad in [&b"Linux version "[..], b"Linux version 6.1", b"Linux version 6/../x ", b""] {
            assert_eq!(release(bad), None, "{bad:?}");
        }
        let long = format!("Linux version 6{} ", "1".repeat(64));
        assert_eq!(release(long.as_bytes()), None);
    }

    #[test]
    fn built_in_drivers_are_found_by_their_marks() {
        assert_eq!(modules_builtin(b"nothing"), "");
        let elf = b"..virtio_blk\0..virtio_blk_x..\x013overlayfs: failed\0virtio-mmio";
        assert_eq!(modules_builtin(elf), "kernel/virtio_blk.ko\nkernel/overlay.ko\n");
    }
}
