//! A VMM started by a jailer: a script that starts another script and exits.

use banger_shim::{ExitCause, GuestEnd, Jailed, Outcome, ShimConfig};
use banger_sys::proc;
use rustix::process::Signal;

use crate::support::{SOCKET, Vm, gone, signal_pid};

/// A jailer whose VMM runs this script once its socket exists.
fn jailed(vm: &Vm, vmm: &str) -> ShimConfig {
    let script = format!("setsid sh -c 'echo > vmm-up; {vmm}' & echo $! > vmm.pid");
    ShimConfig {
        jailed: Some(Jailed {
            pid_file: "vmm.pid".into(),
            log_fifo: None,
            metrics_fifo: None,
            ready_socket: SOCKET.into(),
            ready_timeout_ms: 20_000,
        }),
        ..vm.alone(&script)
    }
}

/// Opens the gate and creates the socket in place of the VMM.
fn started(vm: &Vm, config: &ShimConfig) -> (crate::support::Shim, banger_shim::ShimState) {
    let mut shim = vm.open(config);
    vm.vmm_is_up();
    let _listener = banger_sys::unix_path::bind(&vm.run.join(SOCKET)).unwrap();
    match shim.event() {
        Some(banger_shim::ShimEvent::Started(state)) => (shim, state),
        other => panic!("not started: {other:?}"),
    }
}

#[test]
fn the_vmm_of_a_jailer_is_adopted() {
    let vm = Vm::new();
    let (mut shim, state) = started(&vm, &jailed(&vm, "exec sleep 600"));
    let written = std::fs::read_to_string(vm.run.join("vmm.pid")).unwrap();
    assert_eq!(written.trim(), state.vmm.pid.to_string());
    assert_eq!(banger_sys::proc::parent(state.vmm.pid), Some(shim.child.id()));
    signal_pid(state.vmm.pid, Signal::SEGV);
    assert!(shim.wait().success());
    let story = vm.story();
    assert_eq!(story.cause, ExitCause::VmmExited);
    assert_eq!(story.vmm, Some(Outcome::Signaled { signal: 11 }));
}

#[test]
fn fifo_output_is_logged() {
    let vm = Vm::new();
    let fifo = |name: &str| {
        let mode = rustix::fs::Mode::from_bits_truncate(0o600);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, vm.run.join(name), kind, mode, 0).unwrap();
    };
    fifo("log.fifo");
    fifo("metrics.fifo");
    let says = "echo one >log.fifo; echo two >metrics.fifo; echo three >log.fifo; exec sleep 600";
    let mut config = jailed(&vm, says);
    let path = vm.logs.join("metrics.json");
    let file = banger_shim::CappedLog { path: path.into(), cap_bytes: 1 << 20 };
    if let Some(jailed) = &mut config.jailed {
        jailed.log_fifo = Some("log.fifo".into());
        jailed.metrics_fifo = Some(("metrics.fifo".into(), file));
    }
    let (mut shim, _) = started(&vm, &config);
    let read = |name: &str| std::fs::read_to_string(vm.logs.join(name)).unwrap();
    while read("vmm.log") != "one\nthree\n" || read("metrics.json") != "two\n" {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    shim.signal(Signal::TERM);
    assert!(shim.wait().success());
    assert_eq!(vm.story().vmm_log_tail, "one\nthree\n");
}

#[test]
fn sigterm_ends_the_jailed_vmm() {
    let vm = Vm::new();
    let (mut shim, state) = started(&vm, &jailed(&vm, "exec sleep 600"));
    shim.signal(Signal::TERM);
    assert!(shim.wait().success());
    gone(state.vmm);
    assert_eq!(vm.story().cause, ExitCause::Requested);
    assert_eq!(vm.story().vmm, Some(Outcome::Signaled { signal: 9 }));
}

#[test]
fn a_guest_that_powers_off_ends_its_vmm() {
    let vm = Vm::new();
    let says = "while [ ! -e ready.sock ]; do sleep 0.01; done; sleep 0.2; \
                echo \"[   12.5] reboot: Power down\"; exec sleep 600";
    let (mut shim, state) = started(&vm, &jailed(&vm, says));
    assert!(shim.wait().success());
    gone(state.vmm);
    let story = vm.story();
    assert_eq!((story.cause, story.guest), (ExitCause::PoweredOff, Some(GuestEnd::Poweroff)));
}

#[test]
fn a_reboot_of_the_guest_is_detected() {
    let vm = Vm::new();
    let says = "while [ ! -e ready.sock ]; do sleep 0.01; done; sleep 0.2; \
                echo \"[   12.5] reboot: Restarting system\"";
    let (mut shim, _) = started(&vm, &jailed(&vm, says));
    assert!(shim.wait().success());
    let story = vm.story();
    assert_eq!((story.cause, story.guest), (ExitCause::VmmExited, Some(GuestEnd::Reboot)));
    assert_eq!(story.vmm, Some(Outcome::Exited { code: 0 }));
}

#[test]
fn a_failed_jailer_is_reported_with_its_output() {
    let vm = Vm::new();
    let mut config = jailed(&vm, "");
    config.vmm = crate::support::script("echo cannot chroot >&2; exit 2");
    let mut shim = vm.open(&config);
    let (step, message) = shim.failure();
    assert_eq!(step, "jail");
    assert!(message.contains("exit code 2"), "{message}");
    shim.wait();
    assert!(vm.story().vmm_log_tail.contains("cannot chroot"));
}

#[test]
fn a_pid_that_is_not_a_child_is_refused() {
    let vm = Vm::new();
    let mut config = jailed(&vm, "");
    config.vmm = crate::support::script("echo 1 > vmm.pid");
    let (step, message) = vm.open(&config).failure();
    assert_eq!(step, "jail");
    assert!(message.contains("process 1 is not a child"), "{message}");
    assert!(proc::reference(1).is_some());
}
