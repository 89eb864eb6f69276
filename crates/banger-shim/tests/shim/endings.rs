//! Which end causes which, and the exit story of each.

use std::fmt::Write;
use std::time::{Duration, Instant};

use banger_shim::{
    Access, DiskTrouble, ExitCause, GuestEnd, Outcome, PAUSE_FILE, PassedFile, VcpuState, record,
};
use banger_sys::proc;
use rustix::process::Signal;

use crate::support::{COMPANION_UP, STAY, Shim, Vm, bytes, gone, is_alive, signal_pid};

const KILLED: Option<Outcome> = Some(Outcome::Signaled { signal: 9 });

#[test]
fn the_end_of_the_vmm_ends_the_companion() {
    let vm = Vm::new();
    let vmm = "echo Welcome to Debian; echo qemu: oops >&2; exit 3";
    let (mut shim, state) = vm.started(&vm.both(vmm, STAY));
    assert!(shim.wait().success());
    assert!(!is_alive(state.companion.unwrap()));
    let story = vm.story();
    assert_eq!(story.cause, ExitCause::VmmExited);
    assert_eq!((story.vmm, story.companion), (Some(Outcome::Exited { code: 3 }), KILLED));
    assert_eq!(story.console_tail, "Welcome to Debian\n");
    assert_eq!(story.vmm_log_tail, "qemu: oops\n");
    assert_eq!(story.guest, None);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(u128::from(story.at_unix_ms).abs_diff(now.as_millis()) < 60_000);
    assert_eq!(vm.console_output(), "Welcome to Debian\n");
    assert_eq!(std::fs::read_to_string(vm.logs.join("vmm.log")).unwrap(), "qemu: oops\n");
}

#[test]
fn a_killed_vmm_is_reported_as_killed() {
    let vm = Vm::new();
    let (mut shim, state) = vm.started(&vm.both(STAY, STAY));
    signal_pid(state.vmm.pid, Signal::SEGV);
    assert!(shim.wait().success());
    let story = vm.story();
    assert_eq!(story.cause, ExitCause::VmmExited);
    assert_eq!((story.vmm, story.companion), (Some(Outcome::Signaled { signal: 11 }), KILLED));
}

#[test]
fn the_end_of_the_companion_ends_the_vmm() {
    let vm = Vm::new();
    let (mut shim, state) = vm.started(&vm.both(STAY, STAY));
    signal_pid(state.companion.unwrap().pid, Signal::KILL);
    assert!(shim.wait().success());
    assert!(!is_alive(state.vmm));
    let story = vm.story();
    assert_eq!(story.cause, ExitCause::CompanionDied);
    assert_eq!((story.vmm, story.companion), (KILLED, KILLED));
}

#[test]
fn a_companion_that_follows_its_vmm_is_not_the_cause() {
    let vm = Vm::new();
    // The VMM closes the connection, the companion ends immediately, and the VMM only after it.
    let vmm = "echo > vmm-up; while [ ! -e companion-went ]; do :; done; exit 5";
    let companion = "read -r x < vmm-up; : > companion-went; exit 0";
    let (mut shim, _) = vm.started(&vm.both(vmm, companion));
    assert!(shim.wait().success());
    let story = vm.story();
    assert_eq!(story.cause, ExitCause::VmmExited);
    assert_eq!(story.vmm, Some(Outcome::Exited { code: 5 }));
    assert_eq!(story.companion, Some(Outcome::Exited { code: 0 }));
}

#[test]
fn killing_the_shim_kills_both() {
    let vm = Vm::new();
    let (mut shim, state) = vm.started(&vm.both(STAY, STAY));
    shim.signal(Signal::KILL);
    shim.wait();
    gone(state.vmm);
    gone(state.companion.unwrap());
    assert!(!vm.state.join("exit.json").exists());
    // A restarted daemon finds the recorded processes.
    assert_eq!(vm.recorded(), state);
}

#[test]
fn killing_the_shim_kills_both_of_another_user() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can start a VMM as another user");
        return;
    }
    let vm = Vm::new();
    let mut config = vm.both(STAY, STAY);
    config.vmm.run_as = Some(65_534);
    let (mut shim, state) = vm.started(&config);
    shim.signal(Signal::KILL);
    shim.wait();
    gone(state.vmm);
    gone(state.companion.unwrap());
}

#[test]
fn no_descendant_survives() {
    let vm = Vm::new();
    // Grandchildren in their own sessions without a parent.
    let vmm = "for i in 1 2 3; do (setsid sleep 600 > /dev/null 2>&1 & echo $!); done; exit 0";
    let story = vm.run_to_end(&vm.alone(vmm));
    let left: Vec<u32> = story.console_tail.lines().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(left.len(), 3);
    for pid in left {
        assert_eq!(proc::reference(pid), None, "process {pid} still exists");
    }
}

#[test]
fn adopted_processes_are_reaped_while_the_vm_runs() {
    let vm = Vm::new();
    // An orphan that has ended is a zombie until its new parent reaps it.
    let vmm = "orphan=$(sh -c 'true & echo $!'); i=0; \
               while [ -e /proc/$orphan ] && [ $i -lt 1000000 ]; do i=$((i+1)); done; \
               [ -e /proc/$orphan ] || echo reaped";
    assert_eq!(vm.run_to_end(&vm.alone(vmm)).console_tail, "reaped\n");
}

#[test]
fn the_console_stays_within_its_cap() {
    let vm = Vm::new();
    let mut config = vm.alone("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done");
    config.console.cap_bytes = 20_000;
    let story = vm.run_to_end(&config);
    assert!(story.console_tail.ends_with("line 19998\nline 19999\n"));
    assert!(story.console_tail.len() <= 4096);
    let mut sizes = Vec::new();
    for name in ["console.log", "console.log.1"] {
        sizes.push(std::fs::metadata(vm.logs.join(name)).unwrap().len());
    }
    assert!(sizes.iter().all(|size| *size > 0 && *size <= 20_000), "{sizes:?}");
}

#[test]
fn the_last_output_is_not_lost() {
    let vm = Vm::new();
    let mut output = String::new();
    for n in 0..500 {
        writeln!(output, "{n} {}", "x".repeat(100)).unwrap();
    }
    // As much as fits into a pipe, followed by the end of the process.
    let file = vm.path("said");
    std::fs::write(&file, &output).unwrap();
    let mut config = vm.alone("cat <&9; kill -KILL $$");
    config.vmm.files = vec![PassedFile { fd: 9, path: bytes(&file), access: Access::Read }];
    let story = vm.run_to_end(&config);
    assert_eq!(story.vmm, KILLED);
    assert_eq!(vm.console_output(), output);
    assert!(output.ends_with(&story.console_tail) && story.console_tail.len() == 4096);
}

/// A VMM that speaks QMP at descriptor 9, and sends these lines once the companion runs.
fn qmp_vmm(lines: &[&str]) -> String {
    let mut script = String::from(
        "echo '{\"QMP\": {\"version\": {}, \"capabilities\": []}}' >&9; \
         read -r said <&9; echo \"$said\"; echo '{\"return\": {}}' >&9; ",
    );
    for line in lines {
        write!(script, "echo '{line}' >&9; ").unwrap();
    }
    script
}

#[test]
fn the_last_action_of_the_guest_is_recorded() {
    let shutdown = |reason: &str| {
        format!(r#"{{"event": "SHUTDOWN", "data": {{"guest": true, "reason": "guest-{reason}"}}}}"#)
    };
    let panic = r#"{"event": "GUEST_PANICKED", "data": {"action": "pause"}}"#;
    for (lines, guest) in [
        (vec![shutdown("shutdown")], Some(GuestEnd::Poweroff)),
        (vec![shutdown("reset")], Some(GuestEnd::Reboot)),
        (vec![panic.to_owned(), shutdown("reset")], Some(GuestEnd::Panic)),
        (vec!["no JSON {".to_owned()], None),
        (vec![], None),
    ] {
        let vm = Vm::new();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut config = vm.alone(&qmp_vmm(&lines));
        config.qmp_fd = Some(9);
        let story = vm.run_to_end(&config);
        assert_eq!(story.guest, guest, "{lines:?}");
        assert_eq!(story.cause, ExitCause::VmmExited);
        assert_eq!(story.console_tail, "{\"execute\":\"qmp_capabilities\"}\n");
    }
}

/// Waits until the status file has this disk status.
fn disk_becomes(vm: &Vm, wanted: Option<DiskTrouble>) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while record::status(&vm.state).disk != wanted {
        assert!(Instant::now() < deadline, "{:?}", record::status(&vm.state));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_guest_paused_for_a_full_disk_is_reported_and_resumed() {
    let vm = Vm::new();
    let error = concat!(
        r#"{"event": "BLOCK_IO_ERROR", "data": {"device": "root", "operation": "write", "#,
        r#""action": "stop", "nospace": true, "reason": "No space left on device"}}"#
    );
    let mut script = qmp_vmm(&[error, r#"{"event": "STOP"}"#]);
    script.push_str(
        "read -r said <&9; echo \"$said\"; echo > vmm-up; read -r go < companion-up; \
         echo '{\"event\": \"RESUME\"}' >&9; sleep 600",
    );
    let mut config = vm.alone(&script);
    config.qmp_fd = Some(9);
    let (mut shim, _) = vm.started(&config);
    // `cont` was sent: the shim sees free space on the disk.
    vm.vmm_is_up();
    disk_becomes(&vm, Some(DiskTrouble::HeldNoSpace));
    std::fs::write(vm.run.join(COMPANION_UP), "go\n").unwrap();
    disk_becomes(&vm, None);
    shim.signal(Signal::TERM);
    assert!(shim.wait().success());
    let output = vm.story().console_tail;
    assert!(output.ends_with("{\"execute\":\"cont\"}\n"), "{output}");
}

/// Requests a state of the vCPUs as the daemon does, and waits until it is reported.
fn request_vcpus(vm: &Vm, shim: &Shim, wanted: VcpuState) {
    let request = vm.state.join(PAUSE_FILE);
    match wanted {
        VcpuState::Paused => std::fs::write(request, "").unwrap(),
        VcpuState::Running => std::fs::remove_file(request).unwrap(),
    }
    shim.signal(Signal::USR1);
    let deadline = Instant::now() + Duration::from_secs(30);
    while record::status(&vm.state).vcpus != Some(wanted) {
        assert!(Instant::now() < deadline, "{:?}", record::status(&vm.state));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_guest_is_paused_and_resumed_on_request() {
    let vm = Vm::new();
    let mut script = qmp_vmm(&[]);
    for event in ["STOP", "RESUME", "STOP"] {
        write!(script, "read -r said <&9; echo \"$said\"; echo '{{\"event\": \"{event}\"}}' >&9; ")
            .unwrap();
    }
    script.push_str("echo > vmm-up; sleep 600");
    let mut config = vm.alone(&script);
    config.qmp_fd = Some(9);
    let (mut shim, _) = vm.started(&config);
    assert_eq!(record::status(&vm.state).vcpus, Some(VcpuState::Running));
    request_vcpus(&vm, &shim, VcpuState::Paused);
    request_vcpus(&vm, &shim, VcpuState::Running);
    request_vcpus(&vm, &shim, VcpuState::Paused);
    vm.vmm_is_up();
    shim.signal(Signal::TERM);
    assert!(shim.wait().success());
    let output = vm.story().console_tail;
    let sent = ["stop", "cont", "stop"].map(|name| format!("{{\"execute\":\"{name}\"}}\n"));
    assert!(output.ends_with(&sent.concat()), "{output}");
    // The next run does not begin paused.
    record::clear(&vm.state).unwrap();
    assert!(!vm.state.join(PAUSE_FILE).exists());
}

#[test]
fn a_vmm_without_qmp_cannot_be_paused() {
    let vm = Vm::new();
    let (mut shim, _) = vm.started(&vm.alone("sleep 600"));
    std::fs::write(vm.state.join(PAUSE_FILE), "").unwrap();
    shim.signal(Signal::USR1);
    assert_eq!(record::status(&vm.state).vcpus, None);
    shim.signal(Signal::TERM);
    assert!(shim.wait().success());
    assert_eq!(vm.story().cause, ExitCause::Requested, "SIGUSR1 does not end it");
}

#[test]
fn a_panic_is_detected_on_the_console() {
    let reset = r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#;
    let panic = "echo '[ 5.1] Kernel panic - not syncing: sysrq triggered crash'; ";
    for (before, guest) in [(panic, GuestEnd::Panic), ("", GuestEnd::Reboot)] {
        let vm = Vm::new();
        let mut config = vm.alone(&format!("{before}{}", qmp_vmm(&[reset])));
        config.qmp_fd = Some(9);
        assert_eq!(vm.run_to_end(&config).guest, Some(guest));
    }
}
