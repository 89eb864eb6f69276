//! Starts real programs and checks their environment.

use super::*;
use std::os::unix::net::UnixStream;

use crate::landlock::Rights;

/// Resources that a test adds to a child.
#[derive(Default)]
struct Given {
    env: Vec<(String, String)>,
    run_as: Option<Credentials>,
    descriptors: Vec<(File, RawFd)>,
    ruleset: Option<Ruleset>,
}

fn start(
    program: &str,
    args: &[OsString],
    given: Given,
) -> (UnixStream, Result<Spawned, SpawnError>) {
    let (output, child_end) = UnixStream::pair().unwrap();
    let descriptors: Vec<_> =
        given.descriptors.iter().map(|(file, number)| (file.as_fd(), *number)).collect();
    let spawn = Spawn {
        program: Path::new(program),
        args,
        env: &given.env,
        run_as: given.run_as,
        stdout: child_end.as_fd(),
        stderr: child_end.as_fd(),
        descriptors: &descriptors,
        ruleset: given.ruleset,
    };
    (output, spawn.start())
}

/// Runs `sh -c script`; returns its output and exit code.
fn shell(script: &str, given: Given) -> (String, i32) {
    let (mut output, spawned) = start("/bin/sh", &["-c".into(), script.into()], given);
    let mut spawned = spawned.unwrap();
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    (text, spawned.child.wait().unwrap().code().unwrap())
}

fn failure(program: &str, given: Given) -> SpawnError {
    let (_output, spawned) = start(program, &[], given);
    spawned.map(|mut spawned| spawned.child.wait()).unwrap_err()
}

/// A line of `/proc/self/status` as the child sees it.
fn status(name: &str, given: Given) -> String {
    let (text, _) = shell("while read -r line; do echo \"$line\"; done < /proc/$$/status", given);
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().to_owned()
}

#[test]
fn the_exit_code_and_both_outputs_arrive() {
    let (text, code) = shell("echo out; echo err >&2; exit 7", Given::default());
    assert_eq!((text.as_str(), code), ("out\nerr\n", 7));
}

#[test]
fn the_child_has_exactly_the_given_descriptors() {
    let file = tempfile::tempfile().unwrap();
    // A descriptor without close-on-exec in the parent.
    let leak = rustix::io::dup(&file).unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    // Numbers that `start` would otherwise use itself.
    let numbers = [3, 4, 5, 6, 7, 8, 9, 120];
    let descriptors = numbers.map(|number| (file.try_clone().unwrap(), number)).into();
    // Test each number: listing the folder would open another descriptor.
    let list = "i=0; while [ $i -lt 256 ]; do [ -e /proc/$$/fd/$i ] && echo $i; i=$((i+1)); done";
    let (text, _) = shell(list, Given { descriptors, ..Given::default() });
    let mut seen: Vec<i32> = text.lines().map(|line| line.parse().unwrap()).collect();
    seen.sort_unstable();
    assert_eq!(seen, [&[0, 1, 2][..], &numbers[..]].concat());
}

#[test]
fn descriptors_can_be_swapped() {
    let open = |text: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        File::open(file.path()).unwrap()
    };
    let (a, b) = (open("a"), open("b"));
    let (of_a, of_b) = (a.as_raw_fd(), b.as_raw_fd());
    let script = format!("cat /proc/$$/fd/{of_a} /proc/$$/fd/{of_b}");
    let descriptors = vec![(a, of_b), (b, of_a)];
    let (text, _) = shell(&script, Given { descriptors, ..Given::default() });
    assert_eq!(text, "ba");
}

#[test]
fn environment_signals_and_limits_of_the_parent_are_not_inherited() {
    crate::signals::ignore(&[Signal::HUP, Signal::INT]).unwrap();
    let _blocked = crate::signals::SignalFd::new(&[Signal::TERM, Signal::CHILD]).unwrap();
    for name in ["SigIgn", "SigBlk"] {
        let mask = u64::from_str_radix(&status(name, Given::default()), 16).unwrap();
        // The C library reserves 32 and 33, which cannot be changed.
        assert_eq!(mask & !(3 << 31), 0, "{name}");
    }
    assert_eq!(status("NoNewPrivs", Given::default()), "1");
    assert_eq!(status("Umask", Given::default()), "0077");
    let env = vec![("A".to_owned(), "b".to_owned())];
    let script = "echo $HOME-$A; ulimit -c; read -r x; echo $?";
    let (text, _) = shell(script, Given { env, ..Given::default() });
    assert_eq!(text, "-b\n0\n1\n", "environment, core dumps, end of standard input");
    // The child leads its own session (field 6 of stat).
    let script = "read -r s < /proc/$$/stat; set -- $s; echo $1 $6";
    let (text, _) = shell(script, Given::default());
    let (pid, session) = text.trim().split_once(' ').unwrap();
    assert_eq!(pid, session);
}

#[test]
fn the_child_runs_with_the_given_credentials() {
    let of = |group| Given {
        run_as: Some(Credentials { uid: 65_534, gid: 65_533, group }),
        ..Given::default()
    };
    let somebody = || of(None);
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED in part: changing credentials requires root");
        assert_eq!(failure("/bin/true", somebody()).step, Step::Credentials);
        return;
    }
    assert_eq!(status("Uid", somebody()), ["65534"; 4].join("\t"));
    assert_eq!(status("Gid", somebody()), ["65533"; 4].join("\t"));
    assert_eq!(status("Groups", somebody()), "");
    assert_eq!(status("Groups", of(Some(65_532))), "65532");
    assert_eq!(status("CapEff", somebody()), "0000000000000000");
}

#[test]
fn landlock_rules_apply_to_the_child() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["seen", "hidden"] {
        std::fs::write(folder.path().join(name), name).unwrap();
    }
    let cat = |name: &str| {
        let seen = Ruleset::new().unwrap().grant_path(&folder.path().join("seen"), Rights::Read);
        let system = ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache"];
        let rules = system.iter().fold(seen.unwrap(), |rules, path| {
            rules.grant_path(Path::new(path), Rights::ReadExecute).unwrap()
        });
        let script = format!("cat {}/{name} 2>&1", folder.path().display());
        shell(&script, Given { ruleset: Some(rules), ..Given::default() })
    };
    assert_eq!(cat("seen"), ("seen".into(), 0));
    if !crate::landlock::is_enforced() {
        eprintln!("SKIPPED in part: this kernel has no Landlock");
        return;
    }
    let (output, code) = cat("hidden");
    assert!(output.contains("Permission denied") && code == 1, "{output}");
}

#[test]
fn the_step_that_failed_is_named() {
    for (program, step, kind) in [
        ("/nowhere/at/all", Step::Exec, io::ErrorKind::NotFound),
        ("/etc", Step::Exec, io::ErrorKind::PermissionDenied),
        ("true", Step::Fork, io::ErrorKind::InvalidInput),
    ] {
        let error = failure(program, Given::default());
        assert_eq!((error.step, error.source.kind()), (step, kind), "{program}");
    }
    assert_eq!(failure("/etc", Given::default()).to_string(), "cannot execute");
    // The last number is above every limit of open descriptors.
    for numbers in [vec![2], vec![5, 5], vec![i32::MAX - 1]] {
        let file = tempfile::tempfile().unwrap();
        let descriptors =
            numbers.iter().map(|number| (file.try_clone().unwrap(), *number)).collect();
        let error = failure("/bin/true", Given { descriptors, ..Given::default() });
        assert_eq!(error.step, Step::Fork, "{numbers:?}");
    }
}
