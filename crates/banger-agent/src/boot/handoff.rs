//! The moment the machine becomes the image's: the root moves, the agent splits off, init runs.
//!
//! ```text
//! init (pid 1)                       supervisor (child, forked after the move of the root)
//!   exec /sbin/init ──── pipe closes by itself ────► Ready to the host, serve
//!        └─ fails ────── reason on the pipe ───────► Failed to the host, exit; pid 1 goes down
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use banger_agent_proto::boot::{BootFailure, GuestConfig, Ready};
use rustix::fs::{AtFlags, OFlags};
use rustix::mount::mount_move;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitOptions, waitpid};

use super::hello::BootConnection;
use super::log::BootLog;
use super::root::{self, NEW_ROOT};
use super::{Prepared, stay};
use crate::agent::cgroup::Groups;
use crate::agent::notify::{self, NotifySocket};
use crate::agent::{self, progress};
use crate::beneath::{Folder, Links};
use crate::fault::{Context, Fault};
use crate::sys::process::{Forked, fork};
use crate::sys::signal::clear_mask;

/// Where an image may keep its init; the kernel's own order, and systemd's real place.
pub const INIT_PATHS: [&str; 7] = [
    "/sbin/init",
    "/usr/sbin/init",
    "/usr/lib/systemd/systemd",
    "/lib/systemd/systemd",
    "/etc/init",
    "/bin/init",
    "/sbin/openrc-init",
];

/// Largest inittab that is looked at, in bytes.
const INITTAB_MAX: u64 = 64 * 1024;

/// What will be process 1 when the boot is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Init {
    /// A program of the image.
    Image {
        /// Path in the image.
        path: &'static str,
        /// The file it leads to.
        resolved: String,
    },
    /// This program: the image has no init.
    Agent,
}

impl Init {
    /// Whether it is systemd.
    pub fn is_systemd(&self) -> bool {
        matches!(self, Self::Image { resolved, .. } if resolved.ends_with("/systemd"))
    }

    /// How its progress is learned.
    fn reports(&self, root: &Folder, socket: Option<NotifySocket>) -> progress::Init {
        let Self::Image { resolved, .. } = self else { return progress::Init::Agent };
        if self.is_systemd() {
            return progress::Init::Systemd(socket);
        }
        let program = resolved.rsplit('/').next().unwrap_or_default();
        let table = root.read(b"etc/inittab", INITTAB_MAX).unwrap_or_default();
        let table = String::from_utf8_lossy(&table);
        let starts_openrc = table
            .lines()
            .any(|line| !line.trim_start().starts_with('#') && line.contains("openrc"));
        match program {
            "openrc-init" => progress::Init::OpenRc,
            "runit" | "runit-init" => progress::Init::Runit,
            "busybox" | "init" | "sysvinit" if starts_openrc => progress::Init::OpenRc,
            "busybox" => progress::Init::Inittab,
            _ if !table.is_empty() => progress::Init::Inittab,
            _ => progress::Init::Other,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Image { path, .. } => path,
            Self::Agent => "agent",
        }
    }
}

/// Looks for the image's init.
pub fn choose_init(root: &Folder) -> Init {
    let found = INIT_PATHS.iter().find_map(|path| {
        let file = root.open_beneath(path.as_bytes(), OFlags::PATH, Links::Inside).ok()?;
        let stat = rustix::fs::statat(&file, "", AtFlags::EMPTY_PATH).ok()?;
        let is_program = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file()
            && stat.st_mode & 0o111 != 0;
        let resolved = resolved_path(&file);
        is_program.then_some(Init::Image { path, resolved })
    });
    found.unwrap_or(Init::Agent)
}

/// The path an open file really has.
fn resolved_path(file: &OwnedFd) -> String {
    use std::os::fd::AsRawFd as _;
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::read_link(link).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Everything the last step needs.
pub struct Handoff<'a> {
    /// What has happened so far.
    pub log: BootLog,
    /// The agent's socket.
    pub listener: OwnedFd,
    /// The boot conversation.
    pub host: BootConnection,
    /// The host's wishes.
    pub config: &'a GuestConfig,
    /// The new root and its init.
    pub prepared: Prepared,
}

/// Moves the root and splits into init and supervisor; returns only when the image's init could not
/// be executed, after the host has been told.
pub fn hand_over(mut handoff: Handoff<'_>) -> Fault {
    let moved = move_root(&handoff.prepared.root.folder, &mut handoff.log);
    let split = moved.and_then(|initramfs| {
        let (reader, writer) =
            pipe_with(PipeFlags::CLOEXEC).context(|| "cannot make a pipe".to_owned())?;
        let groups = handoff.log.keep(Groups::make());
        // Before the fork: the agent may ask this init to end at once.
        let requests = (handoff.prepared.init == Init::Agent).then(stay::Requests::hold_back);
        let notified = notify_socket(&handoff.prepared.init, &mut handoff.log);
        let side = fork().context(|| "cannot start the agent".to_owned())?;
        Ok((initramfs, (reader, writer), (groups, notified), requests, side))
    });
    let (initramfs, (reader, writer), (groups, notified), requests, side) = match split {
        Ok(split) => split,
        Err(fault) => {
            let failure = BootFailure { stage: "handoff".into(), message: fault.chain() };
            handoff.host.fail(failure);
            return fault;
        }
    };
    match side {
        Forked::Child => {
            drop(writer);
            clear_mask();
            handoff.log.mark("handoff");
            let places = Places { initramfs, groups, notified };
            run_agent(handoff, places, File::from(reader))
        }
        Forked::Parent(child) => {
            // Here and not in the child: once init runs it moves what is in its own group.
            if let Some(Err(fault)) = groups.map(|groups| groups.adopt(child)) {
                eprintln!("banger: {}", fault.chain());
            }
            drop((reader, initramfs, handoff.listener, handoff.host));
            match (handoff.prepared.init, requests) {
                (Init::Image { path, .. }, _) => {
                    let fault = execute(path, notified.is_some(), &handoff.config.env);
                    // A closed pipe means that the agent is gone, and with it the host's ear.
                    let _ = File::from(writer).write_all(fault.chain().as_bytes());
                    let _ = waitpid(Some(child), WaitOptions::empty());
                    fault
                }
                (Init::Agent, requests) => {
                    drop((writer, handoff.prepared.root));
                    stay::run(handoff.config, requests.unwrap_or_else(stay::Requests::hold_back))
                }
            }
        }
    }
}

/// The socket for systemd's notification that it has booted; it exists before systemd starts.
fn notify_socket(init: &Init, log: &mut BootLog) -> Option<NotifySocket> {
    if !init.is_systemd() {
        return None;
    }
    let socket = NotifySocket::bind().context(|| "cannot listen for init's word".to_owned());
    socket.map_err(|fault| log.warn(fault.chain())).ok()
}

/// Makes the new root `/`; returns the initramfs, which has no name any more.
fn move_root(root: &Folder, log: &mut BootLog) -> Result<Folder, Fault> {
    let what = || "cannot move the root".to_owned();
    let initramfs = Folder::open("/").context(what)?;
    root::move_kernel_file_systems(root, log)?;
    rustix::process::chdir(NEW_ROOT).context(what)?;
    mount_move(".", "/").context(what)?;
    rustix::process::chroot(".").context(what)?;
    rustix::process::chdir("/").context(what)?;
    Ok(initramfs)
}

/// Becomes the image's init, with the arguments and environment the kernel gave this program;
/// returns only if that fails. An init that passes its environment to services also gets the
/// configured variables; systemd reads them from its configuration.
fn execute(path: &'static str, notifies: bool, env: &BTreeMap<String, String>) -> Fault {
    let mut command = Command::new(path);
    command.args(std::env::args_os().skip(1));
    if notifies {
        let (name, value) = notify::VARIABLE;
        command.env(name, value);
    } else {
        command.envs(env);
    }
    let error = command.exec();
    let failed: Result<(), _> = Err(error);
    match failed.context(|| format!("cannot execute the image's init `{path}`")) {
        Err(fault) => fault,
        Ok(()) => Fault::new(format!("`{path}` returned")),
    }
}

/// What the agent takes over besides the handoff.
struct Places {
    initramfs: Folder,
    groups: Option<Groups>,
    notified: Option<NotifySocket>,
}

fn run_agent(handoff: Handoff<'_>, places: Places, mut init_failed: File) -> ! {
    let Handoff { log, listener, host, config, prepared } = handoff;
    let Places { initramfs, groups, notified } = places;
    let mut reason = String::new();
    // The end comes when init has been executed, or has given its reason and waits.
    let _ = init_failed.read_to_string(&mut reason);
    if !reason.is_empty() {
        host.fail(BootFailure { stage: "init".into(), message: reason });
        std::process::exit(1);
    }
    let mut log = log;
    log.mark("init");
    let (timeline, warnings) = log.finish();
    let ready = Ready { timeline, init: prepared.init.name().to_owned(), warnings };
    if let Err(fault) = host.ready(ready) {
        // The daemon may be restarting: it will find the agent by healthz.
        eprintln!("banger: {}", fault.chain());
    }
    root::empty_initramfs(&initramfs);
    let init = prepared.init.reports(&prepared.root.folder, notified);
    drop((initramfs, prepared.root.folder, init_failed));
    let context = agent::Context {
        env: config.env.clone(),
        private: prepared.root.private,
        groups,
        restarts: 0,
        init,
        program: config.program.clone(),
    };
    agent::supervisor::run(listener, context)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn image() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::open(dir.path().to_str().unwrap()).unwrap();
        (dir, root)
    }

    fn program(path: &std::path::Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "#!").unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    #[test]
    fn an_image_without_init_keeps_the_agent() {
        let (dir, root) = image();
        assert_eq!(choose_init(&root), Init::Agent);
        std::fs::create_dir_all(dir.path().join("sbin/init")).unwrap();
        std::fs::create_dir_all(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/init"), "not executable").unwrap();
        assert_eq!(choose_init(&root), Init::Agent);
        assert_eq!(Init::Agent.name(), "agent");
    }

    #[test]
    fn init_is_found_through_links_of_the_image() {
        let (dir, root) = image();
        program(&dir.path().join("usr/lib/systemd/systemd"));
        std::fs::create_dir(dir.path().join("usr/sbin")).unwrap();
        symlink("/usr/sbin", dir.path().join("sbin")).unwrap();
        symlink("../lib/systemd/systemd", dir.path().join("usr/sbin/init")).unwrap();
        assert_eq!(choose_init(&root).name(), "/sbin/init");
    }

    #[test]
    fn each_init_is_watched_in_its_own_way() {
        let (dir, root) = image();
        let name = |resolved: &str| {
            let init = Init::Image { path: "/sbin/init", resolved: resolved.into() };
            format!("{:?}", init.reports(&root, None))
        };
        assert_eq!(name("/newroot/usr/lib/systemd/systemd"), "Systemd(None)");
        assert_eq!(name("/newroot/usr/bin/runit-init"), "Runit");
        assert_eq!(name("/newroot/bin/busybox"), "Inittab");
        assert_eq!(name("/newroot/nix/store/x-init"), "Other");
        std::fs::create_dir_all(dir.path().join("etc")).unwrap();
        let inittab = dir.path().join("etc/inittab");
        std::fs::write(&inittab, "# openrc\nsi::sysinit:/etc/init.d/rcS\n").unwrap();
        assert_eq!(name("/newroot/sbin/init"), "Inittab");
        std::fs::write(&inittab, "::sysinit:/sbin/openrc sysinit\n").unwrap();
        assert_eq!(name("/newroot/bin/busybox"), "OpenRc");
        assert_eq!(format!("{:?}", Init::Agent.reports(&root, None)), "Agent");
    }

    #[test]
    fn systemd_is_detected_by_its_file() {
        let init = |resolved: &str| Init::Image { path: "/sbin/init", resolved: resolved.into() };
        assert!(init("/newroot/usr/lib/systemd/systemd").is_systemd());
        assert!(!init("/newroot/bin/busybox").is_systemd());
    }
}
