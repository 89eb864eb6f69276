//! How a VMM ended, from the file that its shim left.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use banger_engine::drivers::{ExitStory, GuestEnd};
use banger_shim::{EXIT_FILE, ExitCause, ExitStory as ShimStory, GuestLast, Outcome};

/// What is said when the shim left no story: it was killed itself.
pub const NO_STORY: &str = "the VMM ended with its shim, which was killed before it could say how";

/// Largest story that is read.
const MAX_STORY: u64 = 1 << 20;

/// The story in a shim's state folder, if there is one.
pub fn read(state: &Path) -> Option<ExitStory> {
    let file = File::open(state.join(EXIT_FILE)).ok()?;
    let mut text = Vec::new();
    file.take(MAX_STORY).read_to_end(&mut text).ok()?;
    let story: ShimStory = serde_json::from_slice(&text).ok()?;
    Some(tell(&story))
}

/// A story in our words.
pub fn tell(story: &ShimStory) -> ExitStory {
    let vmm = outcome("the VMM", story.vmm.as_ref());
    let summary = match &story.cause {
        ExitCause::VmmExited => vmm,
        ExitCause::CompanionDied => {
            let companion = outcome("the companion", story.companion.as_ref());
            format!("{companion}, so the VMM was ended")
        }
        ExitCause::PoweredOff => "the guest powered off".into(),
        ExitCause::Asked => "the VMM was ended as asked".into(),
        ExitCause::LaunchFailed { step, message } => format!("{step} failed: {message}"),
    };
    let guest = match story.guest {
        Some(GuestLast::Shutdown) => GuestEnd::Poweroff,
        Some(GuestLast::Reset) => GuestEnd::Reboot,
        Some(GuestLast::Panic) => GuestEnd::Panic,
        None => GuestEnd::Unknown,
    };
    let mut tail = String::new();
    for text in [&story.console_tail, &story.vmm_log_tail] {
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        for line in lines.iter().skip(lines.len().saturating_sub(8)) {
            tail.push_str(&crate::guest::clean(line));
            tail.push('\n');
        }
    }
    ExitStory { guest, summary, tail: tail.trim_end().to_owned() }
}

fn outcome(who: &str, outcome: Option<&Outcome>) -> String {
    match outcome {
        Some(Outcome::Exited { code }) => format!("{who} exited with code {code}"),
        Some(Outcome::Signaled { signal }) => format!("{who} was killed by signal {signal}"),
        None => format!("{who} never ran"),
    }
}
