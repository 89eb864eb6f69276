//! Disk writes that found no room on the host, from the log of a VMM that passes such errors on to
//! its guest.
//!
//! Firecracker logs `Failed to execute Out virtio block request: …` with the error of the system
//! call in its debug form (src/vmm/src/devices/virtio/block/virtio/request.rs), which holds
//! `code: N`, the error number.

use rustix::io::Errno;

use crate::lines::Lines;

/// Looks for failed writes in a stream of bytes.
#[derive(Debug, Default)]
pub struct DiskErrors {
    lines: Lines,
    /// Whether one was seen.
    pub seen: bool,
}

impl DiskErrors {
    /// Takes in what came next.
    pub fn hear(&mut self, bytes: &[u8]) {
        let Self { lines, seen } = self;
        lines.hear(bytes, |line| *seen |= found_no_room(line));
    }
}

fn found_no_room(line: &str) -> bool {
    let numbers = [Errno::NOSPC, Errno::DQUOT, Errno::FBIG];
    line.contains("virtio block request")
        && numbers.iter().any(|number| line.contains(&format!("code: {},", number.raw_os_error())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_write_that_found_no_room_counts() {
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
            errors.hear(text.as_bytes());
            assert_eq!(errors.seen, seen, "{text}");
        }
    }
}
