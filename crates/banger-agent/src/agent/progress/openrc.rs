//! OpenRC keeps its state under /run/openrc: the runlevel in `softlevel`, a folder `rc.starting`
//! while services start, and a name in `failed` for each service that did not.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::time::Timespec;

use super::Outcome;

/// OpenRC's state.
pub const STATE: &str = "/run/openrc";

/// Runlevels on the way up and down, which are never the end of a boot.
const PASSING: [&str; 6] = ["", "sysinit", "boot", "single", "shutdown", "reboot"];

/// How long a look may be late where inotify misses something.
const AT_LEAST_EVERY: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// `rc.starting` is absent for a moment between two commands of init as well.
const SETTLE: Duration = Duration::from_millis(100);

pub fn wait() -> Outcome {
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
    let mut seen = None;
    loop {
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_TO
            | WatchFlags::CLOSE_WRITE;
        if let Ok(watch) = &watch {
            // Repeating is free, and the folder appears while we wait.
            for folder in ["/run", STATE] {
                let _ = inotify::add_watch(watch, folder, flags);
            }
        }
        let reached = reached(Path::new(STATE));
        if reached.is_some() && reached == seen {
            let level = reached.unwrap_or_default();
            return Outcome::booted(format!("OpenRC: runlevel {level}"), failed(Path::new(STATE)));
        }
        if reached.is_some() {
            seen = reached;
            std::thread::sleep(SETTLE);
            continue;
        }
        seen = None;
        match &watch {
            Ok(watch) => {
                let _ = poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&AT_LEAST_EVERY));
                let mut events = [0; 4096];
                while rustix::io::read(watch, &mut events).is_ok_and(|length| length > 0) {}
            }
            Err(_) => std::thread::sleep(super::LOOK),
        }
    }
}

/// The runlevel, once nothing on the way to it is left.
fn reached(state: &Path) -> Option<String> {
    let level = fs::read_to_string(state.join("softlevel")).ok()?.trim().to_owned();
    let is_moving = ["rc.starting", "rc.stopping"].iter().any(|name| state.join(name).exists());
    (!PASSING.contains(&level.as_str()) && !is_moving).then_some(level)
}

fn failed(state: &Path) -> Vec<String> {
    let entries = fs::read_dir(state.join("failed")).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runlevel_is_reached_when_nothing_is_starting() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path();
        assert_eq!(reached(state), None);
        for (level, starting, wanted) in [
            ("sysinit\n", false, None),
            ("boot", false, None),
            ("default\n", true, None),
            ("default\n", false, Some("default")),
            ("my-level", false, Some("my-level")),
            ("shutdown", false, None),
        ] {
            fs::write(state.join("softlevel"), level).unwrap();
            let folder = state.join("rc.starting");
            if starting {
                fs::create_dir(&folder).unwrap()
            } else {
                let _ = fs::remove_dir(&folder);
            }
            assert_eq!(reached(state).as_deref(), wanted, "{level} {starting}");
        }
        fs::create_dir(state.join("failed")).unwrap();
        fs::write(state.join("failed/sshd"), "").unwrap();
        assert_eq!(failed(state), ["sshd"]);
    }
}
