//! `cargo xtask lab test`: the tests of the lab, which begins again after a fault of the emulation.

use std::process::ExitCode;

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
        let (counts, durations) = self.until_the_end(options, filters)?;
        durations.iter().for_each(|line| println!("{line}"));
        ensure!(counts.total() > 0, "no test has a name with {filters:?} in it");
        println!("{counts}");
        Ok(if counts.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Counts, and a line for each test that ended: `lab: SECONDS s NAME`, which `scripts/test.sh`
    /// sorts.
    fn until_the_end(
        &self,
        options: &Options,
        filters: &[&str],
    ) -> anyhow::Result<(Counts, Vec<String>)> {
        // Measurements need the programs that users get.
        let measures = filters.iter().any(|filter| filter.starts_with("bench"));
        let bench: &[&str] = if measures { &[] } else { &["--skip", "bench"] };
        let command = [&["lab", "--test-threads=1", "--nocapture"], filters, bench].concat();
        let (mut durations, mut done, mut all) = (Vec::new(), Vec::new(), None);
        let mut options = options.clone();
        for _ in 0..=RESTARTS {
            let names: Vec<String> = done.iter().map(|test: &Finished| test.name.clone()).collect();
            let words = names.iter().flat_map(|name| ["--skip", name.as_str()]);
            let words: Vec<&str> = command.iter().copied().chain(words).collect();
            let ended = self.start(&options, &words, None)?;
            durations.extend(lines(&ended));
            all = all.or_else(|| report::announced(&ended.said));
            match ended.how {
                How::Exited(_) if done.is_empty() => {
                    return Ok((counts(&ended)?, durations));
                }
                How::Exited(_) => {
                    let counts = counts(&ended)?.with(&done);
                    // `--skip` takes parts of names: none may be lost by that.
                    ensure!(all == Some(counts.total()), "of {all:?} tests {counts}");
                    return Ok((counts, durations));
                }
                How::Broken(fault) => {
                    println!("lab: {fault}: the tests that were not at their end begin again");
                    done.extend(report::finished(&ended.said));
                }
            }
            options.build = Build::AsTheyAre;
        }
        bail!("the lab broke {} times", RESTARTS + 1)
    }
}

fn lines(ended: &Ended) -> Vec<String> {
    let line = |(name, duration): &(String, std::time::Duration)| {
        format!("lab: {:.1} s {name}", duration.as_secs_f64())
    };
    ended.durations.ended().iter().map(line).collect()
}

/// Test counts of a complete run.
fn counts(ended: &Ended) -> anyhow::Result<Counts> {
    let code = match ended.how {
        How::Exited(code) => code,
        How::Broken(fault) => bail!("{fault}"),
    };
    let counts = report::counts(&ended.said).with_context(|| {
        format!("the tests did not come to their end; see `{}`", ended.logs.display())
    })?;
    ensure!((code == 0) == (counts.failed == 0), "exit code {code}, but {counts}");
    Ok(counts)
}
