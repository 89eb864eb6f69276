//! What the boot spent its time on, and what went wrong without stopping it.

use banger_agent_proto::boot::TimelineEntry;
use rustix::time::{ClockId, clock_gettime};

/// Most warnings kept; the boot line has a size limit.
const MAX_WARNINGS: usize = 32;

/// Longest warning, in characters.
const MAX_WARNING: usize = 500;

/// Time since the guest's kernel started, in milliseconds.
pub fn uptime_ms() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1000 + now.tv_nsec / 1_000_000).unwrap_or(0)
}

/// Collects the timeline and the warnings of one boot.
pub struct BootLog {
    last_ms: u64,
    timeline: Vec<TimelineEntry>,
    warnings: Vec<String>,
}

impl BootLog {
    /// Begins; everything until now was the kernel.
    pub fn start() -> Self {
        let mut log = Self { last_ms: 0, timeline: Vec::new(), warnings: Vec::new() };
        log.mark("kernel");
        log
    }

    /// Closes the span that began at the last mark.
    pub fn mark(&mut self, name: &str) {
        let now_ms = uptime_ms();
        let ms = now_ms.saturating_sub(self.last_ms);
        self.timeline.push(TimelineEntry { name: name.into(), ms });
        self.last_ms = now_ms;
    }

    /// Adds a warning; the boot continues.
    pub fn warn(&mut self, warning: impl Into<String>) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(warning.into().chars().take(MAX_WARNING).collect());
        }
    }

    /// Adds the fault of a failed action as a warning; the boot continues.
    pub fn note<T, E: std::borrow::Borrow<crate::fault::Fault>>(&mut self, outcome: Result<T, E>) {
        if let Err(fault) = outcome {
            self.warn(fault.borrow().chain());
        }
    }

    /// The result of an action; its fault becomes a warning, and the boot continues.
    pub fn keep<T>(&mut self, outcome: Result<T, crate::fault::Fault>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(fault) => {
                self.warn(fault.chain());
                None
            }
        }
    }

    /// Timeline and warnings.
    pub fn finish(self) -> (Vec<TimelineEntry>, Vec<String>) {
        (self.timeline, self.warnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_warnings_is_cut() {
        let mut log = BootLog::start();
        for _ in 0..100 {
            log.warn("x".repeat(10_000));
        }
        log.mark("end");
        let (timeline, warnings) = log.finish();
        let names: Vec<_> = timeline.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["kernel", "end"]);
        assert_eq!(warnings.len(), MAX_WARNINGS);
        assert!(warnings.iter().all(|warning| warning.len() == MAX_WARNING));
    }
}
