//! The limit of open files (RLIMIT_NOFILE, getrlimit(2)), and the limits derived from it.

use banger_api::doctor::{Check, Verdict};
use banger_api::hint::SetupAdvice;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Minimum number of descriptors for the daemon and a few VMs: the daemon's own, those of each
/// running VM, and the fixed numbers used to start a VMM.
const LEAST: u64 = 512;
/// Descriptors reserved for other uses than connections.
const OWN: u64 = 64;

/// Raises the soft limit to the hard limit: the usual soft limit of 1024 exists for select(2).
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(error = %error, "cannot raise the limit of open files");
    }
    if descriptors() < LEAST {
        tracing::warn!(limit = descriptors(), wanted = LEAST, "the limit of open files is low");
    }
}

/// The current limit.
pub fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The number of connections that leaves enough descriptors for other uses; at most `most`.
pub fn connections(most: u32) -> u32 {
    share(descriptors(), most)
}

fn share(limit: u64, most: u32) -> u32 {
    let spare = limit.saturating_sub(OWN) / 4;
    u32::try_from(spare).unwrap_or(u32::MAX).clamp(8, most)
}

/// The limit as a check of `doctor`.
pub fn check() -> Check {
    let limit = descriptors();
    let (verdict, hints) = if limit >= LEAST {
        (Verdict::Ok, Vec::new())
    } else {
        (Verdict::Missing, vec![SetupAdvice::RaiseFileLimit { least: LEAST }.into()])
    };
    let seen = format!("bangerd may open {limit} files (RLIMIT_NOFILE)");
    Check {
        code: "limit.open_files".into(),
        verdict,
        seen,
        hints,
        needed_for: vec!["start".into()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_other_uses() {
        assert_eq!(share(1 << 20, 512), 512);
        assert_eq!(share(1024, 512), 240);
        assert_eq!(share(110, 512), 11);
        assert_eq!(share(20, 512), 8);
    }
}
