//! What the tests of the lab say at their end, in libtest's own words.

use std::fmt;

/// How many tests did what.
#[derive(Debug, PartialEq, Eq)]
pub struct Counts {
    /// Passed.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
    /// Left out by their own wish.
    pub skipped: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "lab: {} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(out, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// A test that came to its end.
#[derive(Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its whole name.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
}

impl Counts {
    /// With those of a run before, which was cut off.
    pub fn with(mut self, before: &[Finished]) -> Self {
        let passed = before.iter().filter(|test| test.passed).count() as u64;
        self.passed += passed;
        self.failed += before.len() as u64 - passed;
        self
    }
}

/// The tests that came to their end in a run that was cut off: `test NAME ... ok`, where what the
/// test itself says stands between name and verdict.
pub fn finished(said: &str) -> Vec<Finished> {
    let (mut found, mut running) = (Vec::new(), None);
    for line in said.lines().map(str::trim_end) {
        let begun = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "));
        let verdict = match begun {
            Some((name, rest)) => {
                running = Some(name.to_owned());
                rest
            }
            None => line,
        };
        let passed = match verdict {
            "ok" => true,
            "FAILED" => false,
            _ => continue,
        };
        found.extend(running.take().map(|name| Finished { name, passed }));
    }
    found
}

/// Reads `test result: ok. 5 passed; 0 failed; 1 ignored; …`, the last such line.
pub fn counts(said: &str) -> Option<Counts> {
    let line = said.lines().rev().find_map(|line| line.trim().strip_prefix("test result: "))?;
    let count = |word: &str| {
        line.split([';', '.']).find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
    };
    Some(Counts { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
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
        assert_eq!(counts, Counts { passed: 5, failed: 0, skipped: 1 });
        assert_eq!(counts.to_string(), "lab: 5 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn what_a_run_that_was_cut_off_had_finished() {
        let said = "\nrunning 4 tests\ntest a::one ... said\nmore\nok\ntest a::two ... ok\n\
                    test a::three ... thread panicked\nFAILED\ntest a::four ... pair 1: 3 ms\n";
        let finished = finished(said);
        let seen: Vec<(&str, bool)> =
            finished.iter().map(|test| (test.name.as_str(), test.passed)).collect();
        assert_eq!(seen, [("a::one", true), ("a::two", true), ("a::three", false)]);
        let counts = Counts { passed: 1, failed: 0, skipped: 0 }.with(&finished);
        assert_eq!(counts, Counts { passed: 3, failed: 1, skipped: 0 });
    }

    #[test]
    fn no_result_is_none() {
        assert_eq!(counts("test a ... ok\n"), None);
    }
}
