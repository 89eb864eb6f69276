//! Outcomes of labs, and the output of libtest in them.

use std::fmt;

/// Faults of QEMU's emulation of a processor with virtual machines, each seen once in some hundreds
/// of boots of guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Heartbeats stopped.
    Froze,
    /// The lab's own kernel panicked.
    Panicked,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Froze => {
                "the lab froze: QEMU, which emulates it, let none of its processors go on"
            }
            Self::Panicked => "the kernel of the lab panicked, see its `boot.log`",
        })
    }
}

/// Test counts.
#[derive(Debug, PartialEq, Eq)]
pub struct Counts {
    /// Passed.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
    /// Ignored.
    pub skipped: u64,
    /// Not at their end when the time was over.
    pub left_out: u64,
    /// Whether the lab broke and was restarted with the remaining tests.
    pub again: bool,
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "lab: {} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(out, ", {} skipped", self.skipped)?;
        }
        if self.left_out > 0 {
            write!(out, ", {} left out, as the time was over", self.left_out)?;
        }
        if self.again {
            write!(out, ", begun again after a fault of the emulation")?;
        }
        Ok(())
    }
}

/// A finished test.
#[derive(Debug, PartialEq, Eq)]
pub struct Finished {
    /// Full name.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
}

impl Counts {
    /// Adds the tests that finished in an earlier, interrupted run.
    pub fn with(mut self, before: &[Finished]) -> Self {
        let passed = before.iter().filter(|test| test.passed).count() as u64;
        self.passed += passed;
        self.failed += before.len() as u64 - passed;
        self.again = true;
        self
    }

    /// Counts of a run whose time was over, of this many tests.
    pub fn cut_off(done: &[Finished], all: u64) -> Self {
        let passed = done.iter().filter(|test| test.passed).count() as u64;
        let left_out = all.saturating_sub(done.len() as u64);
        Self { passed, failed: done.len() as u64 - passed, skipped: 0, left_out, again: false }
    }

    /// Number of all tests.
    pub fn total(&self) -> u64 {
        self.passed + self.failed + self.skipped
    }
}

/// Number of tests in the line `running N tests`.
pub fn announced(said: &str) -> Option<u64> {
    let count = |line: &str| line.strip_prefix("running ")?.split(' ').next()?.parse().ok();
    said.lines().find_map(count)
}

/// The finished tests of an interrupted run: lines `test NAME ... ok`, with the test's own output
/// between name and verdict. A test may print `ok` itself, so the last one before the next test
/// counts. It is unknown whether the very last test finished.
pub fn finished(said: &str) -> Vec<Finished> {
    let (mut found, mut running): (Vec<Finished>, Option<(String, Option<bool>)>) =
        (Vec::new(), None);
    for line in said.lines().map(str::trim_end) {
        let begun = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "));
        let verdict = match begun {
            Some((name, rest)) => {
                if let Some((name, Some(passed))) = running.replace((name.to_owned(), None)) {
                    found.push(Finished { name, passed });
                }
                rest
            }
            None => line,
        };
        if let (Some((_, passed)), "ok" | "FAILED") = (&mut running, verdict) {
            *passed = Some(verdict == "ok");
        }
    }
    found
}

/// Reads `test result: ok. 5 passed; 0 failed; 1 ignored; …`, the last such line.
pub fn counts(said: &str) -> Option<Counts> {
    let line = said.lines().rev().find_map(|line| line.trim().strip_prefix("test result: "))?;
    let count = |word: &str| {
        line.split([';', '.']).find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
    };
    Some(Counts {
        passed: count("passed")?,
        failed: count("failed")?,
        skipped: count("ignored")?,
        left_out: 0,
        again: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_result_counts() {
        let said = "test result: FAILED. 9 passed; 9 failed; 9 ignored; 0 measured\nrunning\n\
                    test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; \
                    finished in 0.00s\n\n";
        let counts = counts(said).unwrap();
        assert_eq!(counts, Counts { passed: 5, failed: 0, skipped: 1, left_out: 0, again: false });
        assert_eq!(counts.to_string(), "lab: 5 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn what_a_run_that_was_cut_off_had_finished() {
        let said = "\nrunning 5 tests\ntest a::one ... said\nmore\nok\ntest a::two ... ok\n\
                    test a::three ... ok\nthread panicked\nFAILED\ntest a::four ... ok\n";
        let finished = finished(said);
        let seen: Vec<(&str, bool)> =
            finished.iter().map(|test| (test.name.as_str(), test.passed)).collect();
        assert_eq!(seen, [("a::one", true), ("a::two", true), ("a::three", false)]);
        assert_eq!(announced(said), Some(5));
        let cut_off = Counts::cut_off(&finished, 5).to_string();
        assert_eq!(cut_off, "lab: 2 passed, 1 failed, 2 left out, as the time was over");
        let counts =
            Counts { passed: 2, failed: 0, skipped: 0, left_out: 0, again: false }.with(&finished);
        assert_eq!(counts, Counts { passed: 4, failed: 1, skipped: 0, left_out: 0, again: true });
        assert_eq!(counts.total(), 5);
        assert_eq!(
            counts.to_string(),
            "lab: 4 passed, 1 failed, begun again after a fault of the emulation"
        );
    }

    #[test]
    fn no_result_is_none() {
        assert_eq!(counts("test a ... ok\n"), None);
    }
}
