//! `cargo xtask lab test`: the tests of the lab, all of them in two labs at once.
//!
//! A lab keeps one and a half processors busy: a guest in it has one, and what serves it the rest.

use std::process::ExitCode;
use std::thread;

use anyhow::{Context, bail, ensure};

use super::machine::{Ended, How};
use super::report::{self, Counts, Finished};
use super::{Build, Lab, Options, cache, fixture, image, payload};

/// Parts of names of tests that take about half of the time of all.
const FIRST_SHARE: [&str; 6] = ["kill::", "users::", "verify", "jail", "smoke::", "guests::"];

/// How often a lab begins again after a fault of the emulation.
const RESTARTS: usize = 3;

impl Lab {
    /// All tests but measurements, in two labs at once; prints durations and counts of both.
    ///
    /// # Errors
    /// As [`Lab::tests`].
    pub(super) fn all_tests(&self, options: &Options) -> anyhow::Result<ExitCode> {
        // Once, before both.
        image::ready(self)?;
        fixture::ready(self)?;
        payload::programs(&self.root, options.build)?;
        cache::ready(self, options.build)?;
        let options = Options { build: Build::AsTheyAre, ..options.clone() };
        let skipped: Vec<&str> = FIRST_SHARE.iter().flat_map(|filter| ["--skip", filter]).collect();
        let (first, second) = thread::scope(|scope| {
            let first = scope.spawn(|| self.share(&options, &FIRST_SHARE, Some(1)));
            let second = self.share(&options, &skipped, Some(2));
            (first.join(), second)
        });
        let Ok(first) = first else { bail!("the thread of a lab panicked") };
        let (first, second) = (first?, second?);
        for share in [&first, &second] {
            share.durations.iter().for_each(|line| println!("{line}"));
        }
        verdict(&first.counts.and(&second.counts))
    }

    /// The tests whose names have a filter in them; prints durations and counts.
    ///
    /// # Errors
    /// The lab cannot be built or started, or the tests did not come to their end.
    pub(super) fn tests(&self, options: &Options, filters: &[&str]) -> anyhow::Result<ExitCode> {
        let share = self.share(options, filters, None)?;
        share.durations.iter().for_each(|line| println!("{line}"));
        ensure!(share.counts.total() > 0, "no test has a name with {filters:?} in it");
        verdict(&share.counts)
    }

    /// Tests in one lab, which begins again after a fault of the emulation.
    fn share(
        &self,
        options: &Options,
        filters: &[&str],
        number: Option<u8>,
    ) -> anyhow::Result<Share> {
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
            let ended = self.start(&options, &words, None, number)?;
            durations.extend(lines(&ended));
            all = all.or_else(|| report::announced(&ended.said));
            match ended.how {
                How::Exited(_) if done.is_empty() => {
                    return Ok(Share { counts: counts(&ended)?, durations });
                }
                How::Exited(_) => {
                    let counts = counts(&ended)?.with(&done);
                    // `--skip` takes parts of names: none may be lost by that.
                    ensure!(all == Some(counts.total()), "of {all:?} tests {counts}");
                    return Ok(Share { counts, durations });
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

/// What one lab did of the tests.
struct Share {
    counts: Counts,
    /// A line for each test that ended: `lab: SECONDS s NAME`, which `scripts/test.sh` sorts.
    durations: Vec<String>,
}

fn verdict(counts: &Counts) -> anyhow::Result<ExitCode> {
    println!("{counts}");
    Ok(if counts.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
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
