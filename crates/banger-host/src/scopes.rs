//! Scopes of a user's systemd: systemd.scope(5), org.freedesktop.systemd1(5).
//!
//! A process that a user started belongs to a session or to a unit of the user. If the user lingers
//! (loginctl(1)), a scope outlives both. If not, it would end at the last logout, when the user's
//! systemd ends, and processes are left where they are.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use banger_api::VmId;
use banger_base::ProcRef;
use rustix::process::getuid;
use tokio::process::Command;

use crate::gate::is_alive;
use crate::{lingering, probe};

/// Time limit for an answer of systemd or logind.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Access to the systemd of the daemon's user.
#[derive(Debug, Clone)]
pub struct Scopes {
    uid: u32,
    busctl: Option<PathBuf>,
}

/// Consequence of a logout for the processes of VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logout {
    /// They continue.
    Continue,
    /// They end with the session that they belong to.
    EndSession,
    /// They end with the user's systemd.
    EndManager,
}

/// Where a process is in the hierarchy of control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a session of its user.
    Session,
    /// In a unit of the user's systemd.
    Unit,
    /// In a scope of [`Scopes::keep`].
    OwnScope,
    /// Elsewhere: no logout reaches it.
    Elsewhere,
}

/// The place of a process by the content of `/proc/PID/cgroup`, cgroups(7).
fn place(uid: u32, cgroups: &str) -> Place {
    let Some(path) = cgroups.lines().find_map(|line| line.strip_prefix("0::")) else {
        return Place::Elsewhere;
    };
    let parts: Vec<&str> = path.split('/').collect();
    if !parts.contains(&format!("user-{uid}.slice").as_str()) {
        return Place::Elsewhere;
    }
    let last = parts.last().copied().unwrap_or_default();
    if last.starts_with("banger-") && last.ends_with(".scope") {
        return Place::OwnScope;
    }
    let manager = format!("user@{uid}.service");
    if parts.contains(&manager.as_str()) { Place::Unit } else { Place::Session }
}

fn place_of(uid: u32, pid: u32) -> Place {
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
    place(uid, &cgroups.unwrap_or_default())
}

/// Arguments of busctl(1) for StartTransientUnit(): a scope with these processes. Its name has the
/// id of a process, because systemd removes the scope of an earlier run asynchronously.
fn start_scope(bus: &Path, vm: &VmId, pids: &[u32]) -> Vec<String> {
    let first = pids.first().copied().unwrap_or_default();
    let fixed = [
        "--quiet",
        &format!("--address=unix:path={}", bus.display()),
        "call",
        "org.freedesktop.systemd1",
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
        "StartTransientUnit",
        "ssa(sv)a(sa(sv))",
        &format!("banger-{vm}-{first}.scope"),
        "fail",
        "3",
        "Description",
        "s",
        &format!("banger: processes of the virtual machine {vm}"),
        "CollectMode",
        "s",
        "inactive-or-failed",
        "PIDs",
        "au",
        &pids.len().to_string(),
    ]
    .map(ToOwned::to_owned);
    fixed.into_iter().chain(pids.iter().map(ToString::to_string)).chain(["0".to_owned()]).collect()
}

impl Scopes {
    /// Finds busctl(1) in these folders.
    pub fn new(search_path: &OsStr) -> Self {
        let busctl = probe::find_program("busctl".as_ref(), search_path);
        Self { uid: getuid().as_raw(), busctl }
    }

    /// Moves processes of a VM to a scope of their own, in the background, if they are in a session
    /// or unit of the user and the user lingers. Call within a tokio runtime.
    pub fn keep(&self, vm: &VmId, processes: Vec<ProcRef>) {
        if self.bus().is_none() {
            return;
        }
        let (scopes, vm) = (self.clone(), vm.clone());
        tokio::spawn(async move {
            if let Err(error) = scopes.move_to_scope(&vm, &processes).await {
                tracing::warn!(vm = %vm, error, "a logout may end processes of the VM");
            }
        });
    }

    async fn move_to_scope(&self, vm: &VmId, processes: &[ProcRef]) -> Result<(), String> {
        let can_end = |process: &&ProcRef| {
            let ends = matches!(place_of(self.uid, process.pid), Place::Session | Place::Unit);
            ends && is_alive(**process)
        };
        let pids: Vec<u32> = processes.iter().filter(can_end).map(|one| one.pid).collect();
        let (Some(bus), Some(busctl)) = (self.bus(), &self.busctl) else { return Ok(()) };
        if pids.is_empty() || !lingers() {
            return Ok(());
        }
        answer(busctl, &start_scope(&bus, vm, &pids)).await?;
        tracing::debug!(vm = %vm, ?pids, "moved to a scope");
        Ok(())
    }

    /// The socket of the bus of the user's systemd, if there is one. Root's VMs are in control
    /// groups that no logout ends, or in root's own sessions, as the user decided.
    fn bus(&self) -> Option<PathBuf> {
        let bus = PathBuf::from(format!("/run/user/{}/bus", self.uid));
        (self.uid != 0 && bus.exists()).then_some(bus)
    }

    async fn kills_user_processes(&self) -> Result<bool, String> {
        let Some(busctl) = &self.busctl else { return Ok(false) };
        let args = [
            "get-property",
            "org.freedesktop.login1",
            "/org/freedesktop/login1",
            "org.freedesktop.login1.Manager",
            "KillUserProcesses",
        ];
        Ok(answer(busctl, &args.map(ToOwned::to_owned)).await?.trim() == "b true")
    }

    /// Consequence of a logout; `None` if no systemd decides about it.
    pub async fn at_logout(&self) -> Option<Logout> {
        self.bus()?;
        let place = place_of(self.uid, std::process::id());
        if lingers() {
            return Some(Logout::Continue);
        }
        match place {
            Place::Unit => Some(Logout::EndManager),
            Place::Session if self.kills_user_processes().await.ok()? => Some(Logout::EndSession),
            Place::Session | Place::OwnScope | Place::Elsewhere => Some(Logout::Continue),
        }
    }
}

fn lingers() -> bool {
    lingering::user().is_some_and(|user| lingering::is_enabled(Path::new("/"), &user))
}

/// Standard output of a program; its standard error as an error if it fails.
async fn answer(program: &Path, args: &[String]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).env("LC_ALL", "C").kill_on_drop(true);
    let name = program.display();
    let output = tokio::time::timeout(ANSWER_TIMEOUT, command.output()).await;
    let output = output
        .map_err(|_| format!("no answer of {name} within {} s", ANSWER_TIMEOUT.as_secs()))?
        .map_err(|error| format!("cannot start {name}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(format!("{name}: {said}"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_group_shows_what_ends_a_process() {
        let user = "/user.slice/user-1000.slice";
        for (path, expected) in [
            (format!("{user}/session-4.scope"), Place::Session),
            (format!("{user}/user@1000.service/app.slice/bangerd.service"), Place::Unit),
            (format!("{user}/user@1000.service/app.slice/banger-a-7.scope"), Place::OwnScope),
            ("/user.slice/user-1001.slice/session-4.scope".into(), Place::Elsewhere),
            ("/banger/shim-0123456789ab".into(), Place::Elsewhere),
            ("/system.slice/cron.service".into(), Place::Elsewhere),
            ("/".into(), Place::Elsewhere),
        ] {
            assert_eq!(place(1000, &format!("0::{path}\n")), expected, "{path}");
        }
        // Of cgroup v1, and of a process that is gone.
        assert_eq!(place(1000, "1:name=systemd:/user.slice/user-1000.slice"), Place::Elsewhere);
        assert_eq!(place(1000, ""), Place::Elsewhere);
    }

    #[test]
    fn a_scope_is_named_after_the_vm_and_its_first_process() {
        let vm: VmId = "0123456789ab".parse().unwrap();
        let args = start_scope(Path::new("/run/user/1000/bus"), &vm, &[7, 8]);
        assert!(args.contains(&"banger-0123456789ab-7.scope".to_owned()));
        assert!(args.contains(&"--address=unix:path=/run/user/1000/bus".to_owned()));
        assert_eq!(args[args.len() - 5..], ["au", "2", "7", "8", "0"]);
    }

    #[tokio::test]
    async fn errors_name_the_program_and_its_message() {
        let args = ["-c".to_owned(), "echo refused >&2; exit 1".to_owned()];
        let error = answer(Path::new("/bin/sh"), &args).await.unwrap_err();
        assert_eq!(error, "/bin/sh: refused");
        let error = answer(Path::new("/nonexistent"), &[]).await.unwrap_err();
        assert!(error.starts_with("cannot start /nonexistent"), "{error}");
    }
}
