//! How long is waited for others to let go of a device.
//!
//! udev looks into each new device for a moment, and a VMM that was killed keeps its devices until
//! the kernel has cleaned up after it.

use std::io;
use std::time::Duration;

use super::kernel::Kernel;

/// In all, for one request.
const BOUND: Duration = Duration::from_secs(8);
/// Before the second try.
const FIRST: Duration = Duration::from_millis(5);
/// Longest time between tries.
const LONGEST: Duration = Duration::from_millis(100);

/// What is left of the time of one request.
pub struct Retry<'k> {
    kernel: &'k dyn Kernel,
    until: Duration,
}

impl<'k> Retry<'k> {
    /// Begins now.
    pub fn new(kernel: &'k dyn Kernel) -> Self {
        Self { kernel, until: kernel.now() + BOUND }
    }

    /// Tries at least once, and again for as long as the answer is "not yet".
    pub fn until<T>(
        &self,
        mut attempt: impl FnMut() -> io::Result<Option<T>>,
    ) -> io::Result<Option<T>> {
        let mut pause = FIRST;
        loop {
            if let Some(done) = attempt()? {
                return Ok(Some(done));
            }
            if self.kernel.now() >= self.until {
                return Ok(None);
            }
            self.kernel.sleep(pause);
            pause = (pause * 2).min(LONGEST);
        }
    }
}
