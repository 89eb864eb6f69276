//! `cargo xtask lab test`: the tests of the lab, which begins again after a fault of the emulation.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail, ensure};

use super::machine::{Ended, How};
use super::report::{self, Counts, Finished};
use super::{Build, Lab, Options};

/// How often a lab begins again after a fault of the emulation.
const RESTARTS: usize = 3;

impl Lab {
    /// The tests whose names have a filter in them, without filters all but measurements; prints
    /// durations and counts.
    ///
    /// # Errors
    /// The lab cannot be built or started, or the tests did not come to their end.
    pub(super) fn tests(&self, options: &Options, filters: &[&str]) -> anyhow::Result<ExitCode> {
        let counts = self.until_the_end(options, filters)?;
        let ran = counts.passed + counts.failed + counts.left_out;
        ensure!(ran > 0, "no test has a name with {filters:?} in it");
        println!("{counts}");
        let is_whole = counts.failed + counts.left_out == 0;
        Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Runs the tests in one lab after another until all are at their end.
    fn until_the_end(&self, options: &Options, filters: &[&str]) -> anyhow::Result<Counts> {
        // Measurements need the programs that users get.
        let bench: &[&str] = if filters.is_empty() { &["--skip", "bench"] } else { &[] };
        let command = [&["lab", "--test-threads=1", "--nocapture"], filters, bench].concat();
        let mut options = options.clone();
        let until = Instant::now() + options.timeout;
        let (mut done, mut all): (Vec<Finished>, _) = (Vec::new(), None);
        for _ in 0..=RESTARTS {
            let skipped = done.iter().flat_map(|test| ["--skip", test.name.as_str()]);
            let words: Vec<&str> = command.iter().copied().chain(skipped).collect();
            options.timeout = until.saturating_duration_since(Instant::now());
            let ended = self.start(&options, &words, None)?;
            print_durations(&ended);
            all = all.or_else(|| report::announced(&ended.said));
            match ended.how {
                How::Exited(code) => {
                    let counts = counts(&ended, code)?;
                    if done.is_empty() {
                        return Ok(counts);
                    }
                    let counts = counts.with(&done);
                    // `--skip` takes parts of names: none may be lost by that.
                    ensure!(all == Some(counts.total()), "of {all:?} tests {counts}");
                    return Ok(counts);
                }
                How::Broken(fault) => {
                    println!("lab: {fault}: the tests that were not at their end begin again");
                    done.extend(report::finished(&ended.said));
                }
                How::OutOfTime(seconds) => {
                    done.extend(report::finished(&ended.said));
                    let all = all.with_context(|| format!("no test began within {seconds} s"))?;
                    return Ok(Counts::cut_off(&done, all));
                }
            }
            options.build = Build::AsTheyAre;
        }
        bail!("the lab broke {} times", RESTARTS + 1)
    }
}

/// Prints a line for each test that ended: `lab: SECONDS s NAME`, which `scripts/test.sh` sorts.
fn print_durations(ended: &Ended) {
    for (name, duration) in ended.durations.ended() {
        println!("lab: {:.1} s {name}", duration.as_secs_f64());
    }
}

/// Test counts of a complete run.
fn counts(ended: &Ended, code: u8) -> anyhow::Result<Counts> {
    let counts = report::counts(&ended.said)
        .context("the tests did not come to their end; see `.cache/lab/logs/latest`")?;
    ensure!((code == 0) == (counts.failed == 0), "exit code {code}, but {counts}");
    Ok(counts)
}
