//! Stages of operations on stderr: redrawn lines on a terminal, plain lines elsewhere.

use std::time::Duration;

use banger_api::operation::{OpEvent, OpEventKind};
use banger_api::size::human_size;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::context::{Context, Volume};
use crate::render::rate::Rate;
use crate::render::time::duration;
use crate::render::{plain, stderr_is_live, to_stderr, warning};

/// How often a running stage is redrawn.
const TICK: Duration = Duration::from_millis(100);
/// Pause between plain lines about one transfer, in milliseconds.
const PLAIN_PAUSE_MS: u64 = 10_000;

/// Which stages are worth a line of their own once they are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All.
    All,
    /// Those that fetch something: the rest is over soon.
    Fetches,
    /// None.
    None,
}

/// Shows one or several operations at once.
pub struct Progress {
    live: Option<MultiProgress>,
    keep: Keep,
    quiet: bool,
}

impl Progress {
    /// For a command; a verbose one keeps every stage.
    pub fn new(context: &Context, keep: Keep) -> Self {
        let quiet = context.volume == Volume::Quiet;
        let keep = if context.volume == Volume::Verbose { Keep::All } else { keep };
        let live = (!quiet && stderr_is_live()).then(MultiProgress::new);
        Self { live, keep, quiet }
    }

    /// Shows one more operation under a name.
    pub fn track(&self, label: impl Into<String>) -> Track {
        let label = plain::line(&label.into());
        let bar = self.live.as_ref().map(|all| {
            let bar = all.add(ProgressBar::new_spinner());
            // A template that cannot be read would leave the default, which does as well.
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(label.clone());
            bar.enable_steady_tick(TICK);
            bar
        });
        let screen = Screen { all: self.live.clone(), bar, quiet: self.quiet, keep: self.keep };
        Track { label, screen, rate: Rate::default(), said_ms: 0, stage: String::new() }
    }
}

/// Shows one operation.
pub struct Track {
    label: String,
    screen: Screen,
    stage: String,
    rate: Rate,
    said_ms: u64,
}

struct Screen {
    all: Option<MultiProgress>,
    bar: Option<ProgressBar>,
    quiet: bool,
    keep: Keep,
}

impl Screen {
    fn above(&self, write: impl FnOnce()) {
        match &self.all {
            Some(all) => all.suspend(write),
            None => write(),
        }
    }

    fn keeps(&self, stage: &str) -> bool {
        match self.keep {
            _ if self.quiet => false,
            Keep::All => true,
            Keep::Fetches => stage.starts_with("pull_"),
            Keep::None => false,
        }
    }
}

impl Track {
    /// Shows an event.
    pub fn event(&mut self, event: &OpEvent) {
        match &event.what {
            OpEventKind::StageStarted { stage } => self.begin(stage),
            OpEventKind::StageDone { stage, ms } => {
                if self.screen.keeps(stage) {
                    self.line(&format!("{}: {stage} {}", self.label, duration(*ms)));
                }
            }
            OpEventKind::Progress { stage, done, total } => {
                self.transfer(event.at_ms, stage, *done, *total);
            }
            OpEventKind::Note { text } => self.note(text),
            OpEventKind::Warning { text } => self.warn(text),
            OpEventKind::Vm { .. } | OpEventKind::Succeeded { .. } | OpEventKind::Failed { .. } => {
            }
        }
    }

    fn begin(&mut self, stage: &str) {
        self.stage = stage.to_owned();
        self.rate = Rate::default();
        self.said_ms = 0;
        if let Some(bar) = &self.screen.bar {
            let style = "{spinner} {prefix}: {msg} {elapsed}";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar.reset_elapsed();
            bar.set_message(plain::line(stage));
        }
    }

    fn transfer(&mut self, at_ms: u64, stage: &str, done: u64, total: Option<u64>) {
        let rate = self.rate.at(at_ms, done);
        let text = transfer_text(stage, done, total, rate);
        match &self.screen.bar {
            Some(bar) => bar.set_message(text),
            None if at_ms >= self.said_ms + PLAIN_PAUSE_MS && self.screen.keeps(stage) => {
                self.said_ms = at_ms;
                self.line(&format!("{}: {text}", self.label));
            }
            None => {}
        }
    }

    /// Says something in passing.
    pub fn note(&self, text: &str) {
        if !self.screen.quiet {
            self.line(&format!("{}: {text}", self.label));
        }
    }

    /// Warns in passing.
    pub fn warn(&self, text: &str) {
        self.screen.above(|| warning(&format!("{}: {text}", self.label)));
    }

    fn line(&self, text: &str) {
        self.screen.above(|| to_stderr(text));
    }

    /// Clears the line of a running stage.
    pub fn end(&self) {
        if let Some(bar) = &self.screen.bar {
            bar.finish_and_clear();
        }
    }

    /// Clears the line and says why it is not followed any further.
    pub fn leave(&self, text: &str) {
        self.end();
        self.note(text);
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        self.end();
    }
}

fn transfer_text(stage: &str, done: u64, total: Option<u64>, rate: Option<u64>) -> String {
    let mut text = format!("{} {}", plain::line(stage), human_size(done));
    if let Some(total) = total {
        text.push_str(&format!(" of {}", human_size(total)));
    }
    if let Some(rate) = rate {
        text.push_str(&format!(", {}/s", human_size(rate)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_tells_bytes_and_rate() {
        assert_eq!(transfer_text("pull_image", 2048, None, None), "pull_image 2 KiB");
        assert_eq!(
            transfer_text("pull_image", 1 << 20, Some(1 << 30), Some(1536 << 10)),
            "pull_image 1 MiB of 1 GiB, 1.5 MiB/s"
        );
    }
}
