//! The limits of a compromised VMM.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;
use std::time::Duration;

use banger_shim::{Access, ExitCause, PassedFile, ShimConfig, ShimEvent, gate};
use rustix::process::Signal;

use crate::support::{STAY, VMM_UP, Vm, bytes, is_alive};

/// An unused uid and gid.
const OTHER: u32 = 65_534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn the_shim_does_not_follow_planted_links() {
    let vm = Vm::new();
    let victim = vm.path("victim");
    fs::write(&victim, "safe").unwrap();
    // The worst case: logs and state in a folder that the VMM can write to.
    let mut config = vm.both("echo console; echo log >&2; exit 0", STAY);
    config.state_dir = bytes(&vm.run);
    config.console.path = bytes(&vm.run.join("console.log"));
    config.console.cap_bytes = 4;
    config.vmm_log.path = "vmm.log".into();
    let names = [
        "console.log",
        "console.log.1",
        "vmm.log",
        "shim.json",
        ".shim.json.new",
        "exit.json",
        ".exit.json.new",
        "ready.sock",
    ];
    for name in names {
        symlink(&victim, vm.run.join(name)).unwrap();
    }
    let mut shim = vm.open(&config);
    let _listener = vm.companion_is_up();
    assert!(shim.wait().success());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "safe");
    for name in ["console.log", "console.log.1", "vmm.log", "shim.json", "exit.json"] {
        let meta = fs::symlink_metadata(vm.run.join(name)).unwrap();
        assert!(meta.is_file() && meta.nlink() == 1, "{name}");
        assert_eq!(meta.mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_log_of_another_user_is_replaced() {
    if !is_root() {
        eprintln!("SKIPPED: only root can create a file of another user");
        return;
    }
    let vm = Vm::new();
    let console = vm.console();
    fs::write(&console, "laid here").unwrap();
    chown(&console, Some(OTHER), Some(OTHER)).unwrap();
    vm.run_to_end(&vm.alone("echo ours"));
    assert_eq!(vm.console_output(), "ours\n");
    assert_eq!(fs::metadata(&console).unwrap().uid(), 0);
}

#[test]
fn a_flood_on_every_channel_does_not_block_the_end() {
    let vm = Vm::new();
    let flood = "yes >&9 & yes >&2 & yes & ";
    let mut config = vm.both(&format!("{flood} echo > vmm-up; wait"), "yes");
    config.qmp_fd = Some(9);
    config.console.cap_bytes = 100_000;
    config.vmm_log.cap_bytes = 100_000;
    let (mut shim, state) = vm.started(&config);
    vm.vmm_is_up();
    shim.signal(Signal::TERM);
    assert!(shim.wait().success());
    assert!(!is_alive(state.vmm));
    assert_eq!(vm.story().cause, ExitCause::Requested);
    for file in fs::read_dir(&vm.logs).unwrap() {
        assert!(file.unwrap().metadata().unwrap().len() <= 100_000);
    }
}

#[test]
fn a_child_has_only_the_given_descriptors_and_environment() {
    let vm = Vm::new();
    let disk = vm.path("disk");
    fs::write(&disk, "disk").unwrap();
    // The shell itself sets PWD.
    let ask = "unset PWD; env; cat <&9; echo; umask; i=0; \
               while [ $i -lt 300 ]; do [ -e /proc/$$/fd/$i ] && printf '%s ' $i; i=$((i+1)); done";
    let mut config = vm.alone(ask);
    config.vmm.files = vec![
        PassedFile { fd: 9, path: bytes(&disk), access: Access::Read },
        PassedFile { fd: 200, path: bytes(&disk), access: Access::ReadWrite },
    ];
    config.qmp_fd = Some(3);
    let output = vm.run_to_end(&config).console_tail;
    let output: Vec<&str> = output.lines().collect();
    assert_eq!(output, ["disk", "0077", "0 1 2 3 9 200 "]);
}

#[test]
fn descriptors_that_came_through_the_gate_are_the_vmms_alone() {
    let vm = Vm::new();
    let device = vm.path("device");
    fs::write(&device, "device").unwrap();
    let opened: OwnedFd = fs::File::open(&device).unwrap().into();
    // It could not open the file itself.
    let mut config = vm.alone(&format!("cat <&9; echo > {VMM_UP}; {STAY}"));
    config.passed = vec![9];
    let (program, log) = (Path::new(env!("CARGO_BIN_EXE_banger-shim")), vm.path("shim.log"));
    let open = |config: &ShimConfig, fds: &[OwnedFd]| {
        let (gate, child) = gate::spawn(program, &[], &vm.run, &log).unwrap();
        let line = banger_base::line::encode(config).unwrap();
        (gate.send::<ShimEvent>(&line, fds, Duration::from_secs(60)).unwrap(), child)
    };
    let (event, mut child) = open(&config, &[]);
    assert!(matches!(event, ShimEvent::Failed { step, .. } if step == "gate"));
    child.wait().unwrap();
    let (event, mut child) = open(&config, &[opened]);
    assert!(matches!(event, ShimEvent::Started(_)), "{event:?}");
    vm.vmm_is_up();
    let held = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().flatten();
    let held: Vec<_> = held.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    assert!(!held.contains(&device), "the shim keeps what it passed: {held:?}");
    let shim = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(shim, Signal::TERM).unwrap();
    child.wait().unwrap();
    assert_eq!(vm.story().console_tail, "device");
}

#[test]
fn a_child_can_open_only_the_paths_of_its_view() {
    if !banger_sys::landlock::is_enforced() {
        eprintln!("SKIPPED: this kernel has no Landlock");
        return;
    }
    let vm = Vm::new();
    for name in ["kernel", "secret"] {
        fs::write(vm.path(name), name).unwrap();
    }
    let (kernel, secret) = (bytes(&vm.path("kernel")), bytes(&vm.path("secret")));
    let mut config = vm.alone(
        "cat \"$1\"; echo; cat \"$2\"; echo x >> \"$1\"; ls \"$3\"; \
         echo own > own && cat own; ln -s /etc/passwd link; mkdir folder; exit 0",
    );
    config.vmm.args.extend(["sh".into(), kernel.clone(), secret, bytes(&vm.state)]);
    config.vmm.view.as_mut().unwrap().read = vec![kernel, bytes(&vm.path("absent"))];
    let story = vm.run_to_end(&config);
    assert_eq!(story.console_tail, "kernel\nown\n");
    assert_eq!(story.vmm_log_tail.matches("ermission denied").count(), 5, "{story:#?}");
}

#[test]
fn a_child_runs_with_its_credentials() {
    if !is_root() {
        eprintln!("SKIPPED: only root can start a VMM as another user");
        return;
    }
    let vm = Vm::new();
    // As in the daemon: the run folder is reachable as the working directory only.
    chown(&vm.run, Some(OTHER), Some(OTHER)).unwrap();
    let ask = "id -u; id -g; id -G; while read -r name value; do case $name in \
               CapEff:|CapPrm:|CapBnd:|NoNewPrivs:|Groups:) echo $name $value;; esac; \
               done < /proc/self/status; : > own && echo wrote; cat <&9";
    let disk = vm.path("disk");
    fs::write(&disk, "disk\n").unwrap();
    let mut config = vm.alone(ask);
    config.vmm.run_as = Some(OTHER);
    config.vmm.files = vec![PassedFile { fd: 9, path: bytes(&disk), access: Access::ReadWrite }];
    let output = vm.run_to_end(&config).console_tail;
    let output: Vec<&str> = output.lines().filter(|line| !line.starts_with("CapBnd")).collect();
    let none = "0000000000000000";
    assert_eq!(
        output,
        [
            "65534",
            "65534",
            "65534",
            "Groups:",
            &format!("CapPrm: {none}"),
            &format!("CapEff: {none}"),
            "NoNewPrivs: 1",
            "wrote",
            "disk",
        ]
    );
    assert_eq!(fs::metadata(vm.run.join("own")).unwrap().uid(), OTHER);
}
