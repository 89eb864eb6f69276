//! The gate, and failing starts.

use std::io::Write;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use banger_shim::{Access, ExitCause, Outcome, PassedFile, ShimEvent};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
use rustix::process::Signal;

use crate::support::{
    COMPANION_UP, CONNECTION, SOCKET, STAY, VMM_UP, Vm, bytes, heard, is_alive, script,
};

fn nothing_was_started(vm: &Vm) {
    for folder in [&vm.state, &vm.logs] {
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0, "{}", folder.display());
    }
}

#[test]
fn a_closed_gate_ends_the_shim() {
    let vm = Vm::new();
    let whole = serde_json::to_vec(&vm.alone("exit 0")).unwrap();
    // A complete configuration without its newline is not accepted.
    for input in [&b""[..], b"{\"vm\"", &whole] {
        let mut shim = vm.shim();
        shim.gate.take().unwrap().write_all(input).unwrap();
        assert_eq!(shim.event(), None);
        assert!(shim.wait().success());
        nothing_was_started(&vm);
    }
}

#[test]
fn a_shim_that_waits_at_its_gate_can_be_ended() {
    let vm = Vm::new();
    let mut shim = vm.shim();
    shim.signal(Signal::TERM);
    shim.wait();
    nothing_was_started(&vm);
}

#[test]
fn an_invalid_configuration_is_refused() {
    let vm = Vm::new();
    let mut unknown = serde_json::to_value(vm.alone("exit 0")).unwrap();
    unknown["surprise"] = 1.into();
    for input in [b"hello\n".to_vec(), format!("{unknown}\n").into(), vec![b' '; 2 << 20]] {
        let mut shim = vm.shim();
        // The shim may close the gate before it has read everything.
        let _ = shim.gate.take().unwrap().write_all(&input);
        assert_eq!(shim.failure().0, "gate");
        assert_eq!(shim.wait().code(), Some(1));
        nothing_was_started(&vm);
    }
    let mut config = vm.alone("exit 0");
    config.state_dir = bytes(&vm.path("absent"));
    let mut shim = vm.open(&config);
    assert!(shim.failure().1.contains("absent"));
    assert_eq!(shim.wait().code(), Some(1));
}

#[test]
fn the_companion_is_ready_before_the_vmm_starts() {
    let vm = Vm::new();
    let config = vm.both(&format!("[ -S ready.sock ] && echo ordered; {STAY}"), STAY);
    let (mut shim, state) = vm.started(&config);
    assert_eq!(vm.recorded(), state);
    let companion = state.companion.unwrap();
    assert!(is_alive(state.vmm) && is_alive(companion));
    shim.signal(Signal::TERM);
    assert!(shim.wait().success());
    assert!(!is_alive(state.vmm) && !is_alive(companion));
    let story = vm.story();
    assert_eq!(story.cause, ExitCause::Requested);
    let killed = Some(Outcome::Signaled { signal: 9 });
    assert_eq!((story.vmm, story.companion), (killed, killed));
}

#[test]
fn a_socket_of_an_earlier_run_is_removed() {
    let vm = Vm::new();
    drop(banger_sys::unix_path::bind(&vm.run.join("ready.sock")).unwrap());
    let mut config = vm.both("exit 0", STAY);
    config.companion.as_mut().unwrap().child = script(STAY);
    config.companion.as_mut().unwrap().ready_timeout_ms = 100;
    let mut shim = vm.open(&config);
    let (step, message) = shim.failure();
    assert_eq!(step, "companion");
    assert!(message.contains("`ready.sock` did not exist after 100 ms"), "{message}");
    assert!(shim.wait().success());
    let story = vm.story();
    assert_eq!(story.cause, ExitCause::LaunchFailed { step, message });
    assert_eq!((story.vmm, story.companion), (None, Some(Outcome::Signaled { signal: 9 })));
}

#[test]
fn a_companion_that_ends_immediately_is_reported() {
    let vm = Vm::new();
    let mut config = vm.both("exit 0", "");
    config.companion.as_mut().unwrap().child = script("echo cannot bind >&2; exit 4");
    let mut shim = vm.open(&config);
    assert!(shim.failure().1.contains("ended before `ready.sock` existed: exit code 4"));
    assert!(shim.wait().success());
    let story = vm.story();
    assert_eq!((story.vmm, story.companion), (None, Some(Outcome::Exited { code: 4 })));
    assert_eq!(story.vmm_log_tail, "cannot bind\n");
}

/// A companion that is ready for the socket to be made: bound, and not yet listening.
fn bound(vm: &Vm) -> std::os::fd::OwnedFd {
    heard(&vm.run.join(COMPANION_UP));
    // A path of any length.
    let folder = std::fs::File::open(&vm.run).unwrap();
    let path = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
    let made = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&made, &SocketAddrUnix::new(path).unwrap()).unwrap();
    made
}

#[test]
fn the_vmm_gets_a_connection_once_the_companion_listens() {
    let vm = Vm::new();
    let vmm = format!("read -r word <&{CONNECTION}; echo \"$word\" > {VMM_UP}; {STAY}");
    let mut shim = vm.open(&vm.both(&vmm, STAY));
    let made = bound(&vm);
    // The busy host: connections are refused for that long.
    std::thread::sleep(Duration::from_millis(100));
    listen(&made, 1).unwrap();
    let (mut connection, _) = UnixListener::from(made).accept().unwrap();
    connection.write_all(b"here\n").unwrap();
    assert_eq!(vm.vmm_is_up(), "here\n");
    assert!(matches!(shim.event(), Some(ShimEvent::Started(_))));
    shim.signal(Signal::TERM);
    assert!(shim.wait().success());
}

#[test]
fn a_companion_that_never_listens_fails_at_the_time_limit() {
    let vm = Vm::new();
    let mut config = vm.both("exit 0", STAY);
    config.companion.as_mut().unwrap().ready_timeout_ms = 300;
    let mut shim = vm.open(&config);
    let _made = bound(&vm);
    let (step, message) = shim.failure();
    assert_eq!(step, "companion");
    assert!(message.ends_with("`ready.sock` did not listen after 300 ms"), "{message}");
    assert!(shim.wait().success());
}

#[test]
fn a_start_can_be_interrupted() {
    let vm = Vm::new();
    let mut shim = vm.open(&vm.both("exit 0", STAY));
    heard(&vm.run.join(COMPANION_UP));
    shim.signal(Signal::TERM);
    assert_eq!(shim.failure(), ("start".into(), "stopped before it had started".into()));
    assert!(shim.wait().success());
    let story = vm.story();
    assert_eq!(story.cause, ExitCause::Requested);
    assert_eq!((story.vmm, story.companion), (None, Some(Outcome::Signaled { signal: 9 })));
}

#[test]
fn a_program_that_cannot_be_started_is_named() {
    let vm = Vm::new();
    let mut config = vm.both("", STAY);
    config.vmm.program = "/nowhere/qemu".into();
    let mut shim = vm.open(&config);
    let _listener = vm.companion_is_up();
    let (step, message) = shim.failure();
    assert_eq!(step, "vmm");
    assert!(message.starts_with("`/nowhere/qemu`: cannot execute: No such file"), "{message}");
    assert!(shim.wait().success());
    let story = vm.story();
    assert_eq!(story.cause, ExitCause::LaunchFailed { step, message });
    assert_eq!((story.vmm, story.companion), (None, Some(Outcome::Signaled { signal: 9 })));
    assert!(!vm.state.join("shim.json").exists());

    let mut config = vm.both("", STAY);
    config.companion.as_mut().unwrap().child.program = "/etc/passwd".into();
    let (step, message) = vm.open(&config).failure();
    assert_eq!(step, "companion");
    assert!(message.contains("`/etc/passwd`: cannot execute: Permission denied"), "{message}");
}

#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let vm = Vm::new();
    let mut config = vm.alone("exit 0");
    let path = bytes(&vm.path("absent.ext4"));
    config.vmm.files = vec![PassedFile { fd: 100, path: path.clone(), access: Access::ReadWrite }];
    let message = vm.open(&config).failure().1;
    assert!(message.contains(&format!("cannot open `{path}`: No such file")), "{message}");
    let mut config = vm.alone("exit 0");
    config.console.path = bytes(&vm.path("absent/console.log"));
    let (step, message) = vm.open(&config).failure();
    assert_eq!(step, "logs");
    assert!(message.contains("absent/console.log"), "{message}");
}

#[test]
fn the_shim_survives_the_daemon() {
    let vm = Vm::new();
    let mut shim = vm.shim();
    drop(shim.status.take());
    shim.open(&vm.alone(&format!("echo > vmm-up; {STAY}")));
    vm.vmm_is_up();
    shim.signal(Signal::TERM);
    assert!(shim.wait().success());
    assert_eq!(vm.story().cause, ExitCause::Requested);
    assert!(!is_alive(vm.recorded().vmm));
}

#[test]
fn terminal_signals_are_ignored() {
    let vm = Vm::new();
    let (mut shim, state) = vm.started(&vm.alone(STAY));
    for signal in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::PIPE] {
        shim.signal(signal);
    }
    assert_eq!(shim.child.try_wait().unwrap(), None);
    assert!(is_alive(state.vmm));
    shim.signal(Signal::TERM);
    assert!(shim.wait().success());
    assert_eq!(shim.event(), None);
}

#[test]
fn paths_of_any_length_work() {
    let deep = ["d".repeat(250), "e".repeat(250), "f".repeat(250)].join("/");
    let vm = Vm::with_run(&deep);
    let (mut shim, state) = vm.started(&vm.both("[ -S ready.sock ] && echo ordered", STAY));
    assert!(shim.wait().success());
    assert!(!is_alive(state.vmm));
    let story = vm.story();
    assert_eq!((story.cause, story.console_tail.as_str()), (ExitCause::VmmExited, "ordered\n"));
}

#[test]
fn the_status_pipe_and_the_state_file_agree() {
    let vm = Vm::new();
    let mut shim = vm.open(&vm.alone("exit 0"));
    let Some(ShimEvent::Started(started)) = shim.event() else { panic!("not started") };
    assert_eq!(started, vm.recorded());
    assert_eq!(started.companion, None);
    assert!(shim.wait().success());
}
