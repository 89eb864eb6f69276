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
    fn no_result_is_none() {
        assert_eq!(counts("test a ... ok\n"), None);
    }
}
