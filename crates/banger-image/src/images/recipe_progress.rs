//! Progress of mmdebstrap, derived from the output of mmdebstrap, apt and dpkg.

/// Progress reported by a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A stage of mmdebstrap begins.
    Stage(String),
    /// Unit, number of processed packages, total.
    Items(&'static str, u64, u64),
}

/// Counts packages. mmdebstrap installs in two rounds, the essential packages first; the size of
/// the second is known when it begins.
#[derive(Debug, Default)]
pub struct Meter {
    packages: u64,
    downloaded: u64,
    unpacked: u64,
    set_up: u64,
}

impl Meter {
    /// Processes the next line.
    pub fn line(&mut self, line: &str) -> Option<Step> {
        if let Some(stage) = stage(line) {
            return Some(Step::Stage(stage));
        }
        if let Some(count) = newly_installed(line) {
            self.packages = self.packages.saturating_add(count);
            return None;
        }
        // Lists are fetched before the first count is known.
        let (unit, count) = if line.starts_with("Get:") && self.packages > 0 {
            ("packages downloaded", &mut self.downloaded)
        } else if line.starts_with("Unpacking ") {
            ("packages unpacked", &mut self.unpacked)
        } else if line.starts_with("Setting up ") {
            ("packages set up", &mut self.set_up)
        } else {
            return None;
        };
        *count = count.saturating_add(1);
        Some(Step::Items(unit, *count, self.packages.max(*count)))
    }
}

/// The stage that begins with a line of mmdebstrap: `I: running apt-get update...`.
fn stage(line: &str) -> Option<String> {
    let stage = line.strip_prefix("I: ")?.strip_suffix("...")?;
    let is_readable = !stage.contains('/') && !stage.is_empty() && stage.len() <= 60;
    is_readable.then(|| stage.to_owned())
}

/// The number in `0 upgraded, 69 newly installed, 0 to remove and 0 not upgraded.`
fn newly_installed(line: &str) -> Option<u64> {
    let (before, _) = line.split_once(" newly installed, ")?;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_have_readable_names() {
        assert_eq!(stage("I: extracting archives..."), Some("extracting archives".into()));
        for line in [
            "I: removing tempdir /tmp/mmdebstrap.d3Iex...",
            "I: success in 72.7366 seconds",
            "W: something...",
            "I: ...",
        ] {
            assert_eq!(stage(line), None, "{line}");
        }
    }

    #[test]
    fn packages_are_counted_over_both_rounds() {
        let mut meter = Meter::default();
        let mut steps = Vec::new();
        for line in [
            "I: running apt-get update...",
            "Get:1 http://mirror.example/debian bookworm InRelease [151 kB]",
            "0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.",
            "Get:1 http://mirror.example/debian bookworm/main amd64 less amd64 590-2 [131 kB]",
            "Get:2 http://mirror.example/debian bookworm/main amd64 nano amd64 7.2-1 [690 kB]",
            "Unpacking less (590-2) ...",
            "Setting up less (590-2) ...",
            "0 upgraded, 1 newly installed, 0 to remove and 0 not upgraded.",
            "Get:1 http://mirror.example/debian bookworm/main amd64 x amd64 1 [1 kB]",
            "Processing triggers for libc-bin (2.36-9) ...",
        ] {
            steps.extend(meter.line(line));
        }
        let items = |what, done, total| Step::Items(what, done, total);
        let wanted = [
            Step::Stage("running apt-get update".into()),
            items("packages downloaded", 1, 2),
            items("packages downloaded", 2, 2),
            items("packages unpacked", 1, 2),
            items("packages set up", 1, 2),
            items("packages downloaded", 3, 3),
        ];
        assert_eq!(steps, wanted);
    }
}
