//! Progress of operations on stderr: on a terminal one redrawn line for each operation, replaced by
//! a line with the total; elsewhere only that line.

use std::time::Duration;

use banger_api::operation::{OpEvent, OpEventKind, stage};
use banger_api::size::human_size;
use banger_api::vm::{DEFAULT_GRACE_MS, VmAction};
use banger_client::follow::{Notice, Observer, WaitEnd};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::context::{Context, Verbosity};
use crate::render::live::LiveTerminal;
use crate::render::rate::Rate;
use crate::render::time::{duration, duration_whole};
use crate::render::{plain, stderr_is_live, to_stderr, warning};

/// How often a running stage is redrawn.
const TICK: Duration = Duration::from_millis(100);
/// Upper bound of redraws.
const REDRAWS_PER_S: u8 = 20;
/// Pause between plain lines about one transfer, in milliseconds.
const PLAIN_PAUSE_MS: u64 = 10_000;

/// Message after Ctrl-C before the daemon has answered a request.
pub const AWAITING_ANSWER: &str =
    "waiting for the daemon's answer; press Ctrl-C again to stop waiting";
/// Message after the second Ctrl-C before the daemon has answered a request.
pub const REQUEST_UNANSWERED: &str = "stopped waiting; nothing was cancelled, since the daemon has \
    not answered: `banger operation list` shows whether an operation has started";

/// Lines that remain on the screen. A verbose command keeps one for every stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// Download stages, and the time until the machine was ready.
    Ready,
    /// The time until the machine was created.
    Created,
    /// The total.
    Total,
    /// Download stages.
    Fetches,
    /// None.
    None,
}

/// Shows one or several operations at once.
pub struct Progress {
    live: Option<MultiProgress>,
    lines: Lines,
    verbosity: Verbosity,
    grace_ms: u64,
}

impl Progress {
    /// Creates the display of a command.
    pub fn new(context: &Context, lines: Lines) -> Self {
        let verbosity = context.verbosity;
        let is_live = verbosity > Verbosity::Quiet && stderr_is_live();
        let live = is_live.then(|| {
            let terminal = Box::new(LiveTerminal::default());
            let target = ProgressDrawTarget::term_like_with_hz(terminal, REDRAWS_PER_S);
            MultiProgress::with_draw_target(target)
        });
        Self { live, lines, verbosity, grace_ms: DEFAULT_GRACE_MS }
    }

    /// Sets the grace period of a stop.
    pub fn with_grace(mut self, action: &VmAction) -> Self {
        if let VmAction::Stop { grace_ms } | VmAction::Restart { grace_ms } = action {
            self.grace_ms = *grace_ms;
        }
        self
    }

    /// Writes lines above the live ones.
    pub fn above<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.live {
            Some(all) => all.suspend(write),
            None => write(),
        }
    }

    /// Adds an operation under a label.
    pub fn track(&self, label: impl Into<String>) -> Track {
        let label = plain::line(&label.into());
        let bar = self.live.as_ref().map(|all| {
            let bar = all.add(ProgressBar::new_spinner());
            // An invalid template would leave the default style.
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(label.clone());
            bar.enable_steady_tick(TICK);
            bar
        });
        let screen =
            Screen { all: self.live.clone(), bar, verbosity: self.verbosity, lines: self.lines };
        let grace_ms = self.grace_ms;
        Track { label, screen, rate: Rate::default(), reported_ms: 0, grace_ms, worked: false }
    }
}

/// Shows one operation.
pub struct Track {
    label: String,
    screen: Screen,
    rate: Rate,
    reported_ms: u64,
    grace_ms: u64,
    /// Whether a stage has begun; an operation that finds all as wanted has none.
    worked: bool,
}

struct Screen {
    all: Option<MultiProgress>,
    bar: Option<ProgressBar>,
    verbosity: Verbosity,
    lines: Lines,
}

impl Screen {
    fn above(&self, write: impl FnOnce()) {
        match &self.all {
            Some(all) => all.suspend(write),
            None => write(),
        }
    }

    /// Whether the line of a finished stage remains.
    fn keeps(&self, stage: &str) -> bool {
        match self.verbosity {
            Verbosity::Quiet => false,
            Verbosity::Verbose => true,
            Verbosity::Normal => {
                matches!(self.lines, Lines::Ready | Lines::Fetches) && stage.starts_with("pull_")
            }
        }
    }

    /// Whether a long stage gets lines from time to time if no line can be redrawn.
    fn reminds(&self, name: &str) -> bool {
        let fetches = self.lines == Lines::Total || name == stage::SHUTDOWN;
        self.bar.is_none() && (self.keeps(name) || (fetches && self.verbosity > Verbosity::Quiet))
    }

    fn total(&self) -> Option<&'static str> {
        match self.lines {
            _ if self.verbosity == Verbosity::Quiet => None,
            Lines::Ready => Some("ready in"),
            Lines::Created => Some("created in"),
            Lines::Total => Some("done in"),
            Lines::Fetches | Lines::None => None,
        }
    }
}

impl Observer for Track {
    fn event(&mut self, event: &OpEvent) {
        match &event.what {
            OpEventKind::StageStarted { stage } => self.begin(stage),
            OpEventKind::StageDone { stage, ms } => {
                if self.screen.keeps(stage) {
                    self.line(&format!("{}: {stage} {}", self.label, duration(*ms)));
                }
            }
            OpEventKind::Progress { stage, done, total, unit: None } => {
                self.transfer(event.at_ms, stage, *done, *total);
            }
            OpEventKind::Progress { stage, done, total, unit: Some(unit) } => {
                self.count(event.at_ms, stage, (*done, *total), unit);
            }
            OpEventKind::Note { text } => self.note(text),
            OpEventKind::Warning { text } => self.warn(text),
            OpEventKind::Succeeded { .. } => self.succeeded(event.at_ms),
            OpEventKind::Failed { .. } => self.end(),
            OpEventKind::Subject { .. } => {}
        }
    }

    fn notice(&mut self, notice: Notice<'_>) {
        match notice {
            Notice::Operation(operation) if self.screen.verbosity == Verbosity::Verbose => {
                self.line(&format!("{}: operation {operation}", self.label));
            }
            Notice::Operation(_) => {}
            Notice::Warning(text) => self.warn(text),
            Notice::AwaitingAnswer => self.note(AWAITING_ANSWER),
            Notice::Cancelling => self.note("cancelling; press Ctrl-C again to stop waiting"),
            Notice::NotCancelled => {
                self.note("cannot be cancelled; press Ctrl-C again to stop waiting")
            }
            Notice::StillIn(stage, elapsed) => {
                if self.screen.reminds(stage) {
                    let elapsed = duration(elapsed.as_secs().saturating_mul(1000));
                    let text = still_text(&self.stage_text(stage), &elapsed);
                    self.line(&format!("{}: {text}", self.label));
                }
            }
            Notice::WaitEnded(end) => {
                self.end();
                self.note(&wait_end_text(end, &self.label));
            }
        }
    }
}

impl Track {
    fn begin(&mut self, stage: &str) {
        self.worked = true;
        self.rate = Rate::default();
        self.reported_ms = 0;
        if let Some(bar) = &self.screen.bar {
            let style = "{spinner} {prefix}: {msg} {elapsed}";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar.reset_elapsed();
            bar.set_message(self.stage_text(stage));
        }
    }

    /// Text of a running stage.
    fn stage_text(&self, name: &str) -> String {
        if name == stage::SHUTDOWN {
            let grace = duration_whole(self.grace_ms);
            return format!("waiting for the guest to shut down, killed after {grace}");
        }
        plain::line(name)
    }

    fn count(&mut self, at_ms: u64, stage: &str, (done, total): (u64, Option<u64>), unit: &str) {
        let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
        self.advance(at_ms, stage, plain::line(&format!("{stage} {done}{of} {unit}")));
    }

    /// Shows the bytes transferred in a stage.
    pub fn transfer(&mut self, at_ms: u64, stage: &str, done: u64, total: Option<u64>) {
        let rate = self.rate.at(at_ms, done);
        self.advance(at_ms, stage, transfer_text(stage, done, total, rate));
    }

    /// Shows the progress of a stage in the live line, or from time to time in a line of its own.
    fn advance(&mut self, at_ms: u64, stage: &str, text: String) {
        match &self.screen.bar {
            Some(bar) => bar.set_message(text),
            None if at_ms >= self.reported_ms + PLAIN_PAUSE_MS && self.screen.reminds(stage) => {
                self.reported_ms = at_ms;
                self.line(&format!("{}: {text}", self.label));
            }
            None => {}
        }
    }

    fn succeeded(&self, ms: u64) {
        self.end();
        if let Some(words) = self.screen.total()
            && self.worked
        {
            self.line(&format!("{}: {words} {}", self.label, duration(ms)));
        }
    }

    fn note(&self, text: &str) {
        if self.screen.verbosity > Verbosity::Quiet {
            self.line(&format!("{}: {text}", self.label));
        }
    }

    fn warn(&self, text: &str) {
        self.screen.above(|| warning(&format!("{}: {text}", self.label)));
    }

    fn line(&self, text: &str) {
        self.screen.above(|| to_stderr(text));
    }

    /// Clears the live line.
    fn end(&self) {
        if let Some(bar) = &self.screen.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        self.end();
    }
}

/// `pull_image, 12 s so far`; between two stages there is no name.
fn still_text(stage: &str, elapsed: &str) -> String {
    if stage.is_empty() {
        format!("{elapsed} since the last stage")
    } else {
        format!("{stage}, {elapsed} so far")
    }
}

fn wait_end_text(end: WaitEnd, vm: &str) -> String {
    match end {
        WaitEnd::Cancelling => "stopped waiting; the daemon completes the cancellation".to_owned(),
        WaitEnd::CancelUnanswered => {
            "stopped waiting; the daemon does not answer the cancel request".to_owned()
        }
        WaitEnd::EndsSoon => "stopped waiting; the operation continues in the daemon".to_owned(),
        WaitEnd::RequestUnanswered => REQUEST_UNANSWERED.to_owned(),
        WaitEnd::NotStarted => "not requested".to_owned(),
        WaitEnd::StopContinues => format!(
            "stopped waiting; the stop continues in the daemon, `banger vm kill {vm}` ends `{vm}` \
             at once"
        ),
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
    fn a_reminder_between_stages_has_no_empty_name() {
        assert_eq!(still_text("pull_image", "12 s"), "pull_image, 12 s so far");
        assert_eq!(still_text("", "12 s"), "12 s since the last stage");
    }

    #[test]
    fn a_transfer_shows_bytes_and_rate() {
        assert_eq!(transfer_text("pull_image", 2048, None, None), "pull_image 2 KiB");
        assert_eq!(
            transfer_text("pull_image", 1 << 20, Some(1 << 30), Some(1536 << 10)),
            "pull_image 1 MiB of 1 GiB, 1.5 MiB/s"
        );
    }
}
