//! How long each test of the lab takes, measured from when its output arrives: libtest reports no
//! durations on a stable toolchain.

use std::time::{Duration, Instant};

/// Longest part of a line that is kept: only the beginning of a line names a test.
const LINE_BYTES: usize = 512;

/// Durations of tests, in the order in which they ran.
#[derive(Debug, Default)]
pub struct Durations {
    line: Vec<u8>,
    running: Option<(String, Instant)>,
    ended: Vec<(String, Duration)>,
}

/// The test that a line of libtest begins: `test NAME ... `, complete or not.
fn begun(line: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(line).ok()?;
    let (name, _) = line.strip_prefix("test ")?.split_once(" ... ")?;
    (!name.contains(' ')).then_some(name)
}

impl Durations {
    /// Takes the next bytes of output, which arrived at `now`.
    pub fn observe(&mut self, bytes: &[u8], now: Instant) {
        for byte in bytes {
            if *byte == b'\n' {
                if self.line.starts_with(b"test result: ") {
                    self.end(now);
                }
                self.line.clear();
            } else if self.line.len() < LINE_BYTES {
                self.line.push(*byte);
                if let Some(name) = begun(&self.line).map(str::to_owned) {
                    self.begin(name, now);
                }
            }
        }
    }

    fn begin(&mut self, name: String, now: Instant) {
        if self.running.as_ref().is_some_and(|(running, _)| *running == name) {
            return;
        }
        self.end(now);
        self.running = Some((name, now));
    }

    fn end(&mut self, now: Instant) {
        if let Some((name, since)) = self.running.take() {
            self.ended.push((name, now.duration_since(since)));
        }
    }

    /// The tests that have ended, each with its duration.
    pub fn ended(&self) -> &[(String, Duration)] {
        &self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_run_from_one_test_to_the_next() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut durations = Durations::default();
        durations.observe(b"running 2 tests\ntest a::one ..", at(1));
        durations.observe(b". some output\nmore\nok\n", at(2));
        durations.observe(b"test a::two ... ", at(5));
        durations.observe(b"ok\ntest of words ... which name none\n\ntest result: ok. ", at(9));
        assert_eq!(durations.ended().len(), 1, "the second ends with the result line");
        durations.observe(b"2 passed\n", at(9));
        let expected = [("a::one", 3), ("a::two", 4)]
            .map(|(name, seconds)| (name.to_owned(), Duration::from_secs(seconds)));
        assert_eq!(durations.ended(), expected);
    }
}
