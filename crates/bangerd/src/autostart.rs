//! Starts VMs with `--autostart` when the daemon starts, and checks that the host starts the
//! daemon.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use banger_api::Hint;
use banger_api::doctor::{Check, Verdict};
use banger_api::hint::SetupAdvice;
use banger_api::vm::{VmAction, VmState};
use banger_engine::Engine;
use banger_host::lingering;

use crate::daemon::Host;
use crate::stopping::Stopping;

/// Name of the user unit.
const UNIT: &str = "bangerd.service";

/// Starts VMs until the daemon stops; the next daemon starts the remaining ones.
pub fn begin(engine: &Arc<Engine>, stopping: &Stopping) {
    let (engine, stopping) = (engine.clone(), stopping.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = engine.autostart() => {}
            () = stopping.requested() => {}
        }
    });
}

/// Checks of automatic starts for `doctor`.
pub fn checks(engine: &Engine, host: Host) -> Vec<Check> {
    let mut checks: Vec<Check> = engine
        .not_autostarted()
        .into_iter()
        .map(|(vm, state, seen)| {
            let action = match state {
                VmState::Broken => VmAction::Repair {},
                _ => VmAction::Start {},
            };
            warning("autostart.vm", seen, Hint::ask(&vm.name, action))
        })
        .collect();
    let vms = engine.with_autostart();
    if host == Host::Real && vms > 0 {
        checks.extend(Boot::of_host().and_then(|boot| boot.check(vms)));
    }
    checks
}

fn warning(code: &str, seen: String, hint: Hint) -> Check {
    let (code, hints) = (code.into(), vec![hint]);
    Check { code, verdict: Verdict::Warning, seen, hints, needed_for: Vec::new() }
}

/// What starts the daemon when the host boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Boot {
    /// The host does not run systemd, so it is unknown.
    NoSystemd,
    /// The user manager.
    Systemd {
        /// Whether the daemon's unit is enabled.
        unit: bool,
        /// Whether the user manager starts with the host instead of the first login.
        linger: bool,
    },
}

impl Boot {
    /// `None` if the name of the user is unknown.
    fn of_host() -> Option<Self> {
        let user = lingering::user()?;
        let config = std::env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")));
        Some(Self::find(Path::new("/"), config.as_deref(), &user))
    }

    /// Below `root`: sd_booted(3), loginctl(1), and the links that `systemctl enable` makes.
    fn find(root: &Path, config: Option<&Path>, user: &OsStr) -> Self {
        if !root.join("run/systemd/system").is_dir() {
            return Self::NoSystemd;
        }
        let global = root.join("etc/systemd/user");
        let own = config.map(|config| config.join("systemd/user"));
        let enabled = |folder: &Path| {
            let link = folder.join("default.target.wants").join(UNIT);
            std::fs::symlink_metadata(link).is_ok()
        };
        let unit = enabled(&global) || own.is_some_and(|own| enabled(&own));
        Self::Systemd { unit, linger: lingering::is_enabled(root, user) }
    }

    fn check(self, vms: usize) -> Option<Check> {
        let (why, advice) = match self {
            Self::Systemd { unit: true, linger: true } => return None,
            Self::Systemd { unit: false, linger: _ } => {
                ("the unit `bangerd.service` is not enabled", SetupAdvice::EnableUnit)
            }
            Self::Systemd { unit: true, linger: false } => {
                ("this user has no lingering", SetupAdvice::EnableUnit)
            }
            Self::NoSystemd => ("it does not run systemd", SetupAdvice::StartAtBoot),
        };
        let vms = match vms {
            1 => "1 VM has `--autostart`".to_owned(),
            many => format!("{many} VMs have `--autostart`"),
        };
        let seen = format!("{vms}, and the host may not start the daemon when it boots: {why}");
        Some(warning("autostart.boot", seen, advice.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_and_lingering_are_found() {
        let root = tempfile::tempdir().unwrap();
        let (config, user) = (root.path().join("home/.config"), OsStr::new("ann"));
        let find = || Boot::find(root.path(), Some(&config), user);
        let make = |path: &str| std::fs::create_dir_all(root.path().join(path)).unwrap();
        assert_eq!(find(), Boot::NoSystemd);
        make("run/systemd/system");
        assert_eq!(find(), Boot::Systemd { unit: false, linger: false });
        make("var/lib/systemd/linger/ann");
        assert_eq!(find(), Boot::Systemd { unit: false, linger: true });
        make("home/.config/systemd/user/default.target.wants");
        // A link to the installed unit, which this root does not have.
        let link = config.join("systemd/user/default.target.wants").join(UNIT);
        std::os::unix::fs::symlink("/usr/lib/systemd/user/bangerd.service", &link).unwrap();
        assert_eq!(find(), Boot::Systemd { unit: true, linger: true });
        std::fs::remove_file(link).unwrap();
        make("etc/systemd/user/default.target.wants/bangerd.service");
        assert_eq!(find(), Boot::Systemd { unit: true, linger: true });
    }

    #[test]
    fn a_host_that_does_not_start_the_daemon_is_a_warning() {
        assert_eq!(Boot::Systemd { unit: true, linger: true }.check(1), None);
        let check = |boot: Boot, vms| {
            let check = boot.check(vms).unwrap();
            (check.seen.clone(), check.hint().unwrap())
        };
        let (seen, hint) = check(Boot::Systemd { unit: true, linger: false }, 1);
        assert!(seen.starts_with("1 VM has") && seen.ends_with("has no lingering"), "{seen}");
        assert!(hint.contains("loginctl enable-linger"), "{hint}");
        let (seen, _) = check(Boot::Systemd { unit: false, linger: true }, 2);
        assert!(seen.starts_with("2 VMs have") && seen.ends_with("is not enabled"), "{seen}");
        let (_, hint) = check(Boot::NoSystemd, 1);
        assert!(hint.contains("banger daemon start"), "{hint}");
    }
}
