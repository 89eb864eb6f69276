//! Retries while another process has a device open.
//!
//! udev opens each new device briefly, and the kernel closes the devices of a killed VMM
//! asynchronously.

use std::io;
use std::time::Duration;

use super::kernel::Kernel;

/// Time limit for one request.
const BOUND: Duration = Duration::from_secs(8);
/// Delay before the second attempt.
const FIRST: Duration = Duration::from_millis(5);
/// Maximum delay between attempts.
const LONGEST: Duration = Duration::from_millis(100);

/// The deadline of one request.
pub struct Retry<'k> {
    kernel: &'k dyn Kernel,
    until: Duration,
}

impl<'k> Retry<'k> {
    /// Starts the time limit.
    pub fn new(kernel: &'k dyn Kernel) -> Self {
        Self { kernel, until: kernel.now() + BOUND }
    }

    /// Calls a function at least once, and again until it returns a result or the deadline passes.
    ///
    /// # Errors
    /// The first error of the function. `Ok(None)`: the time limit has passed.
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
