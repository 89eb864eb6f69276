//! Detects disk writes that failed for lack of space in the log of a VMM that reports such errors
//! to its guest.
//!
//! Firecracker logs `Failed to execute Out virtio block request: …` with the error of the system
//! call in its debug form (src/vmm/src/devices/virtio/block/virtio/request.rs), which contains
//! `code: N`, the error number.

use rustix::io::Errno;

use crate::lines::Lines;

/// Scans a stream of bytes for failed writes.
#[derive(Debug, Default)]
pub struct DiskErrors {
    lines: Lines,
    /// Whether one was found.
    pub seen: bool,
}

impl DiskErrors {
    /// Scans the next bytes.
    pub fn scan(&mut self, bytes: &[u8]) {
        let Self { lines, seen } = self;
        lines.push(bytes, |line| *seen |= is_lack_of_space(line));
    }
}

fn is_lack_of_space(line: &str) -> bool {
    let numbers = [Errno::NOSPC, Errno::DQUOT, Errno::FBIG];
    line.contains("virtio block request")
        && numbers.iter().any(|number| line.contains(&format!("code: {},", number.raw_os_error())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_writes_without_space_count() {
        let line = |request: &str, code: i32| {
            format!(
                "2026-11-28T09:00:00.123 [0123456789ab:fc_vcpu 0:ERROR] Failed to execute {request}: \
                 FileEngine(Sync(Transfer(IOError(0, Os {{ code: {code}, kind: StorageFull, \
                 message: \"No space left on device\" }}))))\n"
            )
        };
        for (text, seen) in [
            (line("Out virtio block request", 28), true),
            (line("Out virtio block request", 122), true),
            (line("In virtio block request", 5), false),
            (line("something else", 28), false),
        ] {
            let mut errors = DiskErrors::default();
            errors.scan(text.as_bytes());
            assert_eq!(errors.seen, seen, "{text}");
        }
    }
}
