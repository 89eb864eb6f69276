//! From a bare kernel to the configured machine, on one screen.
//!
//! ```text
//! early     /proc /sys /dev, console, kernel modules
//! hello     listen for the host, dial it, say hello, receive the configuration
//! root      disk, or image + private layer; kernel file systems; modules and work disks
//! files     name, resolver, machine id, files of the host, units kept off the interface,
//!           fstab entries for devices that the machine does not have
//! network   lo and the one interface
//! handoff   move the root, fork the agent, execute the image's init or stay as init
//! ```
//!
//! Until the configuration has come a failure can only be told to the console; after it, the host
//! gets `Failed` with the stage and the reason. Either way the guest then goes down by reboot,
//! which ends every VMM (a Firecracker survives its guest's poweroff).

mod certificates;
mod devices;
mod disks;
mod early;
mod etc_files;
mod files;
mod fstab;
mod git_config;
mod grow;
mod handoff;
mod hello;
mod identity;
mod log;
mod nested;
mod netlink;
mod network;
mod network_managers;
mod root;
mod seed;
mod stay;

use std::os::fd::OwnedFd;

use banger_agent_proto::boot::{BootFailure, GuestConfig};
use banger_agent_proto::{AGENT_PORT, PROTOCOL_MAX, PROTOCOL_MIN};
use rustix::system::RebootCommand;

use crate::fault::{Context, Fault};
use crate::sys::vsock;
pub use handoff::INIT_PATHS;
pub use hello::boot_id;
pub use identity::{mix_entropy, step_clock, wall_clock_ms};
pub use log::uptime_ms;
pub use seed::names;
pub use stay::{CLIENT_WAIT, end_machine};

use hello::{BootConnection, Received};
use log::BootLog;

/// Connections that may wait for the agent while it boots.
const BACKLOG: i32 = 128;

/// Boots this machine; the caller is process 1 of the initramfs.
pub fn run() -> ! {
    let mut log = BootLog::start();
    let fault = match reach_host(&mut log) {
        Ok((listener, host, received)) => bring_up(log, listener, host, &received.config),
        Err(fault) => fault,
    };
    eprintln!("banger: cannot boot: {}", fault.chain());
    go_down()
}

/// The part of the boot in which failures can only be reported on the console.
fn reach_host(log: &mut BootLog) -> Result<(OwnedFd, BootConnection, Received), Fault> {
    early::mount_kernel_file_systems()?;
    early::open_console();
    early::load_modules(log)?;
    log.mark("modules");
    // Listening before hello: what the host sends from then on waits in the backlog.
    let listener = vsock::listen(AGENT_PORT, BACKLOG)
        .context(|| format!("cannot listen on vsock port {AGENT_PORT}"))?;
    let mut host = BootConnection::dial()?;
    host.say_hello()?;
    let received = host.receive_config()?;
    // First, so that the time since its arrival does not count.
    identity::set_clock(received.config.clock_unix_ms, received.round_trip, log);
    log.mark("hello");
    Ok((listener, host, received))
}

/// The rest; returns only when the boot has failed.
fn bring_up(
    mut log: BootLog,
    listener: OwnedFd,
    host: BootConnection,
    config: &GuestConfig,
) -> Fault {
    let prepared = match prepare(&mut log, config) {
        Ok(prepared) => prepared,
        Err((stage, fault)) => {
            host.fail(BootFailure { stage: stage.into(), message: fault.chain() });
            return fault;
        }
    };
    handoff::hand_over(handoff::Handoff { log, listener, host, config, prepared })
}

/// What the stages before the handoff leave for it.
struct Prepared {
    root: root::Root,
    init: handoff::Init,
}

fn prepare(log: &mut BootLog, config: &GuestConfig) -> Result<Prepared, (&'static str, Fault)> {
    if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&config.protocol) {
        let fault = Fault::new(format!("the host chose protocol {}", config.protocol));
        return Err(("hello", fault));
    }
    identity::add_entropy(&config.entropy, log);
    let root = root::assemble(config, log).map_err(|fault| ("mounts", fault))?;
    log.mark("mounts");
    let init = match config.program {
        Some(_) => handoff::Init::Agent,
        None => handoff::choose_init(&root.folder),
    };
    identity::write(&root.folder, config, log);
    network_managers::write(&root.folder, config, &init, log);
    files::write(&root.folder, &config.files, log);
    certificates::write(&root.folder, &config.certificates, log);
    fstab::apply(&root.folder, root.layered, log);
    log.mark("files");
    network::configure(config.network.as_ref(), log);
    log.mark("network");
    Ok(Prepared { root, init })
}

/// Ends the machine. Reboot, not poweroff: it is the one way down that every VMM ends on.
fn go_down() -> ! {
    rustix::fs::sync();
    let error = rustix::system::reboot(RebootCommand::Restart);
    eprintln!("banger: cannot reboot: {error:?}");
    // Process 1 must not return: the kernel's panic is the last way down.
    std::process::exit(1)
}
