//! The limit of open files (RLIMIT_NOFILE, getrlimit(2)), and what follows from it.

use banger_api::doctor::{Check, Verdict};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that the daemon wants for itself and a few VMs: its own, those of each running VM,
/// and the fixed numbers that a VMM is started with.
const LEAST: u64 = 512;
/// Descriptors that are not for connections.
const OWN: u64 = 64;

/// Raises the soft limit to the hard one: the usual soft limit of 1024 is for select(2).
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(error = %error, "the limit of open files stays as it is");
    }
    if descriptors() < LEAST {
        tracing::warn!(limit = descriptors(), wanted = LEAST, "the limit of open files is low");
    }
}

/// The limit that holds now.
pub fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Of `most` connections, as many as leave descriptors for everything else.
pub fn connections(most: u32) -> u32 {
    share(descriptors(), most)
}

fn share(limit: u64, most: u32) -> u32 {
    let spare = limit.saturating_sub(OWN) / 4;
    u32::try_from(spare).unwrap_or(u32::MAX).clamp(8, most)
}

/// As `doctor` shows it.
pub fn check() -> Check {
    let limit = descriptors();
    let (verdict, hint) = if limit >= LEAST {
        (Verdict::Ok, None)
    } else {
        let hint = format!(
            "raise the hard limit of the shell or service that starts bangerd, to {LEAST} or \
             more: `ulimit -Hn`, `LimitNOFILE=` of systemd, /etc/security/limits.conf"
        );
        (Verdict::Missing, Some(hint))
    };
    let seen = format!("bangerd may open {limit} files (RLIMIT_NOFILE)");
    Check { code: "limit.open_files".into(), verdict, seen, hint, needed_for: vec!["start".into()] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        assert_eq!(share(1 << 20, 512), 512);
        assert_eq!(share(1024, 512), 240);
        assert_eq!(share(110, 512), 11);
        assert_eq!(share(20, 512), 8);
    }
}
